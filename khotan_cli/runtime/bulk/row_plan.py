"""The plan of one bulk write: columns by role, and their SQL names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlalchemy import Boolean, Integer, Table, Uuid

from khotan_cli.runtime.bulk.table_schema import Field

Wins = Literal["first", "last"]
"""Which row wins if the database considers the keys of several rows equal, for example if it ignores case."""


class Upserted(NamedTuple):
    """Counts of a bulk write: rows inserted, rows updated, and rows that did not change."""

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

    written: columns of an inserted row. keys: columns that identify a row. compared: columns that decide whether a row has
    changed. updated: columns set on a changed row.
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
        """Whether the database and Python agree on the equality of keys, independent of collation and precision."""
        return all(is_exact(field) for field in self.keys)


def is_exact(field: Field) -> bool:
    """Whether equality of the column's values does not depend on collation or precision."""
    return isinstance(field.column.type, (Integer, Uuid, Boolean))


def quote(name: str) -> str:
    """An identifier as both databases quote it."""
    return '"' + name.replace('"', '""') + '"'


def table_name(table: Table) -> str:
    return (f"{quote(table.schema)}." if table.schema else "") + quote(table.name)


def column_names(fields: Iterable[Field]) -> list[str]:
    return [quote(field.column.name) for field in fields]
