"""A dry run: the flow against the live source, with every changing request held back and every write rolled back."""

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
from khotan_cli.runtime.bulk.key_set import RememberedKeys, RememberedTexts, SeenKeys, StepTexts
from khotan_cli.runtime.database.ambient_session import around, instead, opening
from khotan_cli.runtime.flows.context import FlowContext
from khotan_cli.runtime.http.dry_run import DRY_RUN_ID, SuppressedRequest, suppressing
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Host
from khotan_cli.runtime.runs.errors import failure_of
from khotan_cli.runtime.runs.steps import LONGEST_LINE, Finished, Outcome, Recorder, Work
from khotan_cli.runtime.worker.execution import run_function

SAMPLE = 5


@dataclass
class DryReport:
    """What a run would have done.

    counts: the run's counters. requests: what would have been sent, counted by call, with a sample of each. writes: rows by
    table, with a sample. rejects: a sample of records that would have been left out. stopped: why it could not go on
    without the answer of a held-back request. failure: the document of what it raised.
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


class DryRecorder(Recorder):
    """Steps that leave no trace. `before` is done at the start of each transaction: tables that would be there by then."""

    dry = True

    def __init__(self, host: Host, flow: Flow) -> None:
        super().__init__(host, flow, DRY_RUN_ID, 0)
        self.report = DryReport()
        self._total: Counter[str] = Counter()
        self._before: list[Work] = []

    def add_request(self, request: SuppressedRequest) -> None:
        name = f"{request.plug}.{request.endpoint}" if request.endpoint else f"{request.plug} {request.target}"
        place = self.report.requests.setdefault(f"{request.method} {name}", {"count": 0, "sample": []})
        place["count"] += 1
        if len(place["sample"]) < SAMPLE:
            body = to_jsonable_python(request.body, fallback=repr)
            place["sample"].append({"target": request.target, "body": body})

    async def ready(self) -> None:
        """Nothing can cancel a dry run but its caller."""
        self.alone()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session of which nothing stays, in a database as it would be by then."""
        within = around(self.database)
        async with (
            within.lock if within else nullcontext(),
            self.database.trying(within.session if within else None) as session,
        ):
            for prelude in () if within else self._before:
                await prelude(session)
            async with opening(self.database, session):
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
        self.alone()
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
        """Only count: what a service would have answered is not known, and so not stored."""
        self._total.update(counts)

    def before(self, work: Work) -> None:
        self._before.append(work)

    def wrote(self, table: str, counts: Mapping[str, int], records: Sequence[Any] = ()) -> None:
        place = self.report.writes.setdefault(table, {"sample": []})
        for what, count in counts.items():
            place[what] = place.get(what, 0) + count
        room = SAMPLE - len(place["sample"])
        place["sample"] += [to_jsonable_python(record, fallback=repr) for record in records[:room]]

    def texts(self, step: str) -> StepTexts:
        return RememberedTexts(self.run_id, step, sqlite=self.database.sqlite)

    def seen(self, step: str, model: Any, key: Sequence[str]) -> SeenKeys:
        return RememberedKeys(self.run_id, step, model, key, sqlite=self.database.sqlite)

    def _keep_reject(self, reject: dict[str, Any]) -> None:
        if len(self.report.rejects) < SAMPLE:
            self.report.rejects.append(reject)

    async def progress(self, progress: Mapping[str, Any]) -> None:
        """Nobody watches."""

    async def log(self, level: str, message: str) -> None:
        masker = await self.secrets.masker()
        self.report.log.append(f"{level}: {masker.text(message)[:LONGEST_LINE]}")

    @property
    def total(self) -> dict[str, int]:
        return dict(self._total)


async def dry_run(host: Host, flow: Flow, variant: str, body: Any) -> DryReport:
    """Run the flow here and now, sending and storing nothing. Raises nothing: what it raised is in the report."""
    recorder = DryRecorder(host, flow)
    report = recorder.report
    ctx = FlowContext(host, flow, recorder, variant=variant, body=body)
    try:
        with suppressing(recorder), instead(recorder.session):
            report.message = await run_function(flow, ctx)
    except KhotanError as exc:
        if exc.code == "answer_held_back":
            report.stopped = {"message": exc.message, "hint": exc.hint, **exc.details}
        else:
            report.failure = await failure_of(exc, host, flow)
    except Exception as exc:
        report.failure = await failure_of(exc, host, flow)
    report.counts = recorder.total
    return DryReport(**(await recorder.secrets.masker()).value(vars(report)))
