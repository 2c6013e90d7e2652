"""Key sets: the keys that a pass over a source has processed, and the rows whose keys are missing.

The database decides whether keys are equal: a column may ignore case or trailing blanks, round numbers or truncate times. A
key is therefore stored as the database's text of the written row's value, and all comparisons run in SQL.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, delete, exists, func, literal, not_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.bulk.fitting import bound
from khotan_cli.runtime.bulk.row_plan import column_names, table_name
from khotan_cli.runtime.bulk.table_schema import field_of, named_columns, table_of
from khotan_cli.runtime.bulk.upsert import documents
from khotan_cli.runtime.bulk.upsert_postgres import driver_statement, record_set
from khotan_cli.runtime.database.tables import SEEN_KEYS

_KEYS_AT_A_TIME = 500
_TEXTS_AT_A_TIME = 2000
Key = tuple[Any, ...]


class NothingMet(Exception):
    """Keys are stored, but no row of the table has one of them."""


class TooManyMissing(Exception):
    """The number of missing rows exceeds the limit for one deletion."""

    def __init__(self, missing: int, rows: int) -> None:
        super().__init__(f"{missing} of {rows} rows")
        self.missing, self.rows = missing, rows


class StepTexts:
    """The distinct texts that one step of a run stores."""

    def __init__(self, run_id: str, step: str, *, sqlite: bool) -> None:
        self.run_id, self.step, self.sqlite = run_id, step, sqlite
        self._mine = (SEEN_KEYS.c.run_id == run_id) & (SEEN_KEYS.c.step == step)

    async def note(self, session: AsyncSession, texts: Sequence[str], noted_by: str = "") -> None:
        """Store texts in the caller's transaction. noted_by: the storing step, so that a retry can copy them."""
        rows = "json_each(?)" if self.sqlite else "json_array_elements_text(%s::json) AS value"
        mark = "?" if self.sqlite else "%s"
        # "WHERE true" tells SQLite that ON CONFLICT is not the ON of a join (sqlite.org/lang_upsert.html).
        statement = (
            "INSERT INTO khotan_seen_keys (run_id, step, key, noted_by) "  # noqa: S608 - our own names
            f"SELECT {mark}, {mark}, value, {mark} FROM {rows} WHERE true ON CONFLICT DO NOTHING"
        )
        connection = await session.connection()
        await connection.exec_driver_sql(statement, (self.run_id, self.step, noted_by, json.dumps(texts)))

    async def known(self, session: AsyncSession, texts: Sequence[str]) -> set[str]:
        """Return the texts that are stored."""
        known: set[str] = set()
        for start in range(0, len(texts), _TEXTS_AT_A_TIME):
            part = texts[start : start + _TEXTS_AT_A_TIME]
            statement = select(SEEN_KEYS.c.key).where(self._mine, SEEN_KEYS.c.key.in_(part))
            known |= set((await session.execute(statement)).scalars())
        return known

    async def all(self, session: AsyncSession) -> list[str]:
        """Return all texts. For small sets."""
        return list((await session.execute(select(SEEN_KEYS.c.key).where(self._mine))).scalars())

    async def any(self, session: AsyncSession) -> bool:
        """Whether any text is stored."""
        return (await session.execute(select(SEEN_KEYS.c.key).where(self._mine).limit(1))).first() is not None

    async def clear(self, session: AsyncSession) -> None:
        await session.execute(delete(SEEN_KEYS).where(self._mine))


class KeySet(StepTexts):
    """The keys of one run's step in one table. `model`: the table class; `key`: the names of its key's columns."""

    def __init__(self, run_id: str, step: str, model: Any, key: Sequence[str], *, sqlite: bool) -> None:
        super().__init__(run_id, step, sqlite=sqlite)
        self.table, columns = table_of(model), named_columns(model)
        self._columns = [columns[name] for name in key]
        self._fields = [field_of(name, columns[name], sqlite) for name in key]

    async def add(self, session: AsyncSession, keys: Sequence[Key], noted_by: str = "") -> None:
        """Store the keys of rows in the transaction that wrote the rows. noted_by: the storing step."""
        texts = sorted({text for _, text in await self._stored(session, keys)})
        await self.note(session, texts, noted_by)

    async def met(self, session: AsyncSession, keys: Sequence[Key]) -> set[int]:
        """Return the indexes of the keys whose row is already stored."""
        stored = await self._stored(session, keys)
        known = await self.known(session, [text for _, text in stored])
        return {place for place, text in stored if text in known}

    async def delete_missing(
        self, session: AsyncSession, where: Any = None, *, most: float | None = None, spared: int = 0
    ) -> int:
        """Delete the rows (matching `where`, if given) whose key is not stored. Returns the number of deleted rows.

        Rows without a key (null columns) never came from a source and are kept. most: maximum share of the rows to delete,
        unless there are at most `spared` rows. Raises TooManyMissing if the limit is exceeded; NothingMet if keys are stored
        but no row has one of them, because then keys and rows are not comparable. The transaction must not commit in these
        cases.
        """
        rows, missing = await self._counts(session, where)
        if not missing:
            return 0
        if missing == rows and await self.any(session):
            raise NothingMet
        if most is not None and missing > spared and missing > most * rows:
            raise TooManyMissing(missing, rows)
        statement = delete(self.table).where(*self._within(where), not_(self._noted()))
        deleted: int = (await session.execute(statement)).rowcount  # type: ignore[attr-defined]
        return deleted

    async def _counts(self, session: AsyncSession, where: Any) -> tuple[int, int]:
        """Return the number of rows, and the number of rows whose key is not stored."""
        within = self._within(where)
        statement = (
            select(func.count(), func.count().filter(not_(self._noted()))).select_from(self.table).where(*within)
        )
        row = (await session.execute(statement)).one()
        return int(row[0]), int(row[1])

    def _within(self, where: Any) -> list[Any]:
        there = [column.is_not(None) for column in self._columns]
        return there if where is None else [*there, where]

    def _noted(self) -> ColumnElement[bool]:
        return exists(select(SEEN_KEYS.c.key).where(self._mine, SEEN_KEYS.c.key == self._text()).correlate(self.table))

    def _text(self) -> ColumnElement[str]:
        """Return the SQL expression for a row's key as text."""
        if len(self._columns) == 1:
            return cast(self._columns[0], Text)
        parts = [cast(column, Text) for column in self._columns]
        return cast((func.json_array if self.sqlite else func.jsonb_build_array)(*parts), Text)

    def _text_sql(self, table: str) -> str:
        """Return the same expression as SQL text, for driver statements."""
        parts = [f"CAST({table}.{name} AS TEXT)" for name in column_names(self._fields)]
        if len(parts) == 1:
            return parts[0]
        return f"CAST({'json_array' if self.sqlite else 'jsonb_build_array'}({', '.join(parts)}) AS TEXT)"

    async def _stored(self, session: AsyncSession, keys: Sequence[Key]) -> list[tuple[int, str]]:
        """Return the index and the row's key text for each key that exists in the table."""
        if not keys:
            return []
        rows = [dict(zip([field.name for field in self._fields], key, strict=True)) for key in keys]
        binds = [bound(field, rows) for field in self._fields]
        connection = await session.connection()
        target = table_name(self.table)
        names = column_names(self._fields)
        if not self.sqlite:
            joined = " AND ".join(f"t.{name} = x.{name}" for name in names)
            source = f"(SELECT row_number() OVER () - 1 AS khotan_order, r.* FROM {record_set(target)} AS r)"  # noqa: S608 - quoted names
            statement = (
                f"SELECT x.khotan_order, {self._text_sql('t')} FROM {source} AS x JOIN {target} AS t ON {joined}"  # noqa: S608
            )
            payload = documents(self._fields, binds, keys)
            found: Any = await connection.exec_driver_sql(driver_statement(statement), (payload,))
            return [(int(place), text) for place, text in found.all()]
        ready = [tuple(v if bind is None else bind(v) for bind, v in zip(binds, key, strict=True)) for key in keys]
        compared = " AND ".join(f"{target}.{name} = x.column{number + 2}" for number, name in enumerate(names))
        stored: list[tuple[int, str]] = []
        for start in range(0, len(ready), _KEYS_AT_A_TIME):
            part = ready[start : start + _KEYS_AT_A_TIME]
            mark = f"({', '.join('?' * (len(names) + 1))})"
            statement = (
                f"SELECT x.column1, {self._text_sql(target)} FROM (VALUES {', '.join([mark] * len(part))}) AS x "  # noqa: S608
                f"CROSS JOIN {target} WHERE {compared}"
            )
            values = tuple(value for place, key in enumerate(part, start) for value in (place, *key))
            found = await connection.exec_driver_sql(statement, values)
            stored += [(int(place), text) for place, text in found.all()]
        return stored


class RememberedTexts(StepTexts):
    """StepTexts of a dry run, kept in memory because its transactions are rolled back."""

    def __init__(self, run_id: str, step: str, *, sqlite: bool) -> None:
        super().__init__(run_id, step, sqlite=sqlite)
        self._texts: set[str] = set()

    async def note(self, session: AsyncSession, texts: Sequence[str], noted_by: str = "") -> None:
        self._texts |= set(texts)

    async def known(self, session: AsyncSession, texts: Sequence[str]) -> set[str]:
        return self._texts & set(texts)

    async def all(self, session: AsyncSession) -> list[str]:
        return sorted(self._texts)

    async def any(self, session: AsyncSession) -> bool:
        return bool(self._texts)


class RememberedKeys(RememberedTexts, KeySet):
    """The KeySet of a dry run, kept in memory. Comparisons with rows still run in SQL."""

    def __init__(self, run_id: str, step: str, model: Any, key: Sequence[str], *, sqlite: bool) -> None:
        KeySet.__init__(self, run_id, step, model, key, sqlite=sqlite)
        self._texts = set()

    def _noted(self) -> ColumnElement[bool]:
        texts = literal(json.dumps(sorted(self._texts)), Text)
        if self.sqlite:
            return self._text().in_(select(func.json_each(texts).table_valued("value").c.value))
        return self._text().in_(select(func.jsonb_array_elements_text(cast(texts, JSONB)).column_valued("value")))
