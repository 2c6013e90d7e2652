"""Locks and slots that processes sharing a database hold: rows with an owner and an end.

Ends are wall-clock times; hosts that share a database are expected to agree on the time to within a few seconds. A
holder renews its row while it works, so that only a dead one's runs out.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import delete, update
from sqlalchemy.dialects import postgresql, sqlite

from khotan_cli.runtime.store.database import Database
from khotan_cli.runtime.store.tables import LeaseRow

LEASE_SECONDS = 30.0
_POLL_SECONDS = (0.01, 0.05)


@asynccontextmanager
async def lease(database: Database, names: Sequence[str], *, seconds: float = LEASE_SECONDS) -> AsyncIterator[str]:
    """Hold one of the named rows; waits until one is free. Yields the name that is held."""
    owner = uuid.uuid4().hex
    name = await _acquire(database, names, owner, seconds)
    renewing = asyncio.create_task(_renew(database, name, owner, seconds))
    try:
        yield name
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        # A cancelled caller must still let go.
        await asyncio.shield(_release(database, name, owner))


async def _acquire(database: Database, names: Sequence[str], owner: str, seconds: float) -> str:
    low, high = _POLL_SECONDS
    while True:
        for name in random.sample(names, len(names)):
            if await _take(database, name, owner, seconds):
                return name
        await asyncio.sleep(random.uniform(low, high))
        low, high = min(low * 1.5, 0.1), min(high * 1.5, 0.25)


async def _take(database: Database, name: str, owner: str, seconds: float) -> bool:
    now = time.time()
    values = {"name": name, "owner": owner, "expires_at": now + seconds}
    insert = (sqlite if database.sqlite else postgresql).insert(LeaseRow).values(**values)
    statement = insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"owner": owner, "expires_at": now + seconds},
        where=LeaseRow.__table__.c.expires_at < now,  # type: ignore[attr-defined]
    ).returning(LeaseRow.__table__.c.owner)  # type: ignore[attr-defined]
    async with database.session() as session:
        return (await session.execute(statement)).scalar() == owner


async def _renew(database: Database, name: str, owner: str, seconds: float) -> None:
    table = LeaseRow.__table__  # type: ignore[attr-defined]
    while True:
        await asyncio.sleep(seconds / 3)
        async with database.session() as session:
            ours = (table.c.name == name) & (table.c.owner == owner)
            await session.execute(update(table).where(ours).values(expires_at=time.time() + seconds))


async def _release(database: Database, name: str, owner: str) -> None:
    table = LeaseRow.__table__  # type: ignore[attr-defined]
    async with database.session() as session:
        await session.execute(delete(table).where((table.c.name == name) & (table.c.owner == owner)))
