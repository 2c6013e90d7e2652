"""The queue of handlers' runs: who may run next, and what becomes of a run that failed or whose worker died."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, or_, select, update

from khotan_cli.runtime.store.base import utc_now
from khotan_cli.runtime.store.database import Database
from khotan_cli.runtime.store.runs import ACTIVE, RunData
from khotan_cli.runtime.store.tables import RUNS
from khotan_cli.runtime.store.tables_webhooks import HANDLERS, WIRES


class DeliveryStore:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def claim(self, worker: str, limit: int, paused: Collection[str] = ()) -> Sequence[RunData]:
        """Start up to `limit` waiting runs, the oldest events first, and return their rows as they are then.

        paused: handlers whose runs wait. Of runs with one order key only the one of the oldest event may start. Two workers
        never get the same run.
        """
        now, earlier = utc_now(), RUNS.alias("earlier")
        before = exists().where(
            earlier.c.order_key == RUNS.c.order_key,
            earlier.c.event_id < RUNS.c.event_id,
            earlier.c.status.in_(ACTIVE),
        )
        next_up = (
            select(RUNS.c.id)
            .where(
                RUNS.c.status == "pending",
                RUNS.c.event_id.is_not(None),
                or_(RUNS.c.next_at.is_(None), RUNS.c.next_at <= now),
                or_(RUNS.c.order_key.is_(None), ~before),
            )
            .order_by(RUNS.c.event_id)
            .limit(limit)
        )
        if paused:
            next_up = next_up.where(RUNS.c.flow.not_in(list(paused)))
        if not self.database.sqlite:
            next_up = next_up.with_for_update(skip_locked=True, of=RUNS)
        statement = (
            update(RUNS)
            .where(RUNS.c.id.in_(next_up), RUNS.c.status == "pending")
            .values(
                status="running",
                epoch=RUNS.c.epoch + 1,
                worker=worker,
                started_at=func.coalesce(RUNS.c.started_at, now),
                updated_at=now,
            )
            .returning(RUNS)
        )
        async with self.database.writing() as session:
            rows: Sequence[RunData] = (await session.execute(statement)).all()
            return rows

    async def postpone(self, run_id: str, epoch: int, failures: int, error: Any, until: datetime) -> None:
        """Let a run that failed wait for its next try."""
        ours = (RUNS.c.id == run_id) & (RUNS.c.epoch == epoch) & (RUNS.c.status == "running")
        values = {"status": "pending", "failures": failures, "error": error, "next_at": until, "updated_at": utc_now()}
        async with self.database.session() as session:
            await session.execute(update(RUNS).where(ours).values(values))

    async def release(self, worker: str | None, *, but: Collection[str] = ()) -> int:
        """Put the runs of a worker that is gone back into the queue, `but` those that it goes on with; None: of all workers.
        How many."""
        theirs = (RUNS.c.event_id.is_not(None)) & (RUNS.c.status == "running")
        if worker is not None:
            theirs &= RUNS.c.worker == worker
        if but:
            theirs &= RUNS.c.id.not_in(list(but))
        values = {"status": "pending", "next_at": None, "worker": None, "updated_at": utc_now()}
        async with self.database.writing() as session:
            statement = update(RUNS).where(theirs).values(values).returning(RUNS.c.id)
            return len((await session.execute(statement)).all())

    async def switched_off(self) -> tuple[set[str], set[str]]:
        """Ids of the disabled wires, and names of the disabled handlers."""
        async with self.database.session() as session:
            wires = await session.execute(select(WIRES.c.id).where(WIRES.c.enabled.is_(False)))
            handlers = await session.execute(select(HANDLERS.c.name).where(HANDLERS.c.enabled.is_(False)))
            return set(wires.scalars()), set(handlers.scalars())
