"""The connection to DATABASE_URL: SQLite or PostgreSQL, asynchronous, with errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from khotan_cli.errors import ConfigError, DatabaseNotMigrated, DatabaseUnreachable, StoreError

CONNECT_SECONDS = 10
BUSY_MILLISECONDS = 30_000


def parse_url(url: str, root: Path) -> URL:
    """DATABASE_URL without a driver, a relative SQLite path made absolute against the project.

    Raises ConfigError, which never quotes the URL: it may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "DATABASE_URL is not a database URL",
            hint="sqlite:///path/to/file.db, or postgresql://user:password@host/name.",
        ) from None
    backend = parsed.drivername.partition("+")[0]
    if backend in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql")
    if backend != "sqlite":
        raise ConfigError(
            f"DATABASE_URL names {backend!r}, which khotan cannot use", hint="Use sqlite:/// or postgresql://."
        )
    if not parsed.database or parsed.database == ":memory:":
        raise ConfigError(
            "DATABASE_URL names an SQLite database in memory, which no second process could see",
            hint="Name a file: sqlite:///.khotan/khotan.db.",
        )
    return parsed.set(drivername="sqlite", database=str((root / parsed.database).resolve()))


def describe_url(url: URL) -> str:
    """The database without user and password."""
    if url.drivername.startswith("sqlite"):
        return f"SQLite {url.database}"
    return f"PostgreSQL {url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"


class Database:
    """One database. Its engine belongs to the event loop that first uses it, and is made anew for another one."""

    def __init__(self, url: str, root: Path | None = None) -> None:
        self.url = parse_url(url, root or Path.cwd())
        self.sqlite = self.url.drivername == "sqlite"
        self._engine: AsyncEngine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def name(self) -> str:
        return describe_url(self.url)

    @property
    def engine(self) -> AsyncEngine:
        loop = asyncio.get_running_loop()
        if self._engine is None or self._loop is not loop:
            self._engine, self._loop = self._make(), loop
        return self._engine

    def _make(self) -> AsyncEngine:
        if self.sqlite:
            make_folder(self.url)
            engine = create_async_engine(
                self.url.set(drivername="sqlite+aiosqlite"),
                hide_parameters=True,
                connect_args={"timeout": BUSY_MILLISECONDS / 1000},
            )
            event.listen(engine.sync_engine, "connect", configure_sqlite)
            return engine
        return create_async_engine(
            self.url.set(drivername="postgresql+psycopg"),
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_SECONDS},
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction, committed at the end. Raises StoreError and its kinds."""
        with self.errors():
            async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
                yield session

    async def ping(self) -> None:
        """Raises DatabaseUnreachable where the database does not answer."""
        async with self.session() as session:
            await session.execute(text("SELECT 1"))

    async def check_migrated(self) -> None:
        """Raises DatabaseNotMigrated where khotan's tables are missing."""
        async with self.session() as session:
            await session.execute(text("SELECT 1 FROM khotan_vars LIMIT 1"))
            await session.execute(text("SELECT 1 FROM khotan_rates LIMIT 1"))

    async def dispose(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None and self._loop is asyncio.get_running_loop():
            await engine.dispose()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """SQLAlchemy's exceptions as khotan's; neither statement nor parameters are quoted."""
        try:
            yield
        except (SQLAlchemyError, OSError) as exc:
            raise explain(exc, self.name) from None

    def __repr__(self) -> str:
        return f"Database({self.name!r})"


def make_folder(url: URL) -> None:
    """Create the folder of an SQLite file."""
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DatabaseUnreachable(
            f"{describe_url(url)}: its folder cannot be created: {exc.strerror}", hint="Check DATABASE_URL."
        ) from None


def configure_sqlite(connection: Any, _record: Any) -> None:
    """WAL lets readers and a writer work side by side; a busy database is waited for."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def explain(exc: Exception, name: str) -> StoreError:
    """The StoreError for an exception of SQLAlchemy or a driver."""
    cause = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    message = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    kind = type(cause).__name__
    if kind in ("UndefinedTable", "UndefinedColumn") or "no such table" in message or "no such column" in message:
        return DatabaseNotMigrated(
            f"{name} has not khotan's tables, or old ones",
            hint="Apply the migrations.",
            next=["khotan migrate"],
        )
    if "not a database" in message:
        return DatabaseUnreachable(f"{name} is a file, but no SQLite database", hint="Check DATABASE_URL.")
    if kind in ("OperationalError", "ConnectionTimeout", "InterfaceError") or isinstance(cause, OSError):
        return DatabaseUnreachable(
            f"{name} cannot be reached: {_without_secrets(message)}",
            hint="Check DATABASE_URL, and that the database runs and is reachable from here.",
            next=["khotan doctor"],
        )
    return StoreError(f"{name}: {kind}", hint="Run khotan doctor.", next=["khotan doctor"])


def _without_secrets(message: str) -> str:
    """Drivers name user and host, never the password; the rest of a long line adds nothing."""
    return message[:200]
