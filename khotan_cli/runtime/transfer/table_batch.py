"""Batches of records for a table: keys, duplicates, and the fastest form for the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import Integer, String
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import DatabaseBusy, DatabaseNotMigrated, DatabaseUnreachable, FlowError, StoreError
from khotan_cli.runtime.bulk.row_plan import Upserted, Wins
from khotan_cli.runtime.bulk.table_schema import key_readers, named_columns, table_of
from khotan_cli.runtime.bulk.upsert import RecordFields, Unset, Upserter, missing_key, upserter_for, write_page
from khotan_cli.runtime.transfer.json_fields import JsonFields
from khotan_cli.runtime.transfer.records import as_mapping

Rejected = tuple[Any, Exception]
"""A rejected record and the exception."""


class Rows:
    """Converts records to rows of a table. `model`: the Pydantic model of all records, or None for any mappings."""

    def __init__(
        self,
        table: Any,
        key: tuple[str, ...],
        model: type[BaseModel] | None,
        exclude_on_update: tuple[str, ...],
        *,
        sqlite: bool,
        unset: Unset = "keep",
        wins: Wins = "last",
    ) -> None:
        self.table, self.key, self.exclude, self.sqlite = table, key, exclude_on_update, sqlite
        self.unset: Unset = unset
        self.wins: Wins = wins
        columns = named_columns(table)
        self.columns = frozenset(columns)
        self._key_types = [columns[name].type for name in key]
        self._read_keys = key_readers(table, key)
        self.name = table_of(table).name
        self.model = model
        self.mostly_new = False
        self.upserter: Upserter | None = None
        self.adapter: TypeAdapter[Any] | None = None
        self.fields: tuple[str, ...] = ()
        self.json_fields: JsonFields | None = None
        if model is not None and model.model_config.get("extra") != "allow":
            self.fields = tuple(name for name in model.model_fields if name in self.columns)
            self.upserter = upserter_for(table, key, self.fields, exclude_on_update, sqlite)
            self.adapter = TypeAdapter(_list_of(model))
            self.json_fields = JsonFields.of(model, {name: columns[name] for name in self.fields})

    def batch(self, records: Sequence[Any]) -> Batch:
        return Batch(self, records)

    def missing(self, record: Any) -> str | None:
        """Return the first key field that the record lacks, or None. Raises TypeError if it is not a record."""
        fields = as_mapping(record)
        return next((name for name in self.key if fields.get(name) is None), None)

    def as_stored(self, keys: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Convert keys to the types of their columns, so that different spellings of one key are equal."""
        columns: list[Sequence[Any]] = []
        parts = zip(*keys, strict=True)  # empty if there are no keys
        for values, kind, read in zip(parts, self._key_types, self._read_keys, strict=False):
            simple = int if isinstance(kind, Integer) else str if isinstance(kind, String) else None
            columns.append(values if set(map(type, values)) == {simple} else [read(value) for value in values])
        return list(zip(*columns, strict=True))

    def unset_of(self, record: Any) -> frozenset[str]:
        """Return the record's unset fields, which keep the row's values. Empty with unset="default"."""
        if self.unset == "default" or not isinstance(record, BaseModel):
            return frozenset()
        return frozenset(type(record).model_fields) - record.model_fields_set


class Batch:
    """The records of one page and their keys."""

    def __init__(self, rows: Rows, records: Sequence[Any]) -> None:
        self._rows = rows
        self.records = list(records)
        self.keys = self._keys()
        self._payload: tuple[bytes, int] | None = None

    def _keys(self) -> list[tuple[Any, ...]]:
        rows = self._rows
        if rows.model is None:
            return [self._key(index, record) for index, record in enumerate(self.records)]
        read = attrgetter(*rows.key)
        keys = [read(record) for record in self.records]
        if len(rows.key) == 1:
            keys = [(key,) for key in keys]
        if any(None in key for key in keys):
            return [
                self._key(index, record) for index, record in enumerate(self.records)
            ]  # raises for the record without a key
        return keys

    def prepare(self, *, keep_records: bool = True, keep_keys: bool = True) -> None:
        """Build the form for the database while it writes the previous batch.

        Then records and keys are freed unless they are kept, and records can no longer be removed from the batch.
        """
        rows = self._rows
        if rows.upserter is None or rows.adapter is None or not self._fits_json():
            return
        self._payload = rows.adapter.dump_json(self.records, by_alias=False), len(self.records)
        if not keep_records:
            self.records = []
            if not keep_keys:
                self.keys = []

    def _fits_json(self) -> bool:
        """Whether all records set every field, to values that JSON transfers to PostgreSQL exactly."""
        rows = self._rows
        if rows.upserter is None or not rows.upserter.takes_json or not self.records or rows.json_fields is None:
            return False
        return self._all_set() and rows.json_fields.are_exact(self.records)

    def _all_set(self) -> bool:
        rows = self._rows
        assert rows.model is not None
        count = len(rows.model.model_fields)
        return rows.unset == "default" or all(len(record.model_fields_set) == count for record in self.records)

    def _key(self, index: int, record: Any) -> tuple[Any, ...]:
        try:
            fields = as_mapping(record)
        except TypeError as exc:
            raise FlowError(
                str(exc).capitalize(), code="records_invalid", hint="Return a mapping or a model from transform=…."
            ) from None
        key = tuple(fields.get(name) for name in self._rows.key)
        if None in key:
            raise missing_key(self._rows.key[key.index(None)], index)
        return key

    def repeated(self, wins: Wins) -> int:
        """Keep one record per key. Returns the number of removed records."""
        keys = self._rows.as_stored(self.keys)
        if len(set(keys)) == len(keys):
            return 0
        order = range(len(keys)) if wins == "last" else range(len(keys) - 1, -1, -1)
        kept = sorted({keys[index]: index for index in order}.values())
        left_out = len(keys) - len(kept)
        self._keep(kept)
        return left_out

    def leave_out(self, indexes: set[int]) -> None:
        """Remove the records at these indexes."""
        if indexes:
            self._keep([index for index in range(len(self.keys)) if index not in indexes])
            self._payload = None

    def _keep(self, kept: Sequence[int]) -> None:
        self.records = [self.records[index] for index in kept]
        self.keys = [self.keys[index] for index in kept]

    async def write(self, session: AsyncSession) -> Upserted:
        """Write the records. The share of new rows decides how the next batch is written."""
        done = await self._write(session)
        self._rows.mostly_new = done.created > done.total / 2
        return done

    async def write_accepted(self, session: AsyncSession) -> tuple[Upserted, list[Rejected]]:
        """Write the records that the database accepts, by bisection. Also returns the rejected records."""
        try:
            async with session.begin_nested():
                return await self.write(session), []
        except Exception as exc:
            if not refuses_values(exc):
                raise
            if len(self.records) == 1:
                return Upserted(), [(self.records[0], exc)]
        half = len(self.records) // 2
        done, rejected = Upserted(), list[Rejected]()
        for part in (self.records[:half], self.records[half:]):
            some, others = await self._rows.batch(part).write_accepted(session)
            done, rejected = done.plus(some), [*rejected, *others]
        return done, rejected

    async def _write(self, session: AsyncSession) -> Upserted:
        rows, records = self._rows, self.records
        if self._payload is not None and rows.upserter is not None:
            return await rows.upserter.write_json(session, *self._payload, mostly_new=rows.mostly_new, wins=rows.wins)
        if not records:
            return Upserted()
        if self._fits_json():
            self.prepare()
            return await self._write(session)
        if rows.upserter is not None and rows.adapter is not None:
            plain = rows.adapter.dump_python(records, by_alias=False)
            if self._all_set():
                return await rows.upserter.write_rows(session, plain, wins=rows.wins)
            values = [{name: row[name] for name in rows.fields} for row in plain]
            known = [RecordFields(row, rows.unset_of(record)) for row, record in zip(values, records, strict=True)]
        else:
            known = [
                RecordFields(_only(as_mapping(record), rows.columns, record), rows.unset_of(record))
                for record in records
            ]
        return await write_page(session, rows.table, known, rows.key, rows.exclude, rows.sqlite, rows.wins)


def refuses_values(exc: Exception) -> bool:
    """Whether the exception is about values of rows, not an outage or a missing table."""
    if isinstance(exc, StoreError):
        return not isinstance(exc, (DatabaseUnreachable, DatabaseBusy, DatabaseNotMigrated))
    return isinstance(exc, (IntegrityError, DataError, sqlite3.IntegrityError, sqlite3.DataError, OverflowError))


def _only(fields: Mapping[str, Any], columns: frozenset[str], record: Any) -> Mapping[str, Any]:
    """Return the fields that are columns of the table. Models in them become dicts."""
    kept = {name: value for name, value in fields.items() if name in columns}
    if isinstance(record, BaseModel):
        return {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in kept.items()}
    return kept


def _list_of(model: Any) -> Any:
    return list[model]
