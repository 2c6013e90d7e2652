"""Insert or update many rows in one statement per page, leaving alone what does not differ.

PostgreSQL: a page is one JSON parameter; jsonb_to_recordset makes rows of it, an anti-join leaves out those that are there
and equal, so that they are not even locked, and the rest goes through ON CONFLICT. SQLite: an executemany of ON CONFLICT
with a condition. Both were measured against the alternatives: bench/upsert.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import UsageError
from khotan_cli.runtime.store.columns import (
    Field,
    check_fields,
    check_key,
    field_of,
    filled_on_insert,
    filled_on_update,
    key_readers,
    named_columns,
    pg_type,
    plain_json,
    table_of,
)
from khotan_cli.runtime.store.values import (
    NUL,
    Misfit,
    Reader,
    always_read,
    bound,
    fields_of,
    incomparable_key,
    jsonable,
    naming,
)

PAGE = 1000
_KEYS_AT_A_TIME = 500
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL in JSON; where the backslash is itself escaped it is six characters of a text."""
_PAYLOAD, _UNEQUAL = ":khotan_payload", ":khotan_unequal"


class Upserted(NamedTuple):
    """What became of the records: rows inserted, rows changed, and rows that were so already."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0

    @property
    def total(self) -> int:
        return self.created + self.updated + self.unchanged

    def plus(self, other: Upserted) -> Upserted:
        return Upserted(self.created + other.created, self.updated + other.updated, self.unchanged + other.unchanged)


async def upsert(
    session: AsyncSession,
    model: type[Any],
    records: Iterable[Mapping[str, Any] | BaseModel],
    *,
    key: str | Sequence[str],
    exclude_on_update: Sequence[str] = (),
) -> Upserted:
    """Insert or update rows of a table, in the caller's transaction; of records with one key the last wins.

    model: a SQLModel table class. records: mappings or models with the table's columns; columns that a record does not
    have are left as they are, and get their default in a new row. key: column or columns that the database keeps unique.
    exclude_on_update: columns set when a row is made and never again. Returns counts of distinct keys.

    Raises ConfigError where table, key and records do not fit; UsageError for a record that is none, or has no key;
    ValueRefused for a value that its column does not take.
    """
    keys = (key,) if isinstance(key, str) else tuple(key)
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    check_key(model, keys)
    readers = key_readers(model, keys)
    done = Upserted()
    page: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for index, record in enumerate(records):
        row = fields_of(record, index)
        identity = tuple(read(row.get(name)) for read, name in zip(readers, keys, strict=True))
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


def missing_key(name: str, index: int) -> UsageError:
    return UsageError(f"Record {index} has no {name!r}, which is part of the key", hint="Leave it out, or correct it.")


async def write_page(
    session: AsyncSession,
    model: Any,
    rows: Iterable[Mapping[str, Any]],
    key: Sequence[str],
    exclude_on_update: Sequence[str],
    on_sqlite: bool,
) -> Upserted:
    """Rows with distinct keys, grouped by the columns they have."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    done = Upserted()
    for fields, group in groups.items():
        upserter = upserter_for(model, tuple(key), fields, tuple(exclude_on_update), on_sqlite)
        done = done.plus(await upserter.write_rows(session, group))
    return done


@lru_cache(maxsize=256)
def upserter_for(
    model: Any, key: tuple[str, ...], fields: tuple[str, ...], exclude: tuple[str, ...], on_sqlite: bool
) -> Upserter:
    return Upserter(model, key, fields, exclude_on_update=exclude, sqlite=on_sqlite)


class Upserter:
    """The statements for one table, key and set of fields, on one dialect. Raises ConfigError where they do not fit."""

    def __init__(
        self,
        model: Any,
        key: Sequence[str],
        fields: Sequence[str],
        *,
        exclude_on_update: Sequence[str] = (),
        sqlite: bool,
    ) -> None:
        self.fields, self.key, self.sqlite = tuple(fields), tuple(key), sqlite
        check_key(model, key)
        check_fields(model, [*fields, *exclude_on_update])
        missing = next((name for name in key if name not in self.fields), None)
        if missing is not None:
            raise missing_key(missing, 0)
        columns = named_columns(model)
        self.table = table_of(model)
        self._fields = [field_of(name, columns[name], sqlite) for name in self.fields]
        self._made = filled_on_insert(model, self.fields, sqlite)
        self.changed = filled_on_update(model, self.fields, sqlite)
        frozen = {*key, *exclude_on_update}
        self.compared = [field for field in self._fields if field.name not in frozen]
        filled = [one.field for one in (*self._made, *self.changed)]
        self.takes_json = (
            not sqlite
            and not filled
            and all(field.as_json and field.name == field.column.name for field in self._fields)
        )
        self._write = _Sqlite(self) if sqlite else _Postgres(self)

    async def write_json(
        self, session: AsyncSession, payload: bytes, count: int, *, mostly_new: bool = False
    ) -> Upserted:
        """A JSON array of `count` objects with these fields and distinct keys; only where `takes_json`.

        mostly_new: few of the rows are there already, so that looking for equal ones first does not pay.
        """
        assert isinstance(self._write, _Postgres)
        with naming(self.table.name, self._fields, lambda: orjson.loads(payload)):
            return await self._write.run(session, payload.decode(), count, mostly_new=mostly_new)

    async def write_rows(self, session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> Upserted:
        """Rows of Python values with these fields and distinct keys."""
        if not rows:
            return Upserted()
        for name in self.key:
            for index, row in enumerate(rows):
                if row[name] is None:
                    raise missing_key(name, index)
        with naming(self.table.name, self._fields, lambda: rows):
            return await self._write.rows(session, rows)

    @property
    def written(self) -> list[Field]:
        """Every column of an inserted row: the records' own, then those filled in."""
        names = {one.field.name for one in self._made}
        return [*self._fields, *[one.field for one in self._made], *self._update_only(names)]

    def _update_only(self, made: set[str]) -> list[Field]:
        return [one.field for one in self.changed if one.field.name not in made]

    def binds(self, rows: Sequence[Mapping[str, Any]]) -> list[Reader | None]:
        """How the values of `written` are bound, for these rows."""
        filled = self.written[len(self.fields) :]
        return [bound(field, rows) for field in self._fields] + [always_read(field) for field in filled]

    def values(self, row: Mapping[str, Any]) -> list[Any]:
        """The values of `written` for one row, not yet bound."""
        made = {one.field.name for one in self._made}
        values = [row[name] for name in self.fields]
        values += [one.get() for one in self._made]
        return values + [one.get() for one in self.changed if one.field.name not in made]


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table_name(upserter: Upserter) -> str:
    schema = upserter.table.schema
    return (f"{_quote(schema)}." if schema else "") + _quote(upserter.table.name)


def _columns(fields: Iterable[Field]) -> list[str]:
    return [_quote(field.column.name) for field in fields]


class _Postgres:
    def __init__(self, upserter: Upserter) -> None:
        self._upserter = upserter
        written = upserter.written
        names = _columns(written)
        keys = [_quote(named.column.name) for named in written if named.name in upserter.key]
        types = ", ".join(f"{name} {pg_type(field.column)}" for name, field in zip(names, written, strict=True))
        inserted = ", ".join(names)
        differs = self._differs("t", "x")
        joined = " AND ".join(f"t.{name} = x.{name}" for name in keys)
        absent = f"t.{keys[0]} IS NULL"
        sets = [f"{name} = excluded.{name}" for name in _columns(upserter.compared)]
        sets += [f"{name} = excluded.{name}" for name in _columns(one.field for one in upserter.changed)]
        target = _table_name(upserter)
        # JSONB is taken apart faster; what is stored as JSON keeps the order of its keys only as JSON.
        form = "json" if any(plain_json(field.column) for field in written) else "jsonb"
        conflict = (
            f"DO UPDATE SET {', '.join(sets)} WHERE {self._differs('t', 'excluded')}"
            if upserter.compared
            else "DO NOTHING"
        )
        # In the order of the keys: writers that lock rows in one order do not wait for each other in a circle.
        ordered = f"ORDER BY {', '.join(f'x.{name}' for name in keys)}"
        unequal = f"LEFT JOIN {target} AS t ON {joined} WHERE {absent}{f' OR {differs}' if differs else ''} "
        statement = (
            f"WITH written AS (INSERT INTO {target} AS t ({inserted}) "  # noqa: S608 - names of the user's own table, quoted
            f"SELECT {', '.join(f'x.{name}' for name in names)} FROM {form}_to_recordset({_PAYLOAD}) AS x({types}) "
            f"{_UNEQUAL}{ordered} ON CONFLICT ({', '.join(keys)}) {conflict} RETURNING (xmax = 0) AS made) "
            "SELECT count(*) FILTER (WHERE made), count(*) FROM written"
        )
        self._sql, self._sql_mostly_new = (
            statement.replace(_UNEQUAL, left_out).replace("%", "%%").replace(_PAYLOAD, f"%s::{form}")
            for left_out in (unequal, "")
        )

    def _differs(self, left: str, right: str) -> str:
        """Row comparison; JSON has no equality, JSONB has."""
        sides = [
            ", ".join(
                f"{side}.{_quote(field.column.name)}" + ("::jsonb" if plain_json(field.column) else "")
                for field in self._upserter.compared
            )
            for side in (left, right)
        ]
        return f"({sides[0]}) IS DISTINCT FROM ({sides[1]})" if self._upserter.compared else ""

    async def run(self, session: AsyncSession, payload: str, count: int, *, mostly_new: bool = False) -> Upserted:
        if "\\u0000" in payload and _NUL.search(payload):
            raise Misfit(NUL)
        connection = await session.connection()
        sql = self._sql_mostly_new if mostly_new else self._sql
        row: Any = (await connection.exec_driver_sql(sql, (payload,))).one()
        created, written = int(row[0]), int(row[1])
        return Upserted(created, written - created, count - written)

    async def rows(self, session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> Upserted:
        upserter = self._upserter
        written = upserter.written
        names = [str(field.column.name) for field in written]
        binds = [None if field.as_json else bind for field, bind in zip(written, upserter.binds(rows), strict=True)]
        documents = [
            {
                name: value if bind is None or value is None else bind(value)
                for name, bind, value in zip(names, binds, upserter.values(row), strict=True)
            }
            for row in rows
        ]
        payload = orjson.dumps(documents, default=jsonable, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
        return await self.run(session, payload.decode(), len(rows))


class _Sqlite:
    def __init__(self, upserter: Upserter) -> None:
        self._upserter = upserter
        written = upserter.written
        names, target = _columns(written), _table_name(upserter)
        self._keys = [field for field in written if field.name in upserter.key]
        keys = _columns(self._keys)
        compared = _columns(upserter.compared)
        sets = [f"{name} = excluded.{name}" for name in compared]
        sets += [f"{name} = excluded.{name}" for name in _columns(one.field for one in upserter.changed)]
        differs = " OR ".join(f"{target}.{name} IS NOT excluded.{name}" for name in compared)
        conflict = f"DO UPDATE SET {', '.join(sets)} WHERE {differs}" if compared else "DO NOTHING"
        marks = ", ".join("?" * len(names))
        self._insert = (
            f"INSERT INTO {target} ({', '.join(names)}) VALUES ({marks}) "  # noqa: S608 - quoted names
            f"ON CONFLICT ({', '.join(keys)}) {conflict}"
        )
        self._there = f"SELECT count(*) FROM {target} WHERE ({', '.join(keys)}) IN (VALUES "  # noqa: S608 - quoted names
        self._places = [written.index(field) for field in self._keys]

    async def run(self, session: AsyncSession, values: Sequence[tuple[Any, ...]]) -> Upserted:
        connection = await session.connection()
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        marks = f"({', '.join('?' * len(self._places))})"

        def work() -> tuple[int, int]:
            plain, there = driver._conn, 0
            for start in range(0, len(values), _KEYS_AT_A_TIME):
                some = values[start : start + _KEYS_AT_A_TIME]
                asked = self._there + ", ".join([marks] * len(some)) + ")"
                there += plain.execute(asked, [row[place] for row in some for place in self._places]).fetchone()[0]
            before = plain.total_changes
            plain.executemany(self._insert, values)
            return len(values) - there, plain.total_changes - before

        created, touched = await driver._execute(work)
        return Upserted(created, touched - created, len(values) - touched)

    async def rows(self, session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> Upserted:
        upserter = self._upserter
        binds = upserter.binds(rows)
        values = [
            tuple(
                value if bind is None else bind(value) for bind, value in zip(binds, upserter.values(row), strict=True)
            )
            for row in rows
        ]
        return await self.run(session, values)
