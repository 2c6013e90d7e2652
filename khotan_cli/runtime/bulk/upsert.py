"""Upserts many rows with one statement per page. Unchanged rows are not written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import UsageError
from khotan_cli.runtime.bulk.coercion import Reader, fields_of, incomparable_key, json_text
from khotan_cli.runtime.bulk.fitting import always_read, bound, naming
from khotan_cli.runtime.bulk.row_plan import RowPlan, Upserted, Wins
from khotan_cli.runtime.bulk.table_schema import (
    Field,
    check_fields,
    check_key,
    field_of,
    filled_on_insert,
    filled_on_update,
    has_default,
    key_readers,
    named_columns,
    table_of,
    writable,
)
from khotan_cli.runtime.bulk.upsert_postgres import PostgresUpsert
from khotan_cli.runtime.bulk.upsert_sqlite import SqliteUpsert

PAGE = 1000
Unset = Literal["keep", "default"]
"""Columns whose field a record did not set: "keep" their value, or write the record model's "default"."""


@dataclass(frozen=True)
class RecordFields:
    """The values of a record by column, and the names of unset fields, whose values are defaults."""

    values: Mapping[str, Any]
    unset: frozenset[str] = frozenset()


async def upsert(
    session: AsyncSession,
    model: type[Any],
    records: Iterable[Mapping[str, Any] | BaseModel],
    *,
    key: str | Sequence[str],
    exclude_on_update: Sequence[str] = (),
    unset: Unset = "keep",
) -> Upserted:
    """Insert or update rows of a table in the caller's transaction. For records with the same key, the last wins.

    model: a SQLModel table class. records: mappings or models with the table's columns. key: unique column or columns.
    exclude_on_update: columns set only when a row is created. unset: for values that a record does not have or a model did
    not set, "keep" leaves an existing row's value unchanged, and a new row gets the column's default, or else the record
    model's; "default" writes the record model's default in both cases. Returns counts of distinct keys.

    Raises ConfigError if table, key and records do not match; UsageError for an invalid record or a record without a key;
    ValueRefused for a value that is invalid for its column.
    """
    keys = (key,) if isinstance(key, str) else tuple(key)
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    check_key(model, keys)
    if unset not in ("keep", "default"):
        raise UsageError(f"Invalid unset={unset!r}: expected 'keep' or 'default'")
    readers = key_readers(model, keys)
    done = Upserted()
    page: dict[tuple[Any, ...], RecordFields] = {}
    for index, record in enumerate(records):
        row = record_fields(record, index, unset)
        identity = tuple(read(row.values.get(name)) for read, name in zip(readers, keys, strict=True))
        if None in identity:
            raise missing_key(keys[identity.index(None)], index)
        try:
            new = identity not in page
        except TypeError:
            raise incomparable_key(keys, identity, index) from None
        if new and len(page) >= PAGE:
            done = done.plus(await write_page(session, model, page.values(), keys, exclude_on_update, on_sqlite))
            page = {}
        page.pop(identity, None)
        page[identity] = row
    return done.plus(await write_page(session, model, page.values(), keys, exclude_on_update, on_sqlite))


def record_fields(record: Any, index: int, unset: Unset) -> RecordFields:
    """Return the fields of a record. Raises UsageError if it is not a record."""
    if not isinstance(record, BaseModel) or unset == "default":
        return RecordFields(fields_of(record, index, unset=False))
    values = record.model_dump()
    return RecordFields(values, frozenset(type(record).model_fields) - record.model_fields_set)


def missing_key(name: str, index: int) -> UsageError:
    return UsageError(f"Record {index} has no value for the key field {name!r}", hint="Skip the record, or correct it.")


async def write_page(
    session: AsyncSession,
    model: Any,
    rows: Iterable[RecordFields],
    key: Sequence[str],
    exclude_on_update: Sequence[str],
    on_sqlite: bool,
    wins: Wins = "last",
) -> Upserted:
    """Write rows with distinct keys, grouped by their columns."""
    groups: dict[tuple[tuple[str, ...], frozenset[str]], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((tuple(row.values), row.unset), []).append(row.values)
    done = Upserted()
    for (names, unset), group in groups.items():
        fields = tuple(name for name in names if name not in unset or not has_default(model, name))
        exclude = tuple(dict.fromkeys([*exclude_on_update, *[name for name in fields if name in unset]]))
        upserter = upserter_for(model, tuple(key), fields, exclude, on_sqlite)
        done = done.plus(await upserter.write_rows(session, group, wins=wins))
    return done


@lru_cache(maxsize=256)
def upserter_for(
    model: Any, key: tuple[str, ...], fields: tuple[str, ...], exclude: tuple[str, ...], on_sqlite: bool
) -> Upserter:
    return Upserter(model, key, fields, exclude_on_update=exclude, sqlite=on_sqlite)


class Upserter:
    """The statements for one table, key and set of fields, on one dialect. Raises ConfigError if they do not match."""

    def __init__(
        self,
        model: Any,
        key: Sequence[str],
        fields: Sequence[str],
        *,
        exclude_on_update: Sequence[str] = (),
        sqlite: bool,
    ) -> None:
        check_key(model, key)
        check_fields(model, [*fields, *exclude_on_update])
        columns = named_columns(model)
        self.fields, self.key = tuple(name for name in fields if writable(columns[name])), tuple(key)
        missing = next((name for name in key if name not in self.fields), None)
        if missing is not None:
            raise missing_key(missing, 0)
        self.table = table_of(model)
        self._fields = [field_of(name, columns[name], sqlite) for name in self.fields]
        self._made = filled_on_insert(model, self.fields, sqlite)
        self._changed = filled_on_update(model, self.fields, sqlite)
        made = {one.field.name for one in self._made}
        self._only_changed = [one for one in self._changed if one.field.name not in made]
        filled = [one.field for one in (*self._made, *self._only_changed)]
        self.takes_json = (
            not sqlite
            and not filled
            and all(field.as_json and field.name == field.column.name for field in self._fields)
        )
        frozen = {*key, *exclude_on_update}
        compared = [field for field in self._fields if field.name not in frozen]
        self._written = [*self._fields, *filled]
        self.plan = RowPlan(
            self.table,
            self._written,
            [field for field in self._written if field.name in key],
            compared,
            [*compared, *[one.field for one in self._changed]],
        )
        self._write = SqliteUpsert(self.plan) if sqlite else PostgresUpsert(self.plan)

    async def write_json(
        self, session: AsyncSession, payload: bytes, count: int, *, mostly_new: bool = False, wins: Wins = "last"
    ) -> Upserted:
        """Write a JSON array of `count` objects with these fields and distinct keys. Requires `takes_json`.

        mostly_new: most rows do not exist yet, so searching for equal rows first is not worthwhile.
        """
        assert isinstance(self._write, PostgresUpsert)
        with naming(self.table.name, self._fields, lambda: json.loads(payload)):
            return await self._write.run(session, payload.decode(), count, mostly_new=mostly_new, wins=wins)

    async def write_rows(
        self, session: AsyncSession, rows: Sequence[Mapping[str, Any]], *, wins: Wins = "last"
    ) -> Upserted:
        """Write rows of Python values with these fields and distinct keys."""
        if not rows:
            return Upserted()
        for name in self.key:
            for index, row in enumerate(rows):
                if row[name] is None:
                    raise missing_key(name, index)
        with naming(self.table.name, self._fields, lambda: rows):
            values = [self._values(row) for row in rows]
            binds = [bound(field, rows) for field in self._fields]
            binds += [always_read(field) for field in self._written[len(self._fields) :]]
            if isinstance(self._write, SqliteUpsert):
                ready = [tuple(_bound(bind, value) for bind, value in zip(binds, row, strict=True)) for row in values]
                return await self._write.run(session, ready, wins=wins)
            payload = documents(self._written, binds, values)
            return await self._write.run(session, payload, len(rows), wins=wins)

    def _values(self, row: Mapping[str, Any]) -> list[Any]:
        """Return the unbound values of the written columns for one row."""
        filled = [one.get() for one in (*self._made, *self._only_changed)]
        return [*[row[name] for name in self.fields], *filled]


def _bound(bind: Reader | None, value: Any) -> Any:
    return value if bind is None else bind(value)


def documents(fields: Sequence[Field], binds: Sequence[Reader | None], rows: Iterable[Sequence[Any]]) -> str:
    """Convert rows to JSON for PostgreSQL. Raises Misfit for a value that JSON cannot represent."""
    names = [str(field.column.name) for field in fields]
    objects = [
        {
            name: value if bind is None or value is None else bind(value)
            for name, bind, value in zip(names, binds, row, strict=True)
        }
        for row in rows
    ]
    return json_text(objects)
