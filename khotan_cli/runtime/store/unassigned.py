"""Assigns ingested records to organisations, and parks unassigned records."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.webhook_tables import EVENTS


@dataclass(frozen=True)
class Assignment:
    """The organisation of an ingested record.

    `twin`: the event with the same key that the organisation sent before. `altered`: whether the twin has another body.
    """

    organisation: str | None
    twin: int | None = None
    altered: bool = False


async def set_parked(session: AsyncSession, event_id: int, reason: str | None, organisation: str | None) -> Assignment:
    """Park a record with a reason, or assign it to an organisation (reason None), unless it is already assigned.

    If the organisation has already used the record's key, the record is assigned under an identity of its own, so that the
    key stays free for other organisations.
    """
    columns = (EVENTS.c.organisation, EVENTS.c.wire, EVENTS.c.tenant, EVENTS.c.remote_id, EVENTS.c.body)
    query = select(*columns).where(EVENTS.c.id == event_id)
    row = (await session.execute(query)).one_or_none()
    if row is None:
        return Assignment(None)
    if row.organisation is not None and row.organisation != organisation:
        return Assignment(row.organisation)
    unassigned = or_(EVENTS.c.organisation.is_(None), EVENTS.c.organisation == organisation)
    assign = update(EVENTS).where(EVENTS.c.id == event_id, unassigned)
    values: dict[str, str | None] = {"parked": reason, "organisation": organisation}
    if organisation is not None and row.tenant != organisation:
        same_key = select(EVENTS.c.id, EVENTS.c.body).where(
            EVENTS.c.wire == row.wire, EVENTS.c.tenant == organisation, EVENTS.c.remote_id == row.remote_id
        )
        twin = (await session.execute(same_key)).one_or_none()
        if twin is not None:
            await session.execute(assign.values(**values, tenant=f"{organisation}~{event_id}"))
            return Assignment(organisation, twin.id, altered=twin.body != row.body)
        values["tenant"] = organisation
    await session.execute(assign.values(values))
    return Assignment((await session.execute(query)).one().organisation)
