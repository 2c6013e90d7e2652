"""Deferred records: their parent row does not exist yet, or another row still has their unique value.

They are written after the last page and after `delete_missing`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import FlowError
from khotan_cli.runtime.bulk.row_plan import Upserted
from khotan_cli.runtime.bulk.table_schema import table_of
from khotan_cli.runtime.bulk.unique_swap import free_unique_values
from khotan_cli.runtime.database.errors import translate_error
from khotan_cli.runtime.runs.steps import Finished, Outcome, StepRecorder
from khotan_cli.runtime.store.runs import Reject
from khotan_cli.runtime.transfer.records import of_record, shown
from khotan_cli.runtime.transfer.table_batch import Rejected, Rows

_BY_OTHER_ROWS = ("23503", "23505", "23P01")
"""SQLSTATE of a foreign key, a unique and an exclusion constraint (PostgreSQL manual, appendix A)."""
_BY_OTHER_ROWS_SQLITE = (
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
)


class Deferred:
    """The deferred records of one sync."""

    def __init__(self, sync: str, rows: Rows, recorder: StepRecorder, *, skip: bool) -> None:
        self.name, self._rows, self._recorder, self._skip = f"{sync} put off", rows, recorder, skip
        self._records: list[Any] = []

    def add(self, rejected: Sequence[Rejected]) -> None:
        self._records += [record for record, _ in rejected]

    async def retry(
        self, session: AsyncSession, rejected: Sequence[Rejected]
    ) -> tuple[Upserted, list[Rejected], list[Rejected]]:
        """Retry the rejected records of a page. Returns what was written, the final rejections and the records to defer."""
        final = [entry for entry in rejected if not is_by_other_rows(entry[1])]
        dependent = [entry for entry in rejected if is_by_other_rows(entry[1])]
        if not dependent:
            return Upserted(), final, []
        done, deferred = await self._write(session, [record for record, _ in dependent])
        return done, final, deferred

    async def run(self, count: int) -> Finished:
        """Run the step that writes the records. Raises FlowError if an interrupted run lost them.

        Raises the database's error if a record is still rejected and `skip` is off.
        """
        done = self._recorder.finished(self.name)
        if done is not None:
            return done
        if len(self._records) != count:
            raise FlowError(
                f"{self.name}: {count} deferred records were lost when the run was interrupted",
                code="records_lost",
                hint="Start a new run of the flow: the rows that the records depend on exist now.",
            )

        async def work(session: AsyncSession) -> Outcome:
            written, rejected = await self._write(session, self._records)
            if rejected and not self._recorder.dry:
                some, rejected = await self._swap(session, rejected)
                written = written.plus(some)
            if self._recorder.dry:
                rejected = []  # the rows that they depend on were rolled back
            if rejected and not self._skip:
                raise rejected[0][1]
            rejects = [self._reject(record, exc) for record, exc in rejected]
            self._recorder.wrote(self._rows.name, written._asdict())
            counts = {
                "created": written.created,
                "updated": written.updated,
                "skipped": written.unchanged,
                "failed": len(rejects),
            }
            return Outcome({"unchanged": written.unchanged}, counts, rejects)

        return await self._recorder.commit(self.name, work)

    def _reject(self, record: Any, exc: Exception) -> Reject:
        message = translate_error(exc, self._recorder.database.url).message
        return Reject(self.name, of_record(message, record, self._rows.key), shown(record))

    async def _write(self, session: AsyncSession, records: Sequence[Any]) -> tuple[Upserted, list[Rejected]]:
        """Write the records one by one, repeatedly, until no further record can be written."""
        done, pending = Upserted(), list(records)
        while True:
            rejected: list[Rejected] = []
            for record in pending:
                some, why = await self._rows.batch([record]).write_accepted(session)
                done, rejected = done.plus(some), [*rejected, *why]
            if not rejected or len(rejected) == len(pending):
                return done, rejected
            pending = [record for record, _ in rejected]

    async def _swap(self, session: AsyncSession, rejected: Sequence[Rejected]) -> tuple[Upserted, list[Rejected]]:
        """Write records that swap unique values with each other, by freeing these values first."""
        records = [record for record, exc in rejected]
        savepoint = await session.begin_nested()
        keys = self._rows.batch(records).keys
        if await free_unique_values(session, self._rows.table, self._rows.key, keys):
            done, remaining = await self._write(session, records)
            if not remaining:
                await savepoint.commit()
                return done, []
        await savepoint.rollback()
        return Upserted(), list(rejected)


def points_at_itself(model: Any) -> bool:
    """Whether the table has a foreign key to itself."""
    table = table_of(model)
    return any(key.target_fullname.rpartition(".")[0] == table.fullname for key in table.foreign_keys)


def is_by_other_rows(exc: Exception) -> bool:
    """Whether the database rejected a row because of other rows: a foreign key or a unique constraint."""
    cause: Any = exc.orig if isinstance(exc, IntegrityError) else exc
    if isinstance(cause, sqlite3.IntegrityError):
        return getattr(cause, "sqlite_errorcode", None) in _BY_OTHER_ROWS_SQLITE
    return str(getattr(cause, "sqlstate", None) or "") in _BY_OTHER_ROWS
