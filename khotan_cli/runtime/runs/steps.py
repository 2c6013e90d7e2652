"""What one execution of a run has finished, and how it finishes more: exactly once, in the transaction of the data."""

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
from khotan_cli.runtime.bulk.key_set import SeenKeys, StepTexts
from khotan_cli.runtime.database.ambient_session import around, opening
from khotan_cli.runtime.database.database import patience
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.http.dry_run import MissingResponse, missing_response_error
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Host
from khotan_cli.runtime.runs.redaction import MaskedRuns, Secrets
from khotan_cli.runtime.store.runs import Reject, RunCancelled, RunStore, StepRecord

OUTAGE_SECONDS = 300.0
"""For how long a run waits for a database that has gone, or has no room for it."""
LONGEST_LINE = 2000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0

T = TypeVar("T")

logger = logging.getLogger("khotan.flows")


@dataclass
class Outcome:
    """What a step came to: a JSON result, counts, and records it could not take; of the counts, what `add` counted already."""

    result: Any = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    rejects: Sequence[Reject] = ()
    counted: Mapping[str, int] = field(default_factory=dict[str, int])


Work = Callable[[AsyncSession], Awaitable[Outcome | None]]


@dataclass
class StepScope:
    """The step that runs now: what is to be written in its transaction, and the steps within it by name."""

    name: str
    writes: list[Work] = field(default_factory=list[Work])
    occurrences: Counter[str] = field(default_factory=Counter[str])


scope_now: ContextVar[StepScope | None] = ContextVar("khotan_step", default=None)


@dataclass(frozen=True)
class Finished:
    """A step that is done, by this execution or an earlier one."""

    name: str
    result: Any
    counts: Mapping[str, int]


class Recorder:
    """Steps of one run, by name: the name of what is done, and for a name met again its occurrence (`load#2`).

    Names, not places, tie a finished step to the code: a flow edited while its run is pending goes on with what is done,
    runs what is new, and leaves out what is gone.
    """

    dry = False

    def __init__(self, host: Host, flow: Flow | None, run_id: str, epoch: int) -> None:
        self.database, self.run_id, self.epoch = host.database, run_id, epoch
        self.secrets = Secrets(host, flow)
        self.store: RunStore = MaskedRuns(host, self.secrets)
        self._finished: dict[str, Finished] = {}
        self._occurrences: Counter[str] = Counter()
        self._number = 0
        self._last: str | None = None
        self._cancelled = False
        self._said: list[tuple[datetime, str, str]] = []
        self._shown: Mapping[str, Any] | None = None

    async def load(self) -> None:
        """Read what earlier executions finished."""
        rows: Sequence[Row[Any]] = await patiently(lambda: self.store.steps(self.run_id))
        for row in rows:
            self._finished[row.name] = Finished(row.name, row.result, row.counts or {})
            self._number = max(self._number, row.number)
            self._last = row.name

    def name(self, base: str) -> str:
        """The name of the next step that is called so; within a step it begins with that step's (`load/sync …`).

        Each try of a step counts anew what is within it, so that it takes what the tries before it finished.
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
        """A session in a transaction of its own, which what khotan's stores do meanwhile is part of."""
        try:
            async with self.database.writing() as session, opening(self.database, session):
                yield session
        finally:
            await self.catch_up()

    def alone(self, what: str = "No step can begin") -> None:
        """Raises FlowError where a session is open around, and a transaction beside it would wait for it: on SQLite."""
        if self._beside():
            raise FlowError(
                f"{what} while a session is open: SQLite has one writer at a time",
                code="session_open",
                hint="Do it before or after the block of `async with ctx.session()`, or after a commit at its end.",
            )

    def _beside(self) -> bool:
        found = around(self.database) if self.database.sqlite else None
        return found is not None and found.usable

    def go_on(self) -> None:
        """Raises RunCancelled where the last write found that the run was cancelled."""
        if self._cancelled:
            raise RunCancelled

    async def ready(self) -> None:
        """Raises RunCancelled or RunLost where no further step may begin."""
        self.alone()
        self.go_on()
        await patiently(lambda: self.store.check(self.run_id, self.epoch))

    async def commit(
        self,
        name: str,
        work: Work,
        *,
        started_at: datetime | None = None,
        attempts: int = 1,
        relaxed: bool = False,
    ) -> Finished:
        """Do the work and note the step in one transaction; repeated while the database is away or busy.

        relaxed: see RunStore.record.

        Raises RunLost, with nothing written, where the run is not this execution's any more; StepsLost where the step before
        is gone, because the database server crashed; RunCancelled before it begins.
        """
        self.alone()
        started = started_at or utc_now()
        self.go_on()
        self._number += 1
        number = self._number
        tried = False

        async def once() -> Finished:
            nonlocal tried
            if tried and (done := await self._stored(name)) is not None:
                return done  # the connection broke after the commit
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

        self._finished[name] = await patiently(once)
        self._last = name
        return self._finished[name]

    async def add(
        self,
        counts: Mapping[str, int],
        work: Callable[[AsyncSession], Awaitable[None]],
        done_before: Callable[[AsyncSession], Awaitable[bool]],
    ) -> None:
        """Do a part of a step that must not be done again, and count it, in one transaction.

        done_before: whether that transaction has committed; asked where its connection broke.
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

        await patiently(once)

    async def _stored(self, name: str) -> Finished | None:
        for row in await self.store.steps(self.run_id):
            if row.name == name:
                return Finished(row.name, row.result, row.counts or {})
        return None

    def texts(self, step: str) -> StepTexts:
        """The texts that a step has noted so far."""
        return StepTexts(self.run_id, step, sqlite=self.database.sqlite)

    def seen(self, step: str, model: Any, key: Sequence[str]) -> SeenKeys:
        """The keys of a table that a step has met so far."""
        return SeenKeys(self.run_id, step, model, key, sqlite=self.database.sqlite)

    def before(self, work: Work) -> None:
        """In a dry run: do this at the start of each transaction, all of which are rolled back."""

    def wrote(self, table: str, counts: Mapping[str, int], records: Sequence[Any] = ()) -> None:
        """In a dry run: note what would have been written."""

    async def progress(self, progress: Mapping[str, Any]) -> None:
        self._shown = (await self.secrets.masker()).value(progress)
        await self.catch_up()

    async def log(self, level: str, message: str) -> None:
        masker = await self.secrets.masker()
        self._said.append((utc_now(), level, masker.text(message)[:LONGEST_LINE]))
        await self.catch_up()

    async def catch_up(self) -> None:
        """Write what the run says; on SQLite after the session that is open around, and whatever becomes of that."""
        if not (self._said or self._shown) or self._beside():
            return
        said, self._said = self._said, []
        shown, self._shown = self._shown, None
        try:
            for at, level, message in said:
                await self.store.log(self.run_id, level, message, at)
        except StoreError as exc:
            logger.warning("A line of run %s is not kept: %s", self.run_id, exc.message)
        try:
            if shown is not None:
                await self.store.progress(self.run_id, self.epoch, shown)
        except StoreError as exc:
            logger.warning("Progress of run %s is not shown: %s", self.run_id, exc.message)


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Do it, again and again while the database cannot be reached or gives it up, for at most OUTAGE_SECONDS."""
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
    """A step's result as JSON. Raises FlowError for what JSON cannot say, answer_held_back for what a dry run did not ask."""
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    def unknown(found: Any) -> Any:
        if isinstance(found, MissingResponse):
            raise missing_response_error(found, f"as the result of step {name!r}")
        raise PydanticSerializationError(f"Unable to serialize unknown type: {type(found)}")

    try:
        return to_jsonable_python(value, inf_nan_mode="strings", fallback=unknown)
    except (PydanticSerializationError, ValueError, RecursionError) as exc:
        raise FlowError(
            f"The result of step {name!r} cannot be kept: {str(exc)[:200]}",
            code="step_failed",
            hint="Return JSON, or a Pydantic model: numbers, texts, lists, dicts.",
        ) from None
