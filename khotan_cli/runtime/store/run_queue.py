"""The run queue: a run is enqueued in the same transaction that stores its row (transactional outbox).

The engine's tables are in the same database: in their own schema on PostgreSQL, next to khotan's tables on SQLite. They hold
ids, names and states, but no records and no secrets. Importing the engine takes most of a second, so it is imported only when
a run is enqueued.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, bindparam, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import DatabaseNotMigrated
from khotan_cli.runtime.database.database import BUSY_MILLISECONDS, Database, configure_sqlite
from khotan_cli.runtime.database.errors import translated_errors

if TYPE_CHECKING:
    from dbos import DBOSClient

SCHEMA = "khotan_engine"
APPLICATION = "khotan"
VERSION = "1"
"""Version of the workflow. It does not change when a flow is edited: pending runs continue with the new code."""
WORKFLOW = "khotan.run"
QUEUE = "khotan"
ENGINE_LOG = "dbos"
_POOL = 10


def queue_of(flow: str, concurrency: int) -> tuple[str, str | None]:
    """Return queue and partition of a flow. Flows with concurrency 1 share a partitioned queue; others have their own."""
    return (QUEUE, flow) if concurrency == 1 else (f"{QUEUE}:{flow}", None)


SUCCESSOR = "~"
"""Separates the run's id from the number of the successor in a queue entry's id. Run ids do not contain it."""


def run_of(workflow_id: str) -> str:
    """Return the run id of a queue entry."""
    return workflow_id.partition(SUCCESSOR)[0]


def successor_number(workflow_id: str) -> int:
    """Return how often the run was returned to the queue before this entry."""
    return int(workflow_id.partition(SUCCESSOR)[2] or 0)


def engine_of(database: Database) -> Engine:
    """Return a synchronous SQLAlchemy engine on the same database, for DBOS."""
    if database.sqlite:
        arguments: dict[str, Any] = {"timeout": BUSY_MILLISECONDS / 1000, "check_same_thread": False}
        engine = create_engine(database.url, hide_parameters=True, connect_args=arguments, pool_size=_POOL)
        event.listen(engine, "connect", _configure)
        return engine
    url = database.url.set(drivername="postgresql+psycopg")
    return create_engine(
        url, hide_parameters=True, connect_args=database.driver_arguments(), pool_size=_POOL, pool_pre_ping=True
    )


def _configure(connection: Any, record: Any) -> None:
    configure_sqlite(connection, record)
    connection.isolation_level = "IMMEDIATE"


def quiet_engine() -> None:
    """Silence the engine's log: it would add its own handler and print tracebacks with values."""
    logger = logging.getLogger(ENGINE_LOG)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.CRITICAL)
    logger.propagate = False


def refuse_pickles() -> None:
    """Reject pickled rows. The engine's rows are JSON; a pickle was inserted by someone else and could run code."""
    from dbos._serialization import DefaultSerializer

    def refuse(cls: DefaultSerializer, serialized_data: str) -> Any:
        raise ValueError("A pickled row is not read")

    DefaultSerializer.deserialize = refuse  # type: ignore[method-assign]


class RunQueue:
    """Enqueues, cancels and deletes runs in the engine's tables, from any process."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._client: DBOSClient | None = None
        self._guard = threading.Lock()

    @property
    def client(self) -> DBOSClient:
        """The engine's client, created at first use."""
        with self._guard:
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> DBOSClient:
        quiet_engine()
        from dbos import DBOSClient, DBOSPortableJSONSerializer

        refuse_pickles()
        self._engine = engine_of(self.database)
        return DBOSClient(
            system_database_engine=self._engine,
            dbos_system_schema=SCHEMA,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,
            lazy=True,
        )

    async def enqueue(self, session: AsyncSession, run_id: str, queue: str, partition: str | None) -> None:
        """Enqueue a run in the caller's transaction. Raises DatabaseNotMigrated if the engine's tables are missing."""
        await self._enqueue(session, run_id, queue, partition)

    async def enqueue_successor(self, session: AsyncSession, workflow_id: str, pause: float) -> None:
        """Enqueue the run of a queue entry again, with a delay of `pause` seconds, in the caller's transaction.

        The successor has the same queue and partition. The predecessor is deleted, so a run has at most two entries.
        """
        queue, partition = await self._place(session, workflow_id)
        number = successor_number(workflow_id)
        run_id = run_of(workflow_id)
        await self._enqueue(session, f"{run_id}{SUCCESSOR}{number + 1}", queue, partition, pause)
        if number > 1:
            before = f"{run_id}{SUCCESSOR}{number - 1}"
            statement = text(f"DELETE FROM {self.table} WHERE workflow_uuid = :id AND status = 'SUCCESS'")  # noqa: S608
            await session.execute(statement, {"id": before})

    async def _place(self, session: AsyncSession, workflow_id: str) -> tuple[str, str | None]:
        statement = text(f"SELECT queue_name, queue_partition_key FROM {self.table} WHERE workflow_uuid = :id")  # noqa: S608
        row = (await session.execute(statement, {"id": workflow_id})).one()
        return row[0], row[1]

    async def _enqueue(
        self, session: AsyncSession, workflow_id: str, queue: str, partition: str | None, pause: float = 0.0
    ) -> None:
        client = await asyncio.to_thread(lambda: self.client)
        options: dict[str, Any] = {
            "workflow_name": WORKFLOW,
            "queue_name": queue,
            "workflow_id": workflow_id,
            "app_version": VERSION,
        }
        if partition is not None:
            options["queue_partition_key"] = partition
        if pause:
            options["delay_seconds"] = pause
        with translated_errors(self.database.url):
            await session.run_sync(lambda plain: client.enqueue_in_transaction(plain, options))  # type: ignore[arg-type]

    async def cancel(self, run_id: str) -> None:
        """Remove a run from the queue. A running run is not resumed after a crash."""
        places = await self._places([run_id])
        await self._in_thread(lambda client: client.cancel_workflows(places))

    async def delete(self, run_ids: Sequence[str]) -> None:
        """Delete all queue entries of the runs."""
        places = await self._places(run_ids)
        await self._in_thread(lambda client: client.delete_workflows(places))

    async def _places(self, run_ids: Sequence[str]) -> list[str]:
        """Return the ids of the runs' queue entries, including successors."""
        async with self.database.session() as session:
            return [*run_ids, *await self._successors(session, run_ids)]

    async def _successors(self, session: AsyncSession, run_ids: Sequence[str]) -> dict[str, str]:
        """Return the engine's state of each successor of these runs by its id."""
        wanted = frozenset(run_ids)
        statement = text(
            f"SELECT workflow_uuid, status FROM {self.table} WHERE workflow_uuid LIKE :pattern"  # noqa: S608
        )
        rows = await session.execute(statement, {"pattern": f"%{SUCCESSOR}%"})
        return {row[0]: row[1] for row in rows if run_of(row[0]) in wanted}

    async def states(self, session: AsyncSession, run_ids: Sequence[str]) -> dict[str, str]:
        """Return the engine's state of each known run: ENQUEUED, DELAYED, PENDING, SUCCESS, ERROR, CANCELLED, …

        For a run that was returned to the queue, it is the state of the last queue entry.
        """
        statement = text(
            f"SELECT workflow_uuid, status FROM {self.table} WHERE workflow_uuid IN :ids"  # noqa: S608 - our own name
        ).bindparams(bindparam("ids", expanding=True))
        states = {row[0]: row[1] for row in await session.execute(statement, {"ids": list(run_ids)})}
        handed_back = [run_id for run_id in run_ids if states.get(run_id, "SUCCESS") == "SUCCESS"]
        if handed_back:
            successors = await self._successors(session, handed_back)
            for entry in sorted(successors, key=successor_number):
                states[run_of(entry)] = successors[entry]
        return states

    @property
    def table(self) -> str:
        """Name of the engine's table of workflows."""
        return "workflow_status" if self.database.sqlite else f"{SCHEMA}.workflow_status"

    def check_migrated(self) -> None:
        """Raises DatabaseNotMigrated if the engine's tables are missing or outdated. Synchronous: do not call it in a loop."""
        from dbos._error import DBOSException

        client = self.client
        try:
            with translated_errors(self.database.url):
                client._sys_db.verify_migrations()
        except DBOSException:
            raise DatabaseNotMigrated(
                f"{self.database.name} does not have the engine's current tables",
                hint="Apply the migrations.",
                next=["khotan migrate"],
            ) from None

    async def _in_thread(self, work: Any) -> None:
        def run() -> None:
            with translated_errors(self.database.url):
                work(self.client)

        await asyncio.to_thread(run)

    def migrate(self) -> None:
        """Create or update the engine's tables. Synchronous, for commands."""
        with translated_errors(self.database.url):
            self.client._sys_db.run_migrations()
            self.close()

    def close(self) -> None:
        with self._guard:
            if self._client is not None:
                self._client.destroy()
                self._engine.dispose()
                self._client = None
