"""Refs that flows wrote: which records of a resource a system is known to have, and what it has of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, null, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.tables import MAPPING_REFS, MAPPINGS


def _written(resource: str, plug: str) -> Any:
    """Refs whose digests come from what was sent."""
    return (
        (MAPPING_REFS.c.resource == resource)
        & (MAPPING_REFS.c.plug == plug)
        & (MAPPING_REFS.c.origin == "write")
        & MAPPING_REFS.c.fields.is_not(None)
    )


async def page(
    session: AsyncSession, resource: str, plug: str, limit: int, offset: int
) -> tuple[Sequence[Row[Any]], int]:
    """Rows of key, ref and updated_at in the order of keys, and how many there are in all."""
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
    """Forget what the system has of these keys, or of all, but not its ids; how many refs that were."""
    condition = _written(resource, plug)
    if keys is not None:
        mine = select(MAPPINGS.c.id).where(MAPPINGS.c.resource == resource, MAPPINGS.c.key.in_(list(keys)))
        condition &= MAPPING_REFS.c.mapping_id.in_(mine)
    statement = update(MAPPING_REFS).where(condition).values(fields=null()).returning(MAPPING_REFS.c.mapping_id)
    return len((await session.execute(statement)).all())
