"""The identity of events: expired duplicate windows, and records whose organisation is not yet known."""

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
    """Return the tenant of a record with an unknown organisation. Until it is known, another body is another record."""
    return f"?sha256:{hashlib.sha256(body).hexdigest()}"


async def make_room(session: AsyncSession, events: Sequence[Incoming], now: datetime) -> None:
    """Free ids whose duplicate window has expired, and assign undecided records to the tenant that now sends them again.

    Of two concurrent processes, the row lock lets one update; the other finds the updated row.
    """
    for event in sorted(events, key=lambda incoming: incoming.key):
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
            undecided = (
                EVENTS.c.tenant.in_(["", undecided_tenant(event.body)])
                & (EVENTS.c.body == event.body)
                & EVENTS.c.organisation.is_(None)
            )
            await session.execute(update(EVENTS).where(same, undecided, ~taken).values(tenant=event.tenant))


async def twin_of(session: AsyncSession, event: Row[Any], organisation: str) -> int | None:
    """Return the id of another event that this organisation sent with the same key, or None."""
    same = (EVENTS.c.wire == event.wire) & (EVENTS.c.remote_id == event.remote_id)
    query = select(EVENTS.c.id).where(same, EVENTS.c.tenant == organisation, EVENTS.c.id != event.id)
    twin: int | None = (await session.execute(query)).scalar_one_or_none()
    return twin
