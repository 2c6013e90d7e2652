"""Refs that flows wrote: the records of a resource that were sent to a system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, null, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.tables import MAPPING_REFS, MAPPINGS


def _written(resource: str, plug: str) -> Any:
    """SQL condition: refs whose digests come from sent records."""
    return (
        (MAPPING_REFS.c.resource == resource)
        & (MAPPING_REFS.c.plug == plug)
        & (MAPPING_REFS.c.origin == "write")
        & MAPPING_REFS.c.fields.is_not(None)
    )


async def page(
    session: AsyncSession, resource: str, plug: str, limit: int, offset: int
) -> tuple[Sequence[Row[Any]], int]:
    """Return rows of key, ref and updated_at sorted by key, and the total number."""
    condition = _written(resource, plug)
    total = (await session.execute(select(func.count()).select_from(MAPPING_REFS).where(condition))).scalar() or 0
    statement = (
        select(MAPPINGS.c.key, MAPPING_REFS.c.ref, MAPPING_REFS.c.updated_at)
        .join(MAPPING_REFS, MAPPING_REFS.c.mapping_id == MAPPINGS.c.id)
        .where(condition)
        .order_by(MAPPINGS.c.key)
    )
    rows: Sequence[Any] = (await session.execute(statement.limit(limit).offset(offset))).all()
    return rows, total


async def forget_fields(session: AsyncSession, resource: str, plug: str, keys: Sequence[str] | None) -> int:
    """Delete the field state of these keys, or of all, but keep the ids. Returns the number of refs."""
    condition = _written(resource, plug)
    if keys is not None:
        mine = select(MAPPINGS.c.id).where(MAPPINGS.c.resource == resource, MAPPINGS.c.key.in_(list(keys)))
        condition &= MAPPING_REFS.c.mapping_id.in_(mine)
    statement = update(MAPPING_REFS).where(condition).values(fields=null()).returning(MAPPING_REFS.c.mapping_id)
    return len((await session.execute(statement)).all())
