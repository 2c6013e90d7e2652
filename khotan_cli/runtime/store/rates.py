"""Rate buckets in the database, shared by every process that uses it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite

from khotan_cli.runtime.plugs.rate import ProcessRateStore
from khotan_cli.runtime.store.database import Database
from khotan_cli.runtime.store.leases import lease
from khotan_cli.runtime.store.tables import RateRow

_HELD_TTL = 1.0
"""Seconds for which the answer to "is this account held?" is used again, so that a plug without a rate limit does
not ask the database for each request."""


class DatabaseRateStore:
    """RateStore over a table: one reservation is one statement. Times are wall-clock seconds since the epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._local = ProcessRateStore()
        self._held: dict[str, tuple[float, float]] = {}

    async def reserve(self, key: str, interval: float, burst: int) -> float:
        now = time.time()
        table = RateRow.__table__  # type: ignore[attr-defined]
        insert = (sqlite if self._database.sqlite else postgresql).insert(table)
        largest = func.max if self._database.sqlite else func.greatest
        statement = (
            insert.values(key=key, arrival_at=now + interval, held_until=0.0)
            .on_conflict_do_update(
                index_elements=["key"],
                set_={"arrival_at": largest(table.c.arrival_at, table.c.held_until, now) + interval},
            )
            .returning(table.c.arrival_at, table.c.held_until)
        )
        async with self._database.session() as session:
            arrival, held = (await session.execute(statement)).one()
        start = max(now, held)
        wait: float = max(0.0, arrival - interval - (burst - 1) * interval - start) + (start - now)
        return wait

    async def hold(self, key: str, seconds: float) -> None:
        until = time.time() + seconds
        table = RateRow.__table__  # type: ignore[attr-defined]
        insert = (sqlite if self._database.sqlite else postgresql).insert(table)
        largest = func.max if self._database.sqlite else func.greatest
        statement = insert.values(key=key, arrival_at=0.0, held_until=until).on_conflict_do_update(
            index_elements=["key"], set_={"held_until": largest(table.c.held_until, until)}
        )
        async with self._database.session() as session:
            await session.execute(statement)
        self._held[key] = (time.time() + _HELD_TTL, until)

    async def held(self, key: str) -> float:
        now = time.time()
        asked_until, until = self._held.get(key, (0.0, 0.0))
        if now >= asked_until:
            table = RateRow.__table__  # type: ignore[attr-defined]
            async with self._database.session() as session:
                found = await session.execute(select(table.c.held_until).where(table.c.key == key))
                until = found.scalar() or 0.0
            self._held[key] = (now + _HELD_TTL, until)
        return max(0.0, until - now)

    def slot(self, key: str, limit: int) -> AbstractAsyncContextManager[None]:
        return self._slot(key, limit)

    @asynccontextmanager
    async def _slot(self, key: str, limit: int) -> AsyncIterator[None]:
        # In line within the process first: only as many ask the database as could be let through.
        async with self._local.slot(key, limit), lease(self._database, [f"slot:{key}:{n}" for n in range(limit)]):
            yield
