"""Whose an ingested record is, and why one waits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.store.tables_webhooks import EVENTS


@dataclass(frozen=True)
class Settled:
    """Whose an ingested record is now. `twin`: the event with the same key that this organisation has already sent; `altered`:
    whether that one has another body."""

    organisation: str | None
    twin: int | None = None
    altered: bool = False


async def set_parked(session: AsyncSession, event_id: int, reason: str | None, organisation: str | None) -> Settled:
    """Say why an ingested record waits, or (None) whose it is, unless that was said meanwhile."""
    undecided = (EVENTS.c.id == event_id) & EVENTS.c.organisation.is_(None)
    asked = select(EVENTS.c.organisation, EVENTS.c.wire, EVENTS.c.tenant, EVENTS.c.remote_id, EVENTS.c.body).where(
        EVENTS.c.id == event_id
    )
    row = (await session.execute(asked)).one_or_none()
    if row is None:
        return Settled(None)
    if organisation is not None and row.organisation is None and row.tenant != organisation:
        theirs = select(EVENTS.c.id, EVENTS.c.body).where(
            EVENTS.c.wire == row.wire, EVENTS.c.tenant == organisation, EVENTS.c.remote_id == row.remote_id
        )
        twin = (await session.execute(theirs)).one_or_none()
        if twin is not None:
            return Settled(organisation, twin.id, altered=twin.body != row.body)
        await session.execute(update(EVENTS).where(undecided).values(tenant=organisation))
    await session.execute(update(EVENTS).where(undecided).values(parked=reason, organisation=organisation))
    return Settled((await session.execute(asked)).one().organisation)
