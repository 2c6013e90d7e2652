"""The asynchronous connection to DATABASE_URL, SQLite or PostgreSQL. Raises khotan's errors with hints."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from select import select as select_ready
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Float, Table, event, false, func, literal, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from khotan_cli.errors import DatabaseBusy, DatabaseNotMigrated, DatabaseUnreachable
from khotan_cli.runtime.database.errors import translate_error, translated_errors
from khotan_cli.runtime.database.pooler import changes_sessions, declared, without_option
from khotan_cli.runtime.database.sqlite_threads import ConnectionThreads
from khotan_cli.runtime.database.tables import metadata
from khotan_cli.runtime.database.url import describe_url, parse_url

CONNECT_SECONDS = 10
BUSY_MILLISECONDS = 30_000
_PROBE_SECONDS = 5.0
_TRUSTED_SECONDS = 30.0
_POOL_SIZE = 5
_POOL_OVERFLOW = 15
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
_patience: ContextVar[float] = ContextVar("khotan_patience", default=0.0)
logger = logging.getLogger("khotan.database")

_SYNCHRONOUS = "NORMAL"
"""SQLite's synchronous mode: a crashed process loses nothing; a power failure may lose the last commits."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Within the block, new sessions of this task wait up to `seconds` for an unreachable database."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class Database:
    """One database. Each event loop has its own engine until `dispose` is called in it."""

    def __init__(self, url: str, root: Path | None = None) -> None:
        self.url = parse_url(url, root or Path.cwd())
        self.sqlite = self.url.drivername == "sqlite"
        self.pooled: bool | None = None if self.sqlite else declared(self.url)
        """Whether a pooler in transaction mode is in between; None: not yet known (see `detect_pooler`)."""
        self.url = self.url if self.sqlite else without_option(self.url)
        self._engines: dict[asyncio.AbstractEventLoop, AsyncEngine] = {}
        self._threads: WeakKeyDictionary[AsyncEngine, ConnectionThreads] = WeakKeyDictionary()
        self._guard = threading.Lock()

    @property
    def name(self) -> str:
        """The database's display name, without user and password."""
        return describe_url(self.url)

    @property
    def engine(self) -> AsyncEngine:
        """The engine of the running event loop."""
        loop = asyncio.get_running_loop()
        engine = self._engines.get(loop)
        if engine is None:
            with self._guard:
                self._forget_closed_loops()
                engine = self._engines[loop] = self._create_engine()
        return engine

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._engines if loop.is_closed()]:
            # Its connections cannot be closed in order any more; the garbage collector does it.
            self._engines.pop(loop).sync_engine.dispose(close=False)

    def _create_engine(self) -> AsyncEngine:
        options: dict[str, Any] = {"hide_parameters": True, "pool_size": _POOL_SIZE, "max_overflow": _POOL_OVERFLOW}
        if self.sqlite:
            probe_sqlite(str(self.url.database))
            arguments: dict[str, Any] = {"timeout": BUSY_MILLISECONDS / 1000}
            url = self.url.set(drivername="sqlite+aiosqlite")
            engine = create_async_engine(url, connect_args=arguments, **options)
            event.listen(engine.sync_engine, "connect", self._threads.setdefault(engine, ConnectionThreads()).add)
            event.listen(engine.sync_engine, "connect", configure_sqlite)
            return engine
        url = self.url.set(drivername="postgresql+psycopg")
        arguments = self.driver_arguments()
        engine = create_async_engine(url, connect_args=arguments, **options)
        _ping_in_doubt(engine.sync_engine)
        return engine

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session in one transaction, committed at the end. Raises StoreError and its subclasses."""
        self._refuse_missing_file()
        with translated_errors(self.url):
            async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
                if _patience.get():
                    await self._connect(session, _patience.get())
                yield session

    async def _connect(self, session: AsyncSession, seconds: float) -> None:
        """Connect the session. Retries while the database is unreachable or busy."""
        deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while True:
            try:
                await session.connection()
                return
            except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
                error = translate_error(exc, self.url)
                if not isinstance(error, (DatabaseUnreachable, DatabaseBusy)) or time.monotonic() >= deadline:
                    raise error from None
                logger.warning("%s Trying again.", error.message)
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, _LONGEST_PAUSE)

    @asynccontextmanager
    async def writing(self, *, durable: bool = False) -> AsyncIterator[AsyncSession]:
        """Like `session`, for a transaction that reads before it writes.

        On SQLite the write lock is taken first: a reader cannot become a writer if another connection has written meanwhile.
        durable: the commit waits for the disk, so that it survives a power failure, like PostgreSQL's commits.
        """
        async with self.session() as session:
            if self.sqlite:
                await _wait_for_disk(session, "FULL" if durable else _SYNCHRONOUS)
                await session.execute(text("BEGIN IMMEDIATE"))
            yield session

    @asynccontextmanager
    async def trying(self, within: AsyncSession | None = None) -> AsyncIterator[AsyncSession]:
        """Like `writing`, but everything is rolled back at the end: a commit inside only ends a savepoint.

        within: another such session; its connection is used, with a savepoint.
        """
        self._refuse_missing_file()
        with translated_errors(self.url):
            if within is not None:
                async with _undone(within.bind) as session:
                    yield session
                return
            async with self.engine.connect() as connection:
                if self.sqlite:
                    # The driver begins nothing before a savepoint, and the end of an outermost one commits.
                    await connection.execute(text("BEGIN IMMEDIATE"))
                async with _undone(connection) as session:
                    yield session

    def _refuse_missing_file(self) -> None:
        if self.sqlite and not Path(str(self.url.database)).exists():
            # Opening it would create an empty file. Only `khotan migrate` may create it.
            raise DatabaseNotMigrated(
                f"{self.name} does not exist yet", hint="Apply the migrations.", next=["khotan migrate"]
            )

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT that supports ON CONFLICT."""
        return sqlite.insert(table) if self.sqlite else postgresql.insert(table)

    def now(self) -> ColumnElement[float]:
        """Return an SQL expression for the current time in seconds since the epoch.

        PostgreSQL: the server's clock, so that the clocks of the clients do not matter. SQLite: the clock of this host. It is
        wall-clock time: a clock change moves the ends of leases and pauses.
        """
        if self.sqlite:
            return literal(time.time(), Float(53))
        return func.date_part("epoch", func.clock_timestamp(), type_=Float(53))

    def largest(self, *values: ColumnElement[float]) -> ColumnElement[float]:
        """Return an SQL expression for the largest of several values."""
        return (func.max if self.sqlite else func.greatest)(*values, type_=Float(53))

    def smallest(self, *values: ColumnElement[float]) -> ColumnElement[float]:
        """Return an SQL expression for the smallest of several values."""
        return (func.min if self.sqlite else func.least)(*values, type_=Float(53))

    def driver_arguments(self) -> dict[str, Any]:
        """Return psycopg's connection arguments. Behind a pooler in transaction mode, prepared statements are off."""
        arguments = postgres_arguments(self.url)
        return arguments | {"prepare_threshold": None} if self.pooled else arguments

    async def detect_pooler(self) -> bool:
        """Detect a pooler in transaction mode, and then turn prepared statements off. Returns whether there is one.

        `?pgbouncer=…` in the URL skips the detection. Call it before other threads use the database. Raises StoreError.
        """
        if self.pooled is None and not self.sqlite:
            from psycopg import Error

            with translated_errors(self.url):
                try:
                    url = self.url.render_as_string(hide_password=False)
                    self.pooled = await changes_sessions(url, postgres_arguments(self.url))
                except Error as exc:
                    raise translate_error(exc, self.url) from None
            if self.pooled:
                await self.dispose()
        return bool(self.pooled)

    async def ping(self) -> None:
        """Raises DatabaseUnreachable if the database does not respond."""
        async with self.session() as session:
            await session.execute(text("SELECT 1"))

    async def check_migrated(self) -> None:
        """Raises DatabaseNotMigrated if tables or columns of khotan are missing."""
        async with self.session() as session:
            for table in metadata.sorted_tables:
                await session.execute(select(table).where(false()))

    async def dispose(self) -> None:
        """Close the connections of the running event loop."""
        engine = self._engines.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.dispose()
            if threads := self._threads.pop(engine, None):
                await threads.ended()

    def __repr__(self) -> str:
        return f"Database({self.name!r})"


def _ping_in_doubt(engine: Engine) -> None:
    """Ping a connection before use if it was idle for long or has unread data, because the server may have closed it.

    SQLAlchemy's pool_pre_ping pings every time, which adds one round trip in four to a short transaction.
    """

    def rest(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    def ask(connection: Any, record: Any, _proxy: Any) -> None:
        idle = time.monotonic() - record.info.get("idle_since", time.monotonic())
        if idle < _TRUSTED_SECONDS and not _readable(record.driver_connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as exc:
            raise DisconnectionError from exc  # the pool makes another

    event.listen(engine, "checkin", rest)
    event.listen(engine, "checkout", ask)


def _readable(connection: Any) -> bool:
    """Whether an idle connection has unread data, such as its end or the server's reason for closing it."""
    from psycopg import Error

    try:
        return bool(select_ready([connection.fileno()], [], [], 0)[0])
    except (Error, ValueError, OSError):
        return True


def postgres_arguments(url: URL) -> dict[str, Any]:
    """Return default arguments for libpq that the URL does not set."""
    ours: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS, "application_name": "khotan"}
    return {name: value for name, value in ours.items() if name not in url.query}


@asynccontextmanager
async def _undone(connection: Any) -> AsyncIterator[AsyncSession]:
    """Open a session in a savepoint of the connection's transaction, and roll back to it at the end."""
    savepoint = await connection.begin_nested()
    try:
        mode: Any = "create_savepoint"
        options: dict[str, Any] = {"expire_on_commit": False, "join_transaction_mode": mode}
        async with AsyncSession(connection, **options) as session, session.begin():
            yield session
    finally:
        await savepoint.rollback()


async def _wait_for_disk(session: AsyncSession, level: str) -> None:
    """Set SQLite's synchronous mode if it differs (sqlite.org/pragma.html#pragma_synchronous)."""
    info = (await session.connection()).info
    if info.get("synchronous", _SYNCHRONOUS) != level:
        await session.execute(text(f"PRAGMA synchronous={level}"))
        info["synchronous"] = level


def probe_sqlite(file: str) -> None:
    """Raises sqlite3.Error if the file is not a database or cannot be opened, before a thread is started for it."""
    connection = sqlite3.connect(file, timeout=_PROBE_SECONDS)
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    finally:
        connection.close()


def configure_sqlite(connection: Any, _record: Any) -> None:
    """Set WAL, which allows readers beside a writer, the busy timeout and foreign keys."""
    try:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={_SYNCHRONOUS}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()
    except BaseException:
        # Nobody else has the connection yet; its thread would outlive the event loop.
        connection.close()
        raise
