"""Worker locks: limit SQLite to one worker, and detect dead workers on PostgreSQL.

A worker on PostgreSQL holds an advisory lock derived from its executor id while it lives; another process that gets the lock
knows that the worker is dead. On SQLite, the only worker locks a file next to the database. Both locks end with the process.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.store.run_queue import SCHEMA

if TYPE_CHECKING:
    import psycopg

SQLITE_EXECUTOR = "khotan"

logger = logging.getLogger("khotan.flows")


class FileWorkerLock:
    """The lock of the only worker of an SQLite database."""

    executor = SQLITE_EXECUTOR

    def __init__(self, database: Database) -> None:
        self._path = Path(f"{database.url.database}.worker.lock")
        self._lock: FileLock | None = None

    def acquire(self) -> bool:
        """Lock the file beside the database. Returns False if another process holds the lock."""
        # One thread takes the lock and another may release it: the lock belongs to the process.
        lock = FileLock(self._path, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        self._lock = lock
        return True

    def others(self) -> bool:
        """Whether another process holds the lock."""
        if self._lock is not None:
            return False
        if not self._path.exists() or not self.acquire():
            return self._path.exists()
        self.release()
        return False

    def living(self, executors: Sequence[str]) -> set[str]:
        """Return the executors that are alive."""
        return set(executors) if self._lock is not None or self.others() else set()

    def recover(self, recover_runs: Callable[[str], None]) -> None:
        """Do nothing: DBOS recovers the runs of the only executor."""

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class AdvisoryWorkerLock:
    """A worker's advisory lock on a PostgreSQL database, held by its own connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.executor = uuid.uuid4().hex
        self._connection: psycopg.Connection[Any] | None = None
        self._guard = threading.Lock()

    def _connect(self) -> psycopg.Connection[Any]:
        url = self._database.url.render_as_string(hide_password=False)
        arguments: dict[str, Any] = {**self._database.driver_arguments(), "application_name": "khotan-worker"}
        if "application_name" in self._database.url.query:
            del arguments["application_name"]
        import psycopg

        return psycopg.connect(url, autocommit=True, **arguments)

    def acquire(self) -> bool:
        self._connection = self._connect()
        return self._try(self.executor)

    def _try(self, executor: str) -> bool:
        assert self._connection is not None
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_number(executor),)).fetchone()
        return bool(row and row[0])

    def others(self) -> bool:
        """Whether another session holds a worker lock."""
        connection = self._connection or self._connect()
        try:
            row = connection.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
                "AND pid <> pg_backend_pid() AND classid = %s "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (_SPACE,),
            ).fetchone()
            return bool(row and row[0])
        finally:
            if connection is not self._connection:
                connection.close()

    def living(self, executors: Sequence[str]) -> set[str]:
        """Return the executors whose locks are held. Raises psycopg.Error."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND classid = %s "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (_SPACE,),
            ).fetchall()
        held = {int(row[0]) for row in rows}
        return {executor for executor in executors if lock_number(executor) & 0xFFFFFFFF in held}

    def recover(self, recover_runs: Callable[[str], None]) -> None:
        """Recover the runs of dead workers. Raises psycopg.Error if the database cannot be reached."""
        with self._guard:
            if self._connection is None or self._connection.closed or self._connection.broken:
                # Another worker may have recovered our runs meanwhile: their epochs are newer, so our executions stop.
                self._connection = self._connect()
                self._try(self.executor)
            owners = self._connection.execute(
                f"SELECT executor_id FROM {SCHEMA}.workflow_status WHERE status = 'PENDING' "  # noqa: S608
                "AND executor_id IS NOT NULL AND executor_id <> %(me)s UNION "
                "SELECT worker FROM khotan_runs WHERE status = 'running' AND worker IS NOT NULL AND worker <> %(me)s",
                {"me": self.executor},
            ).fetchall()
            for (owner,) in owners:
                if not self._try(owner):
                    continue
                try:
                    logger.info("Recovering the runs of a dead worker")
                    recover_runs(owner)
                finally:
                    self._connection.execute("SELECT pg_advisory_unlock(%s)", (lock_number(owner),))

    def release(self) -> None:
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


_SPACE = 0x6B686F74
"""Upper half of the numbers of khotan's advisory locks: "khot" in ASCII."""


def lock_number(executor: str) -> int:
    """Return the 64-bit advisory lock number of an executor: khotan's prefix and a digest of the id."""
    low = int.from_bytes(hashlib.blake2b(executor.encode(), digest_size=4).digest(), "big")
    return (_SPACE << 32) | low


WorkerLock = FileWorkerLock | AdvisoryWorkerLock


def worker_lock_for(database: Database) -> WorkerLock:
    return FileWorkerLock(database) if database.sqlite else AdvisoryWorkerLock(database)
