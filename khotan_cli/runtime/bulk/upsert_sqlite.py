"""Bulk upsert on SQLite: executemany of a conditional ON CONFLICT, in the connection's thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.bulk.row_plan import RowPlan, Upserted, Wins, column_names

_KEYS_AT_A_TIME = 500
Row = tuple[Any, ...]


class SqliteUpsert:
    """The statements of one plan."""

    def __init__(self, plan: RowPlan) -> None:
        self._plan = plan
        names, target = column_names(plan.written), plan.target
        keys = column_names(plan.keys)
        sets = ", ".join(f"{name} = excluded.{name}" for name in column_names(plan.updated))
        differs = " OR ".join(f"{target}.{name} IS NOT excluded.{name}" for name in column_names(plan.compared))
        conflict = f"DO UPDATE SET {sets} WHERE {differs}" if plan.compared else "DO NOTHING"
        marks = ", ".join("?" * len(names))
        self._insert = (
            f"INSERT INTO {target} ({', '.join(names)}) VALUES ({marks}) "  # noqa: S608 - quoted names
            f"ON CONFLICT ({', '.join(keys)}) {conflict}"
        )
        self._there = f"SELECT count(*) FROM {target} WHERE ({', '.join(keys)}) IN (VALUES "  # noqa: S608 - quoted names
        self._key_places = [plan.written.index(field) for field in plan.keys]

    async def run(self, session: AsyncSession, rows: Sequence[Row], *, wins: Wins = "last") -> Upserted:
        connection = await session.connection()
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection

        def work() -> tuple[int, int]:
            plain = driver._conn
            kept = rows if self._plan.exact else self._distinct(plain, rows, wins)
            there = self._count_there(plain, kept)
            before = plain.total_changes
            plain.executemany(self._insert, kept)
            return len(kept) - there, plain.total_changes - before

        created, touched = await driver._execute(work)
        return Upserted(created, touched - created, len(rows) - touched)

    def _keys(self, row: Row) -> Row:
        return tuple(row[place] for place in self._key_places)

    def _count_there(self, plain: Any, rows: Sequence[Row]) -> int:
        marks = f"({', '.join('?' * len(self._key_places))})"
        there = 0
        for start in range(0, len(rows), _KEYS_AT_A_TIME):
            some = rows[start : start + _KEYS_AT_A_TIME]
            statement = self._there + ", ".join([marks] * len(some)) + ")"
            there += plain.execute(statement, [value for row in some for value in self._keys(row)]).fetchone()[0]
        return there

    def _distinct(self, plain: Any, rows: Sequence[Row], wins: Wins) -> Sequence[Row]:
        """Return one row for each key that is distinct under the collations of the table's columns."""
        keys = [self._keys(row) for row in rows]
        if not all(isinstance(value, (str, int, float)) for key in keys for value in key):
            return rows
        chosen = plain.execute(self._grouped(wins), [json.dumps(keys)]).fetchall()
        if len(chosen) == len(rows):
            return rows
        return [rows[index] for index in sorted(int(place) for (place,) in chosen)]

    def _grouped(self, wins: Wins) -> str:
        # The columns of a compound select have the collations of its first part.
        columns = column_names(self._plan.keys)
        values = ", ".join(f"json_extract(value, '$[{number}]')" for number in range(len(columns)))
        return (
            f"SELECT {'max' if wins == 'last' else 'min'}(khotan_order) FROM ("  # noqa: S608 - quoted names
            f"SELECT 0 AS khotan_order, {', '.join(columns)} FROM {self._plan.target} WHERE 0 "
            f"UNION ALL SELECT key, {values} FROM json_each(?)) GROUP BY {', '.join(columns)}"
        )
