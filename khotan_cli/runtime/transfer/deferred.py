"""Records that other rows stand in the way of: a parent that has not come yet, a unique value that another row still has.

They are written after the last page, and after the deletion of what did not come.
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
    """The records of one sync that are put off."""

    def __init__(self, sync: str, rows: Rows, recorder: StepRecorder, *, skip: bool) -> None:
        self.name, self._rows, self._recorder, self._skip = f"{sync} put off", rows, recorder, skip
        self._records: list[Any] = []

    def add(self, refused: Sequence[Rejected]) -> None:
        self._records += [record for record, _ in refused]

    async def sort_out(
        self, session: AsyncSession, refused: Sequence[Rejected]
    ) -> tuple[Upserted, list[Rejected], list[Rejected]]:
        """Try the refused records of a page again; what was written then, what is refused for good, and what for now."""
        for_good = [rejected for rejected in refused if not is_by_other_rows(rejected[1])]
        others = [rejected for rejected in refused if is_by_other_rows(rejected[1])]
        if not others:
            return Upserted(), for_good, []
        done, still = await self._write(session, [record for record, _ in others])
        return done, for_good, still

    async def run(self, count: int) -> Finished:
        """The step that writes them. Raises FlowError where an interrupted run has lost them, or one is still refused."""
        done = self._recorder.finished(self.name)
        if done is not None:
            return done
        if len(self._records) != count:
            raise FlowError(
                f"{self.name}: {count} records waited for other rows when the run was interrupted, and are not known any more",
                code="records_lost",
                hint="Start the flow anew: the other rows are there now.",
            )

        async def work(session: AsyncSession) -> Outcome:
            written, refused = await self._write(session, self._records)
            if refused and not self._recorder.dry:
                some, refused = await self._swap(session, refused)
                written = written.plus(some)
            if self._recorder.dry:
                refused = []  # the rows that they wait for were undone
            if refused and not self._skip:
                raise refused[0][1]
            rejects = [self._reject(record, exc) for record, exc in refused]
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
        """Write them one by one, until none of those that are left can be written."""
        done, pending = Upserted(), list(records)
        while True:
            refused: list[Rejected] = []
            for record in pending:
                some, why = await self._rows.batch([record]).write_accepted(session)
                done, refused = done.plus(some), [*refused, *why]
            if not refused or len(refused) == len(pending):
                return done, refused
            pending = [record for record, _ in refused]

    async def _swap(self, session: AsyncSession, refused: Sequence[Rejected]) -> tuple[Upserted, list[Rejected]]:
        """Write records whose unique values their rows have among themselves, by freeing these first."""
        records = [record for record, exc in refused]
        savepoint = await session.begin_nested()
        keys = self._rows.batch(records).keys
        if await free_unique_values(session, self._rows.table, self._rows.key, keys):
            done, still = await self._write(session, records)
            if not still:
                await savepoint.commit()
                return done, []
        await savepoint.rollback()
        return Upserted(), list(refused)


def points_at_itself(model: Any) -> bool:
    """Whether rows of a table have others of it as parents."""
    table = table_of(model)
    return any(key.target_fullname.rpartition(".")[0] == table.fullname for key in table.foreign_keys)


def is_by_other_rows(exc: Exception) -> bool:
    """Whether a row was refused for what is, or is not yet, in other rows."""
    cause: Any = exc.orig if isinstance(exc, IntegrityError) else exc
    if isinstance(cause, sqlite3.IntegrityError):
        return getattr(cause, "sqlite_errorcode", None) in _BY_OTHER_ROWS_SQLITE
    return str(getattr(cause, "sqlstate", None) or "") in _BY_OTHER_ROWS
