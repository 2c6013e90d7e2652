"""Frees unique values of rows that swap them: no order of single updates is possible."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Integer, String, UniqueConstraint, and_, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.bulk.table_schema import key_readers, named_columns, table_of

_SHORTEST = 8


async def free_unique_values(
    session: AsyncSession, model: Any, key: Sequence[str], keys: Sequence[tuple[Any, ...]]
) -> bool:
    """Set temporary unique values in the unique columns (except the key) of the rows with these keys.

    The value is NULL, or random if the column is not nullable, until the rows are written. Returns False if a column allows
    neither, or if there is no such column.
    """
    columns = named_columns(model)
    own = {columns[name] for name in key}
    unique = [column for column in _unique_columns(model) if column not in own]
    if not unique or not all(column.nullable or _can_make_up(column) for column in unique):
        return False
    readers = key_readers(model, key)
    for parts in keys:
        same = [columns[name] == read(part) for name, read, part in zip(key, readers, parts, strict=True)]
        values = {column: None if column.nullable else _made_up(column) for column in unique}
        await session.execute(update(table_of(model)).where(and_(*same)).values(values))
    return True


def _unique_columns(model: Any) -> list[Column[Any]]:
    """One column of each constraint and index that keeps rows apart, save the primary key."""
    table = table_of(model)
    groups = [list(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)]
    groups += [list(index.columns) for index in table.indexes if index.unique]
    primary = set(table.primary_key.columns)
    free = [[column for column in group if column not in primary and not column.foreign_keys] for group in groups]
    return list(dict.fromkeys(group[0] for group in free if group))


def _can_make_up(column: Column[Any]) -> bool:
    if isinstance(column.type, String):
        length = getattr(column.type, "length", None)
        return length is None or length >= _SHORTEST
    return isinstance(column.type, Integer)


def _made_up(column: Column[Any]) -> Any:
    if isinstance(column.type, Integer):
        return -1 - secrets.randbelow(2**31 - 2)
    length = getattr(column.type, "length", None)
    return f"~{secrets.token_hex(16)}"[: length or None]
