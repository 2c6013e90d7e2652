"""Which event is which: ids that are free again, and records of which nobody could say yet whose they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Text, cast, exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.webhook_tables import EVENTS
from khotan_cli.runtime.store.incoming import Incoming


def undecided_tenant(body: bytes) -> str:
    """The tenant of a record of which nobody could say yet whose it is: another body is another record until then."""
    return f"?sha256:{hashlib.sha256(body).hexdigest()}"


async def make_room(session: AsyncSession, events: Sequence[Incoming], now: datetime) -> None:
    """Free the ids that are taken for no longer than a window, and give a tenant's record, which came while nobody could
    say whose it was, its identity.

    The row lock decides between two processes: the second finds nothing to update, and then meets the first one's row.
    """
    for event in sorted(events, key=lambda one: one.key):
        same = (EVENTS.c.wire == event.wire) & (EVENTS.c.remote_id == event.remote_id)
        if event.window is not None and event.window > 0:
            over = EVENTS.c.received_at < now - timedelta(seconds=event.window)
            freed = EVENTS.c.remote_id + "~" + cast(EVENTS.c.id, Text)
            await session.execute(
                update(EVENTS).where(same, EVENTS.c.tenant == event.tenant, over).values(remote_id=freed)
            )
        if event.tenant:
            other = EVENTS.alias()
            taken = exists().where(
                other.c.wire == event.wire, other.c.tenant == event.tenant, other.c.remote_id == event.remote_id
            )
            mine = (
                EVENTS.c.tenant.in_(["", undecided_tenant(event.body)])
                & (EVENTS.c.body == event.body)
                & EVENTS.c.organisation.is_(None)
            )
            await session.execute(update(EVENTS).where(same, mine, ~taken).values(tenant=event.tenant))


async def twin_of(session: AsyncSession, event: Row[Any], organisation: str) -> int | None:
    """The event that this organisation sent with the same key, if there is one."""
    same = (EVENTS.c.wire == event.wire) & (EVENTS.c.remote_id == event.remote_id)
    asked = select(EVENTS.c.id).where(same, EVENTS.c.tenant == organisation, EVENTS.c.id != event.id)
    found: int | None = (await session.execute(asked)).scalar_one_or_none()
    return found
