"""Keys that a pass over a source has met, and the rows whose key it has not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import orjson
from sqlalchemy import and_, delete, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.store.columns import named_columns, table_of
from khotan_cli.runtime.store.tables import SEEN_KEYS

_AT_A_TIME = 2000
_DELETED_AT_A_TIME = 200


class NothingMet(Exception):
    """Keys were noted, and no row of the table has one of them."""


class SeenKeys:
    """The keys of one run's step. Keys are compared as texts of Python values, the same on both databases."""

    def __init__(self, run_id: str, step: str, *, sqlite: bool) -> None:
        self.run_id, self.step, self.sqlite = run_id, step, sqlite

    async def add(self, session: AsyncSession, keys: Sequence[tuple[Any, ...]], noted_by: str = "") -> None:
        """Note keys, in the transaction of the rows they belong to. noted_by: the step that does."""
        rows = "json_each(:keys)" if self.sqlite else "json_array_elements_text(CAST(:keys AS json))"
        # "WHERE true" tells SQLite that ON CONFLICT is not the ON of a join (sqlite.org/lang_upsert.html).
        statement = text(
            "INSERT INTO khotan_seen_keys (run_id, step, key, noted_by) "  # noqa: S608 - our own names
            f"SELECT :run_id, :step, value, :noted_by FROM {rows} WHERE true ON CONFLICT DO NOTHING"
        )
        payload = orjson.dumps([key_text(key) for key in keys]).decode()
        values = {"keys": payload, "run_id": self.run_id, "step": self.step, "noted_by": noted_by}
        await session.execute(statement, values)

    async def known(self, session: AsyncSession, keys: Sequence[tuple[Any, ...]]) -> set[str]:
        """Those of the keys that were noted, as texts."""
        texts = [key_text(key) for key in keys]
        found: set[str] = set()
        for start in range(0, len(texts), _AT_A_TIME):
            part = texts[start : start + _AT_A_TIME]
            mine = (SEEN_KEYS.c.run_id == self.run_id) & (SEEN_KEYS.c.step == self.step)
            statement = select(SEEN_KEYS.c.key).where(mine, SEEN_KEYS.c.key.in_(part))
            found |= set((await session.execute(statement)).scalars())
        return found

    async def all(self, session: AsyncSession) -> list[str]:
        """All that were noted, as texts; for steps that note few."""
        mine = (SEEN_KEYS.c.run_id == self.run_id) & (SEEN_KEYS.c.step == self.step)
        return list((await session.execute(select(SEEN_KEYS.c.key).where(mine))).scalars())

    async def delete_missing(self, session: AsyncSession, model: Any, key: Sequence[str], where: Any = None) -> int:
        """Delete the rows (of the condition `where`, if given) whose key was not noted; how many they were.

        A row without a key, where the column may be null, never came from a source, and stays. Raises NothingMet where keys
        were noted and rows would be deleted, but no row has a noted key: then keys do not compare with rows, and what is
        missing is not known. The transaction must not commit then.
        """
        columns = [named_columns(model)[name] for name in key]
        statement = select(*columns).where(*[column.is_not(None) for column in columns])
        if where is not None:
            statement = statement.where(where)
        order, last, deleted, met = [*columns], None, 0, False
        while True:
            page = statement if last is None else statement.where(tuple_(*columns) > tuple_(*last))
            rows = [tuple(row) for row in (await session.execute(page.order_by(*order).limit(_AT_A_TIME))).all()]
            if not rows:
                if deleted and not met and await self.any(session):
                    raise NothingMet
                return deleted
            last = rows[-1]
            known = await self.known(session, rows)
            met = met or bool(known)
            gone = [row for row in rows if key_text(row) not in known]
            for start in range(0, len(gone), _DELETED_AT_A_TIME):
                part = gone[start : start + _DELETED_AT_A_TIME]
                same = [and_(*[c == v for c, v in zip(columns, row, strict=True)]) for row in part]
                await session.execute(delete(table_of(model)).where(or_(*same)))
            deleted += len(gone)

    async def any(self, session: AsyncSession) -> bool:
        """Whether a key was noted."""
        mine = (SEEN_KEYS.c.run_id == self.run_id) & (SEEN_KEYS.c.step == self.step)
        return (await session.execute(select(SEEN_KEYS.c.key).where(mine).limit(1))).first() is not None

    async def clear(self, session: AsyncSession) -> None:
        mine = (SEEN_KEYS.c.run_id == self.run_id) & (SEEN_KEYS.c.step == self.step)
        await session.execute(delete(SEEN_KEYS).where(mine))


def key_text(key: Sequence[Any]) -> str:
    """A key as text: equal values of a column's type have equal texts."""
    if len(key) == 1 and isinstance(key[0], (str, int)) and not isinstance(key[0], (bool, Enum)):
        return str(key[0])
    return orjson.dumps([_plain(part) for part in key], default=str).decode()


def _plain(part: Any) -> Any:
    if isinstance(part, Enum):
        return part.value
    if isinstance(part, datetime):
        return part.replace(tzinfo=UTC) if part.tzinfo is None else part.astimezone(UTC)
    if isinstance(part, Decimal):
        return format(part.normalize(), "f")
    return part
