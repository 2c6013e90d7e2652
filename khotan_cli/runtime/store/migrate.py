"""khotan's migrations: applied, listed, written out as SQL. They never touch another table or Alembic history.

Synchronous: commands call it directly, servers never.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from khotan_cli.errors import StoreError
from khotan_cli.runtime.store.database import (
    BUSY_MILLISECONDS,
    CONNECT_SECONDS,
    configure_sqlite,
    describe_url,
    explain,
    make_folder,
    parse_url,
)
from khotan_cli.runtime.store.tables import metadata

VERSION_TABLE = "khotan_alembic_version"
_LOCK_ID = 0x6B686F74616E
"""PostgreSQL advisory lock that one migrating process holds at a time ("khotan" in ASCII)."""


@dataclass(frozen=True)
class Status:
    """Where a database stands: its revision, the newest one, and those between."""

    database: str
    current: str | None
    head: str
    pending: list[dict[str, str]]

    @property
    def up_to_date(self) -> bool:
        return not self.pending


def status(url: str, root: Path) -> Status:
    """Raises DatabaseUnreachable; StoreError for a database that a newer khotan migrated."""
    with _connection(url, root, create=False) as connection:
        return _status(url, root, None if connection is None else _current(connection))


def upgrade(url: str, root: Path) -> tuple[Status, Status]:
    """Apply what is pending, all in one transaction; returns the status before and after."""
    with _connection(url, root) as connection:
        assert connection is not None
        before = _status(url, root, _current(connection))
        command.upgrade(_config(connection=connection), "head")
        return before, _status(url, root, _current(connection))


def push(url: str, root: Path) -> Status:
    """Create missing tables straight from the models, and note the newest revision so that `upgrade` goes on from it."""
    with _connection(url, root) as connection:
        assert connection is not None
        _status(url, root, _current(connection))
        metadata.create_all(connection)
        command.stamp(_config(connection=connection), "head")
        return _status(url, root, _current(connection))


def sql(url: str, root: Path) -> str:
    """The whole migration as SQL for the database's dialect; nothing is connected to."""
    written = io.StringIO()
    config = _config(dialect=parse_url(url, root).drivername)
    config.output_buffer = written
    command.upgrade(config, "head", sql=True)
    return written.getvalue()


def _config(**attributes: Any) -> Config:
    config = Config(stdout=io.StringIO(), output_buffer=io.StringIO())
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(attributes)
    return config


def _status(url: str, root: Path, current: str | None) -> Status:
    scripts = ScriptDirectory.from_config(_config())
    head = str(scripts.get_current_head())
    name = describe_url(parse_url(url, root))
    try:
        pending = [
            {"revision": revision.revision, "title": (revision.doc or "").rstrip(".")}
            for revision in scripts.iterate_revisions("head", current or "base")
            if revision.revision != current
        ]
    except CommandError:
        raise StoreError(
            f"{name} is at revision {current!r}, which this khotan does not know",
            hint="A newer khotan migrated it: upgrade khotan-cli.",
        ) from None
    return Status(name, current, head, pending[::-1])


def _current(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


@contextmanager
def _connection(url: str, root: Path, *, create: bool = True) -> Iterator[Connection | None]:
    """A connection in one transaction that keeps other migrations out; None for an SQLite file that is not there yet."""
    parsed = parse_url(url, root)
    sqlite = parsed.drivername == "sqlite"
    if sqlite and not create and not Path(str(parsed.database)).exists():
        yield None
        return
    if sqlite:
        make_folder(parsed)
        engine = create_engine(
            parsed, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": BUSY_MILLISECONDS / 1000}
        )
        event.listen(engine, "connect", _manual_transactions)
        event.listen(engine, "begin", _begin_immediate)
    else:
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={"connect_timeout": CONNECT_SECONDS},
        )
    try:
        with engine.begin() as connection:
            if not sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
            yield connection
    except (SQLAlchemyError, OSError) as exc:
        raise explain(exc, describe_url(parsed)) from None
    finally:
        engine.dispose()


def _manual_transactions(connection: Any, record: Any) -> None:
    configure_sqlite(connection, record)
    # The driver would commit before each CREATE TABLE; then a failed migration would stay half done.
    connection.isolation_level = None


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
