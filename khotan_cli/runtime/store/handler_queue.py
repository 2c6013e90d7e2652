"""The queue of handler runs: claims the next runs, postpones failed runs and releases runs of dead workers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Row, TextClause, bindparam, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import RUNS, WORKERS
from khotan_cli.runtime.database.types import UtcDateTime, utc_now
from khotan_cli.runtime.database.webhook_tables import HANDLERS
from khotan_cli.runtime.store.runs import RunData

_TOGETHER = 100
"""Maximum number of handlers in one statement. SQLite combines at most 500 SELECTs."""
ORDERED_LOCK = 0x6B686F7471
"""PostgreSQL advisory lock for claiming runs with order keys ("khotq" in ASCII)."""
# The states are literals: with parameters, the partial index is not used.
_WAITING = "status = 'pending' AND event_id IS NOT NULL"
_IN_TURN = (
    "(order_key IS NULL OR NOT EXISTS (SELECT 1 FROM khotan_runs AS other WHERE "
    "other.order_key = khotan_runs.order_key AND other.status = 'running') "
    "AND NOT EXISTS (SELECT 1 FROM khotan_runs AS other WHERE "
    "other.order_key = khotan_runs.order_key AND other.status = 'pending' AND (other.event_id, other.created_at, other.id) "
    "< (khotan_runs.event_id, khotan_runs.created_at, khotan_runs.id)))"
)
"""No other run with the same order key is running or comes first (an older event, or an older run of this event)."""

_OFF = text(
    "SELECT 0, id FROM khotan_wires WHERE NOT enabled UNION ALL "
    "SELECT 1, name FROM khotan_webhook_handlers WHERE NOT enabled UNION ALL "
    "SELECT 2, name FROM khotan_plugs WHERE NOT enabled"
)

Waiting = Row[Any]
"""A run that may start: id, flow, event_id, order_key; `lost`: number of starts that ended in neither success nor failure."""
Choose = Callable[[Sequence[Waiting]], Collection[str]]


class HandlerQueue:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def claim(
        self, worker: str, handlers: Sequence[str], limit: int, choose: Choose | None = None
    ) -> Sequence[RunData]:
        """Start waiting runs of these handlers and return their updated rows.

        choose: selects from the oldest `limit` runs of each handler; default: the oldest events. Of runs with the same order
        key, only the run of the oldest event may start, and only if none of them is running. Two workers never get the same
        run.
        """
        now = utc_now()
        async with self.database.session() as session:
            waiting = await self._waiting(session, handlers, limit, now)
            chosen = choose(waiting) if choose else [row.id for row in waiting[:limit]]
            if not chosen:
                return []
            if not self.database.sqlite:
                if any(row.order_key for row in waiting if row.id in chosen):
                    # Another worker may have started a run of the same key: with the lock, its commit becomes visible.
                    await session.execute(select(func.pg_advisory_xact_lock(ORDERED_LOCK)))
                return await self._start(session, worker, chosen, now)
        async with self.database.writing() as session:  # separate, so that writers do not wait for the query above
            return await self._start(session, worker, chosen, now)

    async def _start(
        self, session: AsyncSession, worker: str, chosen: Collection[str], now: datetime
    ) -> Sequence[RunData]:
        statement = (
            update(RUNS)
            .where(RUNS.c.id.in_(chosen), RUNS.c.status == "pending", text(_IN_TURN))
            .values(
                status="running",
                epoch=RUNS.c.epoch + 1,
                worker=worker,
                code=select(WORKERS.c.code).where(WORKERS.c.id == worker).scalar_subquery(),
                started_at=func.coalesce(RUNS.c.started_at, now),
                updated_at=now,
            )
            .returning(RUNS)
        )
        rows: Sequence[RunData] = (await session.execute(statement)).all()
        return rows

    async def _waiting(
        self, session: AsyncSession, handlers: Sequence[str], limit: int, now: datetime
    ) -> Sequence[Waiting]:
        found = list[Waiting]()
        for start in range(0, len(handlers), _TOGETHER):
            names = handlers[start : start + _TOGETHER]
            values = {"now": now, "most": limit, **{f"name{number}": name for number, name in enumerate(names)}}
            found += (await session.execute(_look(len(names), self.database.sqlite), values)).all()
        return sorted(found, key=lambda row: row.event_id)

    async def postpone(self, run_id: str, epoch: int, failures: int, error: Any, until: datetime) -> None:
        """Put a failed run back into the queue until its next attempt."""
        ours = (RUNS.c.id == run_id) & (RUNS.c.epoch == epoch) & (RUNS.c.status == "running")
        values = {"status": "pending", "failures": failures, "error": error, "next_at": until, "updated_at": utc_now()}
        async with self.database.session() as session:
            await session.execute(update(RUNS).where(ours).values(values))

    async def release(self, worker: str | None, *, but: Collection[str] = ()) -> int:
        """Put the running runs of a worker (None: of all workers) back into the queue. Returns their number.

        but: ids of runs that are still running.
        """
        theirs = (RUNS.c.event_id.is_not(None)) & (RUNS.c.status == "running")
        if worker is not None:
            theirs &= RUNS.c.worker == worker
        if but:
            theirs &= RUNS.c.id.not_in(list(but))
        values = {"status": "pending", "next_at": None, "worker": None, "updated_at": utc_now()}
        async with self.database.writing() as session:
            statement = update(RUNS).where(theirs).values(values).returning(RUNS.c.id)
            return len((await session.execute(statement)).all())

    async def end_unknown(self, handlers: Collection[str], before: datetime) -> list[str]:
        """Fail runs that have waited since before `before` for a handler that is neither known nor disabled.

        Returns the names of those handlers.
        """
        disabled = select(HANDLERS.c.name).where(HANDLERS.c.enabled.is_(False))
        theirs = (text(_WAITING), RUNS.c.flow.not_in(list(handlers)), RUNS.c.flow.not_in(disabled))
        async with self.database.writing() as session:
            asked = select(RUNS.c.flow).where(*theirs, RUNS.c.updated_at < before).distinct()
            names = list((await session.execute(asked)).scalars())
            for name in names:
                error = {
                    "error": "unknown_handler",
                    "message": f"This app no longer has the handler {name!r}",
                    "hint": "The handler was renamed or removed while the event waited. Replay the event with another handler.",
                }
                now = utc_now()
                ended = {"status": "failed", "error": error, "ended_at": now, "updated_at": now}
                gone = update(RUNS).where(text(_WAITING), RUNS.c.flow == name, RUNS.c.updated_at < before)
                await session.execute(gone.values(ended))
            return names

    async def switched_off(self) -> tuple[set[str], set[str]]:
        """Return the ids of disabled wires and the names of disabled handlers."""
        wires, handlers, _ = await self.all_off()
        return wires, handlers

    async def all_off(self) -> tuple[set[str], set[str], set[str]]:
        """Return the ids of disabled wires, and the names of disabled handlers and disabled plugs."""
        found: tuple[set[str], set[str], set[str]] = (set(), set(), set())
        async with self.database.session() as session:
            for number, name in await session.execute(_OFF):
                found[number].add(name)
        return found


@lru_cache(maxsize=256)
def _look(handlers: int, sqlite: bool) -> TextClause:
    """Return the query for the oldest runs that may start, per handler. Cached, because building it takes longer than running."""
    lock = "" if sqlite else " FOR UPDATE SKIP LOCKED"
    looks = (
        "SELECT * FROM (SELECT id, flow, event_id, order_key, epoch - failures AS lost FROM khotan_runs "  # noqa: S608
        f"WHERE flow = :name{number} AND {_WAITING} AND (next_at IS NULL OR next_at <= :now) AND {_IN_TURN} "
        f"ORDER BY event_id LIMIT :most{lock}) AS look{number}"
        for number in range(handlers)
    )
    return text(" UNION ALL ".join(looks)).bindparams(bindparam("now", type_=UtcDateTime))
