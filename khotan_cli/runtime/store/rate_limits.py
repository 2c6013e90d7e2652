"""Rate limits in the database, shared by all processes that use it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy import ColumnElement, case, delete, func, or_, select, update

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.locks import LEASE_SECONDS, lease
from khotan_cli.runtime.database.tables import RATES
from khotan_cli.runtime.http.rate_limit import MAX_PAUSE_SECONDS, ProcessRateStore

_HELD_TTL = 1.0
"""Seconds for which the pause state of an account is cached, so that a plug without a rate limit does not query the
database for each request."""
_FORGET_SECONDS = 24 * 3600.0
"""Rows of buckets that were not used for this long are deleted."""


class DatabaseRateStore:
    """A RateStore in the table khotan_rates. A reservation is one statement. Keys contain no credentials.

    Times are those of `Database.now`. A slot that was reserved but not used (a cancelled call) stays reserved.
    """

    def __init__(self, database: Database, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._local = ProcessRateStore()
        self._held: dict[str, tuple[float, float, float]] = {}
        self._tidied = False

    async def reserve(self, key: str, interval: float, burst: int) -> float:
        """Reserve a slot. Returns the seconds to wait for it; see RateStore."""
        now = self._database.now()
        # A pause moves the bucket's clock, so that waiting calls resume evenly spaced, not all at once.
        held = self._database.smallest(RATES.c.held_until, now + MAX_PAUSE_SECONDS)
        # A pause stored by an older version may be decades long, with later slots behind it: limit it here.
        booked = case((RATES.c.held_until > now + MAX_PAUSE_SECONDS, now), else_=RATES.c.arrival_at)
        arrival = self._database.largest(booked, held, now) + interval
        statement = (
            self._database.insert(RATES)
            .values(key=key, arrival_at=now + interval, held_until=0.0)
            .on_conflict_do_update(index_elements=["key"], set_={"arrival_at": arrival, "held_until": held})
            .returning(RATES.c.arrival_at, RATES.c.held_until, now)
        )
        async with self._database.session() as session:
            arrives, held_until, at = (await session.execute(statement)).one()
        await self._tidy()
        start = max(at, min(held_until, at + MAX_PAUSE_SECONDS))
        return float(max(0.0, arrives - burst * interval - start) + (start - at))

    async def pause(self, key: str, seconds: float) -> None:
        now = self._database.now()
        seconds = min(seconds, MAX_PAUSE_SECONDS)
        until = self._database.largest(RATES.c.held_until, now + seconds)
        statement = (
            self._database.insert(RATES)
            .values(key=key, arrival_at=0.0, held_until=now + seconds)
            .on_conflict_do_update(index_elements=["key"], set_={"held_until": until})
            .returning(RATES.c.held_until - now)
        )
        async with self._database.session() as session:
            left = (await session.execute(statement)).scalar_one()
        self._remember(key, left, time.monotonic())

    async def longest_pause(self, plug: str) -> float:
        """Return the remaining seconds of the longest pause of a plug's accounts; see RateStore."""
        statement = select(func.max(RATES.c.held_until) - self._database.now()).where(_of(plug))
        async with self._database.session() as session:
            return max(0.0, (await session.execute(statement)).scalar() or 0.0)

    async def paused(self) -> dict[str, float]:
        """Return the remaining seconds of the longest pause by plug, for every paused plug."""
        left = func.max(RATES.c.held_until) - self._database.now()
        statement = select(RATES.c.key, left).where(RATES.c.held_until > self._database.now()).group_by(RATES.c.key)
        found: dict[str, float] = {}
        async with self._database.session() as session:
            for key, seconds in await session.execute(statement):
                plug = key.partition(":")[0]
                found[plug] = max(found.get(plug, 0.0), seconds)
        return found

    async def resume(self, plug: str) -> int:
        """End the pauses of a plug. Other processes notice within a second. See RateStore."""
        now = self._database.now()
        statement = update(RATES).where(_of(plug), RATES.c.held_until > now).values(held_until=0.0, arrival_at=0.0)
        async with self._database.session() as session:
            released = (await session.execute(statement.returning(RATES.c.key))).scalars().all()
        for key in released:
            self._held.pop(key, None)
        return len(released)

    async def paused_for(self, key: str) -> float:
        """Return the remaining seconds of the key's pause. A pause by another process is noticed within a second."""
        fresh_until, until, _ = self._held.get(key, (0.0, 0.0, 0.0))
        if time.monotonic() >= fresh_until:
            asked_at = time.monotonic()
            statement = select(RATES.c.held_until - self._database.now()).where(RATES.c.key == key)
            async with self._database.session() as session:
                left = (await session.execute(statement)).scalar() or 0.0
            until = self._remember(key, left, asked_at)
        return max(0.0, until - time.monotonic())

    def _remember(self, key: str, seconds: float, asked_at: float) -> float:
        now = time.monotonic()
        _, until, set_at = self._held.get(key, (0.0, 0.0, 0.0))
        # A query that started before this process set a pause must not shorten it; a later one may.
        until = max(until, now + seconds) if set_at > asked_at else now + min(seconds, MAX_PAUSE_SECONDS)
        self._held[key] = (now + _HELD_TTL, until, now)
        return until

    async def _tidy(self) -> None:
        if self._tidied:
            return
        self._tidied = True
        before = self._database.now() - _FORGET_SECONDS
        async with self._database.session() as session:
            await session.execute(delete(RATES).where(RATES.c.arrival_at < before, RATES.c.held_until < before))

    def slot(self, key: str, limit: int) -> AbstractAsyncContextManager[None]:
        """Acquire one of `limit` slots shared by all processes. Within this process, slots are given in order of arrival."""
        return self._slot(key, limit)

    @asynccontextmanager
    async def _slot(self, key: str, limit: int) -> AsyncIterator[None]:
        names = [f"slot:{key}:{number}" for number in range(limit)]
        # Queue within the process first, so that at most `limit` tasks poll the database.
        async with self._local.slot(key, limit), lease(self._database, names, seconds=self._lease_seconds):
            yield


def _of(plug: str) -> ColumnElement[bool]:
    """SQL condition for the rows of a plug's accounts. A key is the plug's name, or the name and a digest."""
    return or_(RATES.c.key == plug, RATES.c.key.startswith(f"{plug}:", autoescape=True))
