"""Applies and lists khotan's migrations, and prints them as SQL. They never touch other tables or another Alembic history.

Synchronous: for commands, not for servers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event, inspect, text
from sqlalchemy.pool import NullPool

from khotan_cli.errors import StoreError
from khotan_cli.runtime.database.database import BUSY_MILLISECONDS, Database, configure_sqlite, postgres_arguments
from khotan_cli.runtime.database.errors import translated_errors
from khotan_cli.runtime.database.pooler import without_option
from khotan_cli.runtime.database.tables import metadata
from khotan_cli.runtime.database.url import describe_url, make_folder, parse_url
from khotan_cli.runtime.store.run_queue import RunQueue

VERSION_TABLE = "khotan_alembic_version"
_LOCK_ID = 0x6B686F74616E
"""PostgreSQL advisory lock that one migrating process holds at a time ("khotan" in ASCII)."""


@dataclass(frozen=True)
class Status:
    """The migration status of a database: its revision, the newest revision, and the pending revisions."""

    database: str
    current: str | None
    head: str
    pending: list[dict[str, str]]

    @property
    def up_to_date(self) -> bool:
        return not self.pending


def status(url: str, root: Path) -> Status:
    """Read only. Raises DatabaseUnreachable; StoreError for a database that a newer khotan migrated."""
    with _connection(url, root, write=False) as connection:
        return _status(url, root, None if connection is None else _current(connection))


def upgrade(url: str, root: Path) -> tuple[Status, Status]:
    """Apply what is pending, all in one transaction, then the engine's own; returns the status before and after.

    Raises DatabaseUnreachable; StoreError for a database that a newer khotan migrated, or whose tables were made by
    other means than these migrations.
    """
    with _connection(url, root) as connection:
        assert connection is not None
        before = _status(url, root, _current(connection))
        if before.current is None:
            _refuse_foreign_tables(connection, before.database)
        command.upgrade(_config(connection=connection), "head")
        after = _status(url, root, _current(connection))
    _migrate_engine(url, root)
    return before, after


def push(url: str, root: Path) -> Status:
    """Create missing tables straight from the models, and note the newest revision so that `upgrade` goes on from it.

    Tables that are there already are kept, and must be as the models say. A database that was migrated before is
    upgraded instead: missing tables alone would not bring it to the newest revision. Raises like `upgrade`.
    """
    with _connection(url, root) as connection:
        assert connection is not None
        before = _status(url, root, _current(connection))
        if before.current is not None:
            command.upgrade(_config(connection=connection), "head")
        metadata.create_all(connection)
        differing = differences(connection)
        if differing:
            raise StoreError(
                f"{before.database} has tables with khotan's names that differ from khotan's models: {', '.join(differing)}",
                hint="Nothing was changed. Rename or drop them, then push again.",
            )
        command.stamp(_config(connection=connection), "head")
        pushed = _status(url, root, _current(connection))
    _migrate_engine(url, root)
    return pushed


def _migrate_engine(url: str, root: Path) -> None:
    database = Database(url, root)
    database.pooled = True  # prepares nothing, as above
    RunQueue(database).migrate()


def differences(connection: Connection) -> list[str]:
    """Where the database's tables are not as the models say: `table` or `table.column`, sorted."""
    options = {"version_table": VERSION_TABLE, "include_object": is_ours, "compare_type": True}
    context = MigrationContext.configure(connection, opts={**options, "target_metadata": metadata})
    found: set[str] = set()
    for difference in compare_metadata(context, metadata):
        # A change of one column comes as a list of changes; any other as a tuple (kind, …objects).
        for change in difference if isinstance(difference, list) else [difference]:
            found.add(".".join(_named(part) for part in change[1:4] if _named(part)) or str(change[0]))
    return sorted(found)


def _named(part: Any) -> str:
    return part if isinstance(part, str) else str(getattr(part, "name", "") or "")


def is_ours(_item: Any, name: str | None, kind: str, _reflected: bool, _compared_to: Any) -> bool:
    """Alembic's `include_object`: tables of the application are none of khotan's business."""
    return kind != "table" or (name or "") in metadata.tables


def _refuse_foreign_tables(connection: Connection, database: str) -> None:
    existing = sorted(set(metadata.tables) & set(inspect(connection).get_table_names()))
    if existing:
        raise StoreError(
            f"{database} has {', '.join(existing)}, but no record of khotan's migrations",
            hint="If they are khotan's tables, adopt them with --push; otherwise rename or drop them.",
            next=["khotan migrate --push"],
        )


def sql(url: str, root: Path) -> str:
    """The whole migration as SQL for the database's dialect; nothing is connected to.

    Without the durable engine's tables, which it makes itself: `khotan migrate` has it do so.
    """
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
    except (CommandError, RevisionError):
        raise StoreError(
            f"{name} is at revision {current!r}, which this khotan does not know",
            hint="A newer khotan migrated the database. Upgrade khotan-cli.",
        ) from None
    return Status(name, current, head, pending[::-1])


def _current(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


@contextmanager
def _connection(url: str, root: Path, *, write: bool = True) -> Iterator[Connection | None]:
    """A connection in one transaction that, to write, keeps other migrations out.

    None where it is only to be read, and is an SQLite file that is not there yet.
    """
    parsed = parse_url(url, root)
    sqlite = parsed.drivername == "sqlite"
    if sqlite and not write and not Path(str(parsed.database)).exists():
        yield None
        return
    if sqlite:
        make_folder(parsed)
    driver = parsed if sqlite else without_option(parsed).set(drivername="postgresql+psycopg")
    # Nothing runs often enough here to be worth preparing, which a pooler in transaction mode would not allow.
    ours = {"timeout": BUSY_MILLISECONDS / 1000}
    arguments = ours if sqlite else {**postgres_arguments(parsed), "prepare_threshold": None}
    engine = create_engine(driver, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    if sqlite:
        event.listen(engine, "connect", _manual_transactions)
        event.listen(engine, "begin", _begin_immediate if write else _begin)
    try:
        with translated_errors(parsed), engine.begin() as connection:
            if write and not sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
            yield connection
    finally:
        engine.dispose()


def _manual_transactions(connection: Any, record: Any) -> None:
    configure_sqlite(connection, record)
    # The driver would commit before each CREATE TABLE; then a failed migration would stay half done.
    connection.isolation_level = None


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
