"""Whose an ingested record is, and why one waits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.webhook_tables import EVENTS


@dataclass(frozen=True)
class Settled:
    """Whose an ingested record is now. `twin`: the event with the same key that this organisation has already sent; `altered`:
    whether that one has another body."""

    organisation: str | None
    twin: int | None = None
    altered: bool = False


async def set_parked(session: AsyncSession, event_id: int, reason: str | None, organisation: str | None) -> Settled:
    """Say why an ingested record waits, or (None) whose it is, unless that was said meanwhile.

    A record whose key the organisation has used already is noted as a twin: it is that organisation's, and takes nobody's
    place, so that the same key stays free for others.
    """
    columns = (EVENTS.c.organisation, EVENTS.c.wire, EVENTS.c.tenant, EVENTS.c.remote_id, EVENTS.c.body)
    asked = select(*columns).where(EVENTS.c.id == event_id)
    row = (await session.execute(asked)).one_or_none()
    if row is None:
        return Settled(None)
    if row.organisation is not None and row.organisation != organisation:
        return Settled(row.organisation)
    unsaid = or_(EVENTS.c.organisation.is_(None), EVENTS.c.organisation == organisation)
    mine = update(EVENTS).where(EVENTS.c.id == event_id, unsaid)
    values: dict[str, str | None] = {"parked": reason, "organisation": organisation}
    if organisation is not None and row.tenant != organisation:
        theirs = select(EVENTS.c.id, EVENTS.c.body).where(
            EVENTS.c.wire == row.wire, EVENTS.c.tenant == organisation, EVENTS.c.remote_id == row.remote_id
        )
        twin = (await session.execute(theirs)).one_or_none()
        if twin is not None:
            await session.execute(mine.values(**values, tenant=f"{organisation}~{event_id}"))
            return Settled(organisation, twin.id, altered=twin.body != row.body)
        values["tenant"] = organisation
    await session.execute(mine.values(values))
    return Settled((await session.execute(asked)).one().organisation)
