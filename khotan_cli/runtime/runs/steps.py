"""The finished steps of one execution of a run. Each step is stored exactly once, in the transaction of its data."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import DatabaseBusy, DatabaseUnreachable, FlowError, StoreError
from khotan_cli.runtime.bulk.key_set import KeySet, StepTexts
from khotan_cli.runtime.database.ambient_session import bind_session, current_session
from khotan_cli.runtime.database.database import patience
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.http.dry_run import MissingResponse, missing_response_error
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.redaction import RedactedRunStore, Redaction
from khotan_cli.runtime.store.runs import Reject, RunCancelled, RunStore, StepRecord

OUTAGE_SECONDS = 300.0
"""How long a run waits for a database that is down or busy."""
LONGEST_LINE = 2000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0

T = TypeVar("T")

logger = logging.getLogger("khotan.flows")


@dataclass
class Outcome:
    """The outcome of a step: a JSON result, counts and rejected records. `counted`: counts that `add` already stored."""

    result: Any = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    rejects: Sequence[Reject] = ()
    counted: Mapping[str, int] = field(default_factory=dict[str, int])


Work = Callable[[AsyncSession], Awaitable[Outcome | None]]


@dataclass
class StepScope:
    """The current step: the writes of its transaction, and the number of its inner steps by name."""

    name: str
    writes: list[Work] = field(default_factory=list[Work])
    occurrences: Counter[str] = field(default_factory=Counter[str])


scope_now: ContextVar[StepScope | None] = ContextVar("khotan_step", default=None)


@dataclass(frozen=True)
class Finished:
    """A step that this or an earlier execution finished."""

    name: str
    result: Any
    counts: Mapping[str, int]


class StepRecorder:
    """Records the steps of one run by name. A repeated name gets the number of its occurrence (`load#2`).

    Names, not positions, link a finished step to the code: if a flow is edited while its run is pending, the run continues
    with the finished steps, runs new steps and skips removed ones.
    """

    dry = False

    def __init__(self, env: Environment, flow: Flow | None, run_id: str, epoch: int) -> None:
        self.database, self.run_id, self.epoch = env.database, run_id, epoch
        self.secrets = Redaction(env, flow)
        self.store: RunStore = RedactedRunStore(env, self.secrets)
        self._finished: dict[str, Finished] = {}
        self._occurrences: Counter[str] = Counter()
        self._number = 0
        self._last: str | None = None
        self._cancelled = False
        self._log: list[tuple[datetime, str, str]] = []
        self._progress: Mapping[str, Any] | None = None

    async def load(self) -> None:
        """Load the steps that earlier executions finished."""
        rows: Sequence[Row[Any]] = await retry_while_database_down(lambda: self.store.steps(self.run_id))
        for row in rows:
            self._finished[row.name] = Finished(row.name, row.result, row.counts or {})
            self._number = max(self._number, row.number)
            self._last = row.name

    def name(self, base: str) -> str:
        """Return the unique name of the next step. An inner step's name begins with the outer step's (`load/sync …`).

        Each attempt of a step counts its inner steps from 1, so that it reuses what earlier attempts finished.
        """
        scope = scope_now.get()
        occurrences = self._occurrences if scope is None else scope.occurrences
        occurrences[base] += 1
        name = base if scope is None else f"{scope.name}/{base}"
        return name if occurrences[base] == 1 else f"{name}#{occurrences[base]}"

    def finished(self, name: str) -> Finished | None:
        return self._finished.get(name)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session in its own transaction. khotan's stores use it while it is open."""
        try:
            async with self.database.writing() as session, bind_session(self.database, session):
                yield session
        finally:
            await self.flush_log()

    def forbid_open_session(self, what: str = "No step can begin") -> None:
        """Raises FlowError on SQLite while a session is open: a second transaction would wait for it forever."""
        if self._session_open():
            raise FlowError(
                f"{what} while a session is open: SQLite allows one writer at a time",
                code="session_open",
                hint="Do it before or after the `async with ctx.session()` block, or after a commit at its end.",
            )

    def _session_open(self) -> bool:
        ambient = current_session(self.database) if self.database.sqlite else None
        return ambient is not None and ambient.usable

    def raise_if_cancelled(self) -> None:
        """Raises RunCancelled if the last write found that the run was cancelled."""
        if self._cancelled:
            raise RunCancelled

    async def ensure_owner(self) -> None:
        """Raises RunCancelled or RunLost if no further step may begin."""
        self.forbid_open_session()
        self.raise_if_cancelled()
        await retry_while_database_down(lambda: self.store.check(self.run_id, self.epoch))

    async def commit(
        self,
        name: str,
        work: Work,
        *,
        started_at: datetime | None = None,
        attempts: int = 1,
        relaxed: bool = False,
    ) -> Finished:
        """Do the work and store the step in one transaction. Retried while the database is down or busy.

        relaxed: see RunStore.record. Raises RunLost, with nothing written, if the run no longer belongs to this execution;
        StepsLost if the previous step is missing because the database server crashed; RunCancelled before the work begins.
        """
        self.forbid_open_session()
        started = started_at or utc_now()
        self.raise_if_cancelled()
        self._number += 1
        number = self._number
        tried = False

        async def once() -> Finished:
            nonlocal tried
            if tried and (stored := await self._stored(name)) is not None:
                return stored  # the connection broke after the commit
            tried = True
            async with self.session() as session:
                outcome = await work(session) or Outcome()
                record = StepRecord(
                    name, number, outcome.result, outcome.counts, attempts, started, utc_now(), outcome.counted
                )
                self._cancelled = await self.store.record(
                    session, self.run_id, self.epoch, record, after=self._last, relaxed=relaxed
                )
                await self.store.reject(session, self.run_id, outcome.rejects)
            return Finished(name, outcome.result, outcome.counts)

        self._finished[name] = await retry_while_database_down(once)
        self._last = name
        return self._finished[name]

    async def add(
        self,
        counts: Mapping[str, int],
        work: Callable[[AsyncSession], Awaitable[None]],
        done_before: Callable[[AsyncSession], Awaitable[bool]],
    ) -> None:
        """Do a part of a step that must not be repeated, and add its counts, in one transaction.

        done_before: whether that transaction has committed; called if its connection broke.
        """
        tried = False

        async def once() -> None:
            nonlocal tried
            async with self.session() as session:
                if tried and await done_before(session):
                    return
                tried = True
                await work(session)
                self._cancelled = await self.store.add(session, self.run_id, self.epoch, counts)

        await retry_while_database_down(once)

    async def _stored(self, name: str) -> Finished | None:
        for row in await self.store.steps(self.run_id):
            if row.name == name:
                return Finished(row.name, row.result, row.counts or {})
        return None

    def texts(self, step: str) -> StepTexts:
        """Return the texts that a step has stored."""
        return StepTexts(self.run_id, step, sqlite=self.database.sqlite)

    def seen(self, step: str, model: Any, key: Sequence[str]) -> KeySet:
        """Return the keys of a table that a step has processed."""
        return KeySet(self.run_id, step, model, key, sqlite=self.database.sqlite)

    def before(self, work: Work) -> None:
        """In a dry run: repeat this at the start of each transaction, because all of them are rolled back."""

    def wrote(self, table: str, counts: Mapping[str, int], records: Sequence[Any] = ()) -> None:
        """In a dry run: report what would have been written."""

    async def progress(self, progress: Mapping[str, Any]) -> None:
        self._progress = (await self.secrets.masker()).value(progress)
        await self.flush_log()

    async def log(self, level: str, message: str) -> None:
        masker = await self.secrets.masker()
        self._log.append((utc_now(), level, masker.text(message)[:LONGEST_LINE]))
        await self.flush_log()

    async def flush_log(self) -> None:
        """Write pending log lines and progress. On SQLite this waits until the open session has ended."""
        if not (self._log or self._progress) or self._session_open():
            return
        lines, self._log = self._log, []
        progress, self._progress = self._progress, None
        try:
            for at, level, message in lines:
                await self.store.log(self.run_id, level, message, at)
        except StoreError as exc:
            logger.warning("A log line of run %s could not be stored: %s", self.run_id, exc.message)
        try:
            if progress is not None:
                await self.store.progress(self.run_id, self.epoch, progress)
        except StoreError as exc:
            logger.warning("The progress of run %s could not be stored: %s", self.run_id, exc.message)


async def retry_while_database_down(work: Callable[[], Awaitable[T]]) -> T:
    """Retry the work while the database is unreachable or busy, for at most OUTAGE_SECONDS."""
    waited, pause = 0.0, _FIRST_PAUSE
    while True:
        try:
            with patience(0):
                return await work()
        except (DatabaseUnreachable, DatabaseBusy) as exc:
            if waited >= OUTAGE_SECONDS:
                raise
            logger.warning("%s Trying again.", exc.message)
        rest = random.uniform(pause / 2, pause)
        await asyncio.sleep(rest)
        waited, pause = waited + rest, min(pause * 2, _LONGEST_PAUSE)


def as_json(name: str, value: Any) -> Any:
    """Convert a step's result to JSON. Raises FlowError if it is not JSON, or (answer_held_back) if a dry run suppressed it."""
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    def unknown(item: Any) -> Any:
        if isinstance(item, MissingResponse):
            raise missing_response_error(item, f"as the result of step {name!r}")
        raise PydanticSerializationError(f"Unable to serialize unknown type: {type(item)}")

    try:
        return to_jsonable_python(value, inf_nan_mode="strings", fallback=unknown)
    except (PydanticSerializationError, ValueError, RecursionError) as exc:
        raise FlowError(
            f"The result of step {name!r} cannot be stored: {str(exc)[:200]}",
            code="step_failed",
            hint="Return JSON values or a Pydantic model.",
        ) from None
