"""What one bulk write does to a table: its columns by role, and their names as SQL has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlalchemy import Boolean, Integer, Table, Uuid

from khotan_cli.runtime.bulk.table_schema import Field

Wins = Literal["first", "last"]
"""Which of several rows counts that the database takes for one: case or blanks apart, say."""


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


@dataclass(frozen=True)
class RowPlan:
    """The columns of a bulk write.

    written: those of an inserted row. keys: those that tell rows apart. compared: those whose values make a row differ.
    updated: those that are set where it differs.
    """

    table: Table
    written: Sequence[Field]
    keys: Sequence[Field]
    compared: Sequence[Field]
    updated: Sequence[Field]

    @property
    def target(self) -> str:
        return table_name(self.table)

    @property
    def exact(self) -> bool:
        """Whether the database takes two keys for one only where Python does, whatever the real columns are."""
        return all(is_exact(field) for field in self.keys)


def is_exact(field: Field) -> bool:
    """Whether values of the column's type have one written form, so that equality is no matter of collation or precision."""
    return isinstance(field.column.type, (Integer, Uuid, Boolean))


def quote(name: str) -> str:
    """An identifier as both databases quote it."""
    return '"' + name.replace('"', '""') + '"'


def table_name(table: Table) -> str:
    return (f"{quote(table.schema)}." if table.schema else "") + quote(table.name)


def column_names(fields: Iterable[Field]) -> list[str]:
    return [quote(field.column.name) for field in fields]
