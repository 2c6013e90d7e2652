"""Locks and slots shared by the processes of a database: rows with an owner and an expiry (leases).

A holder renews its row while it works, so only the lease of a dead holder expires. Waiting processes poll at random
intervals: the order is not strict, and no process is always last. A holder that was suspended for longer than the lease has
lost it without noticing at once, so the work under a lease must tolerate being done twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import delete, select, update

from khotan_cli.errors import StoreError
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import LEASES

LEASE_SECONDS = 15.0
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25

logger = logging.getLogger("khotan.store")


@asynccontextmanager
async def lease(database: Database, names: Sequence[str], *, seconds: float = LEASE_SECONDS) -> AsyncIterator[str]:
    """Acquire one of the named leases, waiting until one is free. Yields its name.

    seconds: how long others wait after a holder died. Raises StoreError if the database fails while waiting.
    """
    owner = uuid.uuid4().hex
    try:
        name = await _acquire(database, names, owner, seconds)
    except asyncio.CancelledError:
        # The row may have been acquired just before the cancellation.
        await _uninterrupted(_release(database, owner))
        raise
    renewing = asyncio.create_task(_renew(database, name, owner, seconds))
    try:
        yield name
    finally:
        renewing.cancel()
        await _uninterrupted(_release(database, owner))


async def _acquire(database: Database, names: Sequence[str], owner: str, seconds: float) -> str:
    name = random.choice(names)
    if await _take(database, name, owner, seconds):
        return name
    pause = _FIRST_PAUSE
    while True:
        # A read needs no write lock.
        free = await _free(database, names)
        if free:
            name = random.choice(free)
            if await _take(database, name, owner, seconds):
                return name
        await asyncio.sleep(random.uniform(pause / 2, pause))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


async def _free(database: Database, names: Sequence[str]) -> list[str]:
    statement = select(LEASES.c.name).where(LEASES.c.name.in_(names), LEASES.c.expires_at >= database.now())
    async with database.session() as session:
        busy = set((await session.execute(statement)).scalars())
    return [name for name in names if name not in busy]


async def _take(database: Database, name: str, owner: str, seconds: float) -> bool:
    until = database.now() + seconds
    statement = (
        database.insert(LEASES)
        .values(name=name, owner=owner, expires_at=until)
        .on_conflict_do_update(
            index_elements=["name"],
            set_={"owner": owner, "expires_at": until},
            where=LEASES.c.expires_at < database.now(),
        )
        .returning(LEASES.c.owner)
    )
    async with database.session() as session:
        taken_by: str | None = (await session.execute(statement)).scalar()
    return taken_by == owner


async def _renew(database: Database, name: str, owner: str, seconds: float) -> None:
    ours = (LEASES.c.name == name) & (LEASES.c.owner == owner)
    statement = update(LEASES).where(ours).returning(LEASES.c.name)
    while True:
        await asyncio.sleep(seconds / 3)
        try:
            async with database.session() as session:
                done = await session.execute(statement.values(expires_at=database.now() + seconds))
                kept = done.scalar() is not None
        except StoreError as exc:
            logger.warning("The lease %s could not be renewed; retrying: %s", name, exc.message)
            continue
        if not kept:
            logger.warning("The lease %s expired while it was held; another process may hold it now", name)
            return


async def _release(database: Database, owner: str) -> None:
    try:
        async with database.session() as session:
            await session.execute(delete(LEASES).where(LEASES.c.owner == owner))
    except StoreError as exc:
        # The work is done; the lease will expire.
        logger.warning("A lease could not be released and will expire: %s", exc.message)


async def _uninterrupted(work: Coroutine[None, None, None]) -> None:
    """Finish the work even if the caller is cancelled meanwhile, then raise the cancellation."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled
    task.result()
