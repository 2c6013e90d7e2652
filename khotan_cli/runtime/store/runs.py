"""Runs, their steps, logs and rejected records. The run's epoch guards all writes.

`begin` gives a run a new epoch. A process that writes with an older epoch (it was considered dead but is alive) gets RunLost,
and its transaction is rolled back: the writes of a step, its result and the counters are stored together, exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.tables import REJECTS, RUN_STEPS, RUN_UPDATES, RUNS, SEEN_KEYS
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.store.run_reader import ACTIVE, RunData, RunReader

__all__ = [
    "ACTIVE",
    "COUNTERS",
    "ENDED",
    "Reject",
    "RunCancelled",
    "RunData",
    "RunLost",
    "RunStore",
    "StepRecord",
    "StepsLost",
]

COUNTERS = ("extracted", "transformed", "created", "updated", "deleted", "skipped", "failed")
ENDED = ("completed", "partial", "failed", "cancelled")


class RunLost(Exception):
    """The run now belongs to another process, or has ended: this execution must not write any more."""


class StepsLost(RunLost):
    """A finished step is missing in the database: the server crashed before its commit was on disk.

    The work since then cannot be stored. The execution starts again from the stored steps.
    """


class RunCancelled(Exception):
    """Cancellation of the run was requested."""


@dataclass(frozen=True)
class StepRecord:
    """A finished step. `result` is JSON, `number` its position in the run. `counts`: its counts, of which `counted` is already
    in the run's counters."""

    name: str
    number: int
    result: Any
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    attempts: int = 1
    started_at: datetime = field(default_factory=utc_now)
    ended_at: datetime = field(default_factory=utc_now)
    counted: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def added(self) -> dict[str, int]:
        """The counts to add to the run's counters."""
        return {name: count - self.counted.get(name, 0) for name, count in self.counts.items()}

    @property
    def row(self) -> dict[str, Any]:
        values = {**vars(self), "counts": dict(self.counts)}
        del values["counted"]
        return values


@dataclass(frozen=True)
class Reject:
    """A rejected record and the reason."""

    step: str
    reason: str
    record: Any


_NOTHING = dict.fromkeys(COUNTERS, 0)
_ADD = (
    update(RUNS)
    .where(RUNS.c.id == bindparam("run"), RUNS.c.epoch == bindparam("mine"), RUNS.c.status == "running")
    .values(updated_at=bindparam("now"), **{name: RUNS.c[name] + bindparam(name) for name in COUNTERS})
    .returning(RUNS.c.cancel_requested)
)
_RECORD = text(
    "WITH run AS (UPDATE khotan_runs SET updated_at = :now, "  # noqa: S608 - our own names
    + ", ".join(f"{name} = {name} + :{name}" for name in COUNTERS)
    + " WHERE id = :run AND epoch = :mine AND status = 'running' "
    "AND (CAST(:after AS text) IS NULL OR EXISTS (SELECT 1 FROM khotan_run_steps WHERE run_id = :run AND name = :after)) "
    "RETURNING cancel_requested), "
    "step AS (INSERT INTO khotan_run_steps (run_id, name, number, result, counts, attempts, started_at, ended_at) "
    "SELECT :run, :name, :number, :result, :counts, :attempts, :started_at, :ended_at FROM run) "
    "SELECT cancel_requested, set_config('synchronous_commit', :commit, true) FROM run"
).bindparams(bindparam("result", type_=RUN_STEPS.c.result.type), bindparam("counts", type_=RUN_STEPS.c.counts.type))
"""Update and insert in one statement, for PostgreSQL: each page is a step, and a round trip takes a tenth of its time."""


class RunStore(RunReader):
    """Reads and writes runs."""

    # -- the life of a run -------------------------------------------------------------------------------------------

    async def create(self, session: AsyncSession, run_id: str, values: Mapping[str, Any]) -> bool:
        """Store a pending run. Returns False if a run with that id exists."""
        now = utc_now()
        row = {"id": run_id, "status": "pending", "epoch": 0, "cancel_requested": False, "created_at": now}
        row |= dict.fromkeys(COUNTERS, 0) | {"updated_at": now} | dict(values)
        statement = self.database.insert(RUNS).values(row).on_conflict_do_nothing().returning(RUNS.c.id)
        return (await session.execute(statement)).scalar() is not None

    async def begin(self, run_id: str, code: str = "") -> RunData | None:
        """Start or resume a run with a new epoch. Returns None if the run has ended or does not exist.

        code: fingerprint of the code that executes the run.
        """
        now = utc_now()
        statement = (
            update(RUNS)
            .where(RUNS.c.id == run_id, RUNS.c.status.in_(ACTIVE))
            .values(
                status="running",
                epoch=RUNS.c.epoch + 1,
                code=code or None,
                started_at=func.coalesce(RUNS.c.started_at, now),
                updated_at=now,
            )
            .returning(RUNS)
        )
        async with self.database.session() as session:
            row: RunData | None = (await session.execute(statement)).one_or_none()
            return row

    async def hand_back(self, session: AsyncSession, run_id: str, epoch: int) -> None:
        """Set a run of that epoch back to pending, in the caller's transaction. Its `updated_at` does not change."""
        mine = (RUNS.c.id == run_id) & (RUNS.c.epoch == epoch) & (RUNS.c.status == "running")
        await session.execute(update(RUNS).where(mine).values(status="pending"))

    async def check(self, run_id: str, epoch: int) -> None:
        """Raises RunCancelled or RunLost if no further step may begin."""
        statement = select(RUNS.c.status, RUNS.c.epoch, RUNS.c.cancel_requested).where(RUNS.c.id == run_id)
        async with self.database.session() as session:
            row = (await session.execute(statement)).one_or_none()
        if row is None or row.epoch != epoch or row.status != "running":
            raise RunLost
        if row.cancel_requested:
            raise RunCancelled

    async def add(self, session: AsyncSession, run_id: str, epoch: int, counts: Mapping[str, int]) -> bool:
        """Add to the counters in the caller's transaction. Returns whether cancellation was requested.

        Raises RunLost; then the transaction must not commit.
        """
        values = {**_NOTHING, **counts, "run": run_id, "mine": epoch, "now": utc_now()}
        stop: bool | None = (await session.execute(_ADD, values)).scalar()
        if stop is None:
            raise RunLost
        return stop

    async def record(
        self,
        session: AsyncSession,
        run_id: str,
        epoch: int,
        step: StepRecord,
        *,
        after: str | None = None,
        relaxed: bool = False,
    ) -> bool:
        """Store a finished step and its counts in the transaction of its writes. Returns whether cancellation was requested.

        relaxed: the commit does not wait for the disk (PostgreSQL's synchronous_commit = off). If the server crashes, the last
        steps are lost together with their writes and are repeated, so use it only for steps that only write rows. after: the
        previous step, which must be stored. Raises RunLost; StepsLost if the previous step is missing.
        """
        if self.database.sqlite:
            stop = await self.add(session, run_id, epoch, step.added)
            await session.execute(insert(RUN_STEPS), [{**step.row, "run_id": run_id}])
            return stop
        values = {**_NOTHING, **step.added, **step.row}
        values |= {"run": run_id, "mine": epoch, "now": utc_now(), "commit": "off" if relaxed else "on", "after": after}
        row = (await session.execute(_RECORD, values)).one_or_none()
        if row is None:
            raise await self._why_lost(session, run_id, epoch)
        return bool(row[0])

    async def _why_lost(self, session: AsyncSession, run_id: str, epoch: int) -> RunLost:
        ours = (RUNS.c.id == run_id) & (RUNS.c.epoch == epoch) & (RUNS.c.status == "running")
        is_ours = (await session.execute(select(RUNS.c.id).where(ours))).first() is not None
        return StepsLost() if is_ours else RunLost()

    async def reject(self, session: AsyncSession, run_id: str, rejects: Sequence[Reject]) -> None:
        """Store rejected records in the caller's transaction."""
        if rejects:
            rows = [{"run_id": run_id, "step": r.step, "reason": r.reason, "record": r.record} for r in rejects]
            await session.execute(insert(REJECTS), rows)

    async def finish(
        self, run_id: str, epoch: int, status: str, *, message: str | None = None, error: Any = None
    ) -> RunData | None:
        """End a run. `completed` becomes `partial` if a record failed. Returns None if the run has another epoch."""
        now = utc_now()
        ours = (RUNS.c.id == run_id) & (RUNS.c.epoch == epoch) & (RUNS.c.status == "running")
        async with self.database.writing() as session:
            failed = (await session.execute(select(RUNS.c.failed).where(ours))).scalar()
            if failed is None:
                return None
            if status == "completed" and failed:
                status = "partial"
            values = {"status": status, "message": message, "error": error, "ended_at": now, "updated_at": now}
            changed = update(RUNS).where(ours).values(**values).returning(RUNS)
            row: RunData | None = (await session.execute(changed)).one_or_none()
            if status in ("completed", "partial"):  # after other statuses, a retry needs them
                await session.execute(delete(SEEN_KEYS).where(SEEN_KEYS.c.run_id == run_id))
            return row

    async def end(self, run_id: str, seen: datetime, status: str, error: Any = None) -> RunData | None:
        """End a run from outside its execution. Returns None if it was updated since `seen` (its updated_at)."""
        now = utc_now()
        statement = (
            update(RUNS)
            .where(RUNS.c.id == run_id, RUNS.c.status.in_(ACTIVE), RUNS.c.updated_at == seen)
            .values(status=status, error=error, ended_at=now, updated_at=now, epoch=RUNS.c.epoch + 1)
            .returning(RUNS)
        )
        async with self.database.session() as session:
            row: RunData | None = (await session.execute(statement)).one_or_none()
            return row

    async def cancel(self, run_id: str) -> tuple[str | None, RunData | None]:
        """Cancel a pending run at once, or request a running one to stop before its next step.

        Returns the new status, and the run's row if this call ended it.
        """
        now = utc_now()
        waiting = (
            update(RUNS)
            .where(RUNS.c.id == run_id, RUNS.c.status == "pending")
            .values(status="cancelled", cancel_requested=True, ended_at=now, updated_at=now)
            .returning(RUNS)
        )
        running = (
            update(RUNS)
            .where(RUNS.c.id == run_id, RUNS.c.status == "running")
            .values(cancel_requested=True, updated_at=now)
        )
        async with self.database.writing() as session:
            ended: RunData | None = (await session.execute(waiting)).one_or_none()
            await session.execute(running)
            status: str | None = (await session.execute(select(RUNS.c.status).where(RUNS.c.id == run_id))).scalar()
            return status, ended

    # -- output of a run ---------------------------------------------------------------------------------------------

    async def progress(self, run_id: str, epoch: int, progress: Mapping[str, Any]) -> None:
        statement = update(RUNS).where(RUNS.c.id == run_id, RUNS.c.epoch == epoch, RUNS.c.status == "running")
        async with self.database.session() as session:
            await session.execute(statement.values(progress=dict(progress), updated_at=utc_now()))

    async def log(self, run_id: str, level: str, message: str, at: datetime) -> None:
        async with self.database.session() as session:
            await session.execute(insert(RUN_UPDATES).values(run_id=run_id, at=at, level=level, message=message))

    # -- upkeep ------------------------------------------------------------------------------------------------------

    async def copy_steps(self, session: AsyncSession, source: str, target: str, below: int) -> dict[str, int]:
        """Copy the steps numbered below `below` to a new run, with their key sets and rejected records. Returns their counts."""
        mine = (RUN_STEPS.c.run_id == source) & (RUN_STEPS.c.number < below)
        rows = [{**row._mapping, "run_id": target} for row in await session.execute(select(RUN_STEPS).where(mine))]
        if rows:
            await session.execute(insert(RUN_STEPS), rows)
        names = select(RUN_STEPS.c.name).where(mine)
        for table, step in ((SEEN_KEYS, SEEN_KEYS.c.noted_by), (REJECTS, REJECTS.c.step)):
            copied = [c for c in table.c if c.name not in ("id", "run_id")]
            taken = select(literal(target), *copied).where(table.c.run_id == source, step.in_(names))
            if table is REJECTS:
                taken = taken.order_by(REJECTS.c.id)
            await session.execute(insert(table).from_select(["run_id", *[c.name for c in copied]], taken))
        counts: Counter[str] = Counter()
        for row in rows:
            counts.update(row["counts"] or {})
        return dict(counts)

    async def start_at(self, session: AsyncSession, run_id: str, counts: Mapping[str, int]) -> None:
        """Set the counters of a run that begins with copied steps."""
        if counts:
            await session.execute(update(RUNS).where(RUNS.c.id == run_id).values(**counts))

    async def sweep(self, before: datetime, limit: int = 1000) -> list[str]:
        """Delete runs that ended before `before`, with all their data. Returns their ids."""
        old = select(RUNS.c.id).where(RUNS.c.status.in_(ENDED), RUNS.c.ended_at < before).limit(limit)
        async with self.database.writing() as session:
            gone = list((await session.execute(old)).scalars())
            if gone:
                await session.execute(delete(RUNS).where(RUNS.c.id.in_(gone)))
            return gone
