"""Dry run: runs a flow against the live source, suppresses changing requests and rolls back all writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic_core import to_jsonable_python
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.bulk.key_set import KeySet, RememberedKeys, RememberedTexts, StepTexts
from khotan_cli.runtime.database.ambient_session import bind_session, current_session, override_sessions
from khotan_cli.runtime.flows.context import FlowContext
from khotan_cli.runtime.http.dry_run import DRY_RUN_ID, SuppressedRequest, suppressing
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.errors import failure_of
from khotan_cli.runtime.runs.steps import LONGEST_LINE, Finished, Outcome, StepRecorder, Work
from khotan_cli.runtime.worker.execution import run_function

SAMPLE = 5


@dataclass
class DryReport:
    """The result of a dry run.

    counts: the run's counters. requests: suppressed requests by call, with a count and a sample. writes: rows by table, with
    a sample. rejects: a sample of rejected records. stopped: why the run needed the response of a suppressed request.
    failure: the error document if the flow raised.
    """

    counts: dict[str, int] = field(default_factory=dict[str, int])
    requests: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    writes: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    rejects: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    steps: list[str] = field(default_factory=list[str])
    log: list[str] = field(default_factory=list[str])
    message: str | None = None
    stopped: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None


class DryRecorder(StepRecorder):
    """Records steps in memory only. `before` repeats setup, such as created tables, at the start of each transaction."""

    dry = True

    def __init__(self, env: Environment, flow: Flow) -> None:
        super().__init__(env, flow, DRY_RUN_ID, 0)
        self.report = DryReport()
        self._total: Counter[str] = Counter()
        self._before: list[Work] = []

    def add_request(self, request: SuppressedRequest) -> None:
        name = f"{request.plug}.{request.endpoint}" if request.endpoint else f"{request.plug} {request.target}"
        entry = self.report.requests.setdefault(f"{request.method} {name}", {"count": 0, "sample": []})
        entry["count"] += 1
        if len(entry["sample"]) < SAMPLE:
            body = to_jsonable_python(request.body, fallback=repr)
            entry["sample"].append({"target": request.target, "body": body})

    async def ensure_owner(self) -> None:
        """Only check for an open session: a dry run has no owner and cannot be cancelled."""
        self.forbid_open_session()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session that is rolled back at the end, after the setup of `before`."""
        outer = current_session(self.database)
        async with (
            outer.lock if outer else nullcontext(),
            self.database.trying(outer.session if outer else None) as session,
        ):
            for setup in () if outer else self._before:
                await setup(session)
            async with bind_session(self.database, session):
                yield session

    async def commit(
        self,
        name: str,
        work: Work,
        *,
        started_at: datetime | None = None,
        attempts: int = 1,
        relaxed: bool = False,
    ) -> Finished:
        self.forbid_open_session()
        async with self.session() as session:
            outcome = await work(session) or Outcome()
        self._total.update(outcome.counts)
        self._total.subtract(outcome.counted)
        for reject in outcome.rejects:
            self._keep_reject({"step": reject.step, "reason": reject.reason, "record": reject.record})
        self.report.steps.append(name)
        self._finished[name] = Finished(name, outcome.result, outcome.counts)
        return self._finished[name]

    async def add(
        self,
        counts: Mapping[str, int],
        work: Callable[[AsyncSession], Awaitable[None]],
        done_before: Callable[[AsyncSession], Awaitable[bool]],
    ) -> None:
        """Only count: the responses of suppressed requests are unknown and not stored."""
        self._total.update(counts)

    def before(self, work: Work) -> None:
        self._before.append(work)

    def wrote(self, table: str, counts: Mapping[str, int], records: Sequence[Any] = ()) -> None:
        entry = self.report.writes.setdefault(table, {"sample": []})
        for name, count in counts.items():
            entry[name] = entry.get(name, 0) + count
        missing = SAMPLE - len(entry["sample"])
        entry["sample"] += [to_jsonable_python(record, fallback=repr) for record in records[:missing]]

    def texts(self, step: str) -> StepTexts:
        return RememberedTexts(self.run_id, step, sqlite=self.database.sqlite)

    def seen(self, step: str, model: Any, key: Sequence[str]) -> KeySet:
        return RememberedKeys(self.run_id, step, model, key, sqlite=self.database.sqlite)

    def _keep_reject(self, reject: dict[str, Any]) -> None:
        if len(self.report.rejects) < SAMPLE:
            self.report.rejects.append(reject)

    async def progress(self, progress: Mapping[str, Any]) -> None:
        """Do nothing."""

    async def log(self, level: str, message: str) -> None:
        masker = await self.secrets.masker()
        self.report.log.append(f"{level}: {masker.text(message)[:LONGEST_LINE]}")

    @property
    def total(self) -> dict[str, int]:
        return dict(self._total)


async def dry_run(env: Environment, flow: Flow, variant: str, body: Any) -> DryReport:
    """Run the flow in this process without sending or storing anything. Exceptions are returned in the report."""
    recorder = DryRecorder(env, flow)
    report = recorder.report
    ctx = FlowContext(env, flow, recorder, variant=variant, body=body)
    try:
        with suppressing(recorder), override_sessions(recorder.session):
            report.message = await run_function(flow, ctx)
    except KhotanError as exc:
        if exc.code == "answer_held_back":
            report.stopped = {"message": exc.message, "hint": exc.hint, **exc.details}
        else:
            report.failure = await failure_of(exc, env, flow)
    except Exception as exc:
        report.failure = await failure_of(exc, env, flow)
    report.counts = recorder.total
    return DryReport(**(await recorder.secrets.masker()).value(vars(report)))
