"""Migrations: applied once, beside whatever else lives in the database."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text

from khotan_cli.errors import DatabaseUnreachable, StoreError
from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import metadata
from khotan_cli.runtime.store import migrate
from khotan_cli.runtime.store.run_queue import RunQueue
from khotan_cli.runtime.store.variables import DatabaseVarStore
from tests.runtime.store.conftest import Spawn

REVISIONS = ["0001", "0002", "0003", "0004", "0005", "0006", "0007"]
HEAD = REVISIONS[-1]

_UPGRADE = """
import sys
from pathlib import Path
from khotan_cli.runtime.store import migrate
print("ready", flush=True)
sys.stdin.readline()
before, after = migrate.upgrade(sys.argv[1], Path.cwd())
print(len(before.pending), after.current)
"""


@contextmanager
def _connect(url: str) -> Iterator[Connection]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _tables(url: str) -> set[str]:
    """Tables but the engine's, which on PostgreSQL are in a schema of their own."""
    with _connect(url) as connection:
        return set(inspect(connection).get_table_names()) - _engine_tables()


@cache
def _engine_tables() -> set[str]:
    with TemporaryDirectory() as folder:
        file = Path(folder, "engine.db")
        RunQueue(Database(f"sqlite:///{file}", Path(folder))).migrate()
        with _connect(f"sqlite:///{file}") as connection:
            return set(inspect(connection).get_table_names())


def test_upgrade_from_nothing(database_url: str, tmp_path: Path) -> None:
    before, after = migrate.upgrade(database_url, tmp_path)
    assert (before.current, before.up_to_date) == (None, False)
    assert [step["revision"] for step in before.pending] == REVISIONS
    assert (after.current, after.head, after.pending) == (HEAD, HEAD, [])
    assert _tables(database_url) == {*metadata.tables, migrate.VERSION_TABLE}


def test_upgrade_again_finds_nothing_to_do(database_url: str, tmp_path: Path) -> None:
    migrate.upgrade(database_url, tmp_path)
    before, after = migrate.upgrade(database_url, tmp_path)
    assert before == after
    assert before.up_to_date


@pytest.mark.parametrize("how", ["upgrade", "push"])
def test_the_tables_are_those_of_the_models(database_url: str, tmp_path: Path, how: str) -> None:
    getattr(migrate, how)(database_url, tmp_path)
    with _connect(database_url) as connection:
        assert migrate.differences(connection) == []


def test_status_changes_nothing(database_url: str, tmp_path: Path) -> None:
    status = migrate.status(database_url, tmp_path)
    assert (status.current, status.head, status.up_to_date) == (None, HEAD, False)
    assert list(tmp_path.iterdir()) == []
    migrate.upgrade(database_url, tmp_path)
    assert migrate.status(database_url, tmp_path).up_to_date


def test_push_then_upgrade(database_url: str, tmp_path: Path) -> None:
    assert migrate.push(database_url, tmp_path).current == HEAD
    before, after = migrate.upgrade(database_url, tmp_path)
    assert before.up_to_date
    assert after.up_to_date
    assert migrate.push(database_url, tmp_path).up_to_date


def test_the_applications_tables_and_history_are_not_touched(database_url: str, tmp_path: Path) -> None:
    with _connect(database_url) as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('app42')"))
        connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)"))
        connection.execute(text("INSERT INTO users VALUES (1, 'Ada')"))
    migrate.upgrade(database_url, tmp_path)
    migrate.push(database_url, tmp_path)
    with _connect(database_url) as connection:
        command.downgrade(migrate._config(connection=connection), "base")
    assert _tables(database_url) == {"alembic_version", "users", migrate.VERSION_TABLE}
    with _connect(database_url) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).all() == [("app42",)]
        assert connection.execute(text("SELECT id, name FROM users")).all() == [(1, "Ada")]


def test_down_and_up_again(database_url: str, tmp_path: Path) -> None:
    migrate.upgrade(database_url, tmp_path)
    with _connect(database_url) as connection:
        command.downgrade(migrate._config(connection=connection), "base")
    assert migrate.status(database_url, tmp_path).current is None
    assert migrate.upgrade(database_url, tmp_path)[1].up_to_date


def test_a_database_of_a_newer_khotan_is_left_alone(database_url: str, tmp_path: Path) -> None:
    migrate.upgrade(database_url, tmp_path)
    with _connect(database_url) as connection:
        connection.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'"))
    for action in (migrate.status, migrate.upgrade, migrate.push):
        with pytest.raises(StoreError, match="'9999'") as caught:
            action(database_url, tmp_path)
        assert "Upgrade khotan-cli" in caught.value.hint


@pytest.mark.parametrize("action", [migrate.upgrade, migrate.push])
def test_tables_of_that_name_that_are_something_else_are_refused(
    database_url: str, tmp_path: Path, action: Any
) -> None:
    with _connect(database_url) as connection:
        connection.execute(text("CREATE TABLE khotan_vars (id INTEGER PRIMARY KEY)"))
    with pytest.raises(StoreError, match="khotan_vars") as caught:
        action(database_url, tmp_path)
    assert caught.value.hint
    assert _tables(database_url) == {"khotan_vars"}


def test_tables_made_from_the_models_elsewhere_can_be_taken_over(database_url: str, tmp_path: Path) -> None:
    with _connect(database_url) as connection:
        metadata.create_all(connection)
    with pytest.raises(StoreError) as caught:
        migrate.upgrade(database_url, tmp_path)
    assert caught.value.next == ("khotan migrate --push",)
    assert migrate.push(database_url, tmp_path).up_to_date


def test_a_migration_that_fails_leaves_nothing_half_done(database_url: str, tmp_path: Path) -> None:
    with _connect(database_url) as connection:
        # Not a table, so that it is only found when the migration comes to it, after the others.
        connection.execute(text("CREATE VIEW khotan_rates AS SELECT 1 AS one"))
    with pytest.raises(StoreError):
        migrate.upgrade(database_url, tmp_path)
    assert _tables(database_url) == set()


async def test_processes_that_migrate_at_once_wait_for_each_other(database_url: str, spawn: Spawn) -> None:
    processes = [spawn(_UPGRADE, database_url) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate, "go\n") for process in processes))
    assert sorted(output for output, _ in outputs) == [f"0 {HEAD}\n", f"0 {HEAD}\n", f"{len(REVISIONS)} {HEAD}\n"]


async def test_a_migration_waits_for_one_that_is_running(postgres_url: str, tmp_path: Path) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with migrate._connection(postgres_url, tmp_path), psycopg.connect(postgres_url, autocommit=True) as watcher:
        second = asyncio.create_task(asyncio.to_thread(migrate.upgrade, postgres_url, tmp_path))
        async with asyncio.timeout(30):
            while watcher.execute(waiting).fetchone() == (0,):
                assert not second.done(), "it did not wait"
                await asyncio.sleep(0.01)
    assert (await second)[1].up_to_date


async def test_stored_values_outlive_another_upgrade(migrated_url: str, tmp_path: Path, secret: str) -> None:
    database = Database(migrated_url, tmp_path)
    store = DatabaseVarStore(database, Cipher(secret))
    await store.save("shop", {"api_key": "sk_live_1234"})
    await asyncio.to_thread(migrate.upgrade, migrated_url, tmp_path)
    await asyncio.to_thread(migrate.push, migrated_url, tmp_path)
    assert await store.load("shop") == {"api_key": "sk_live_1234"}
    await database.dispose()


def test_the_sql_does_what_upgrade_does(database_url: str, tmp_path: Path) -> None:
    script = migrate.sql(database_url, tmp_path)
    assert list(tmp_path.iterdir()) == []
    if database_url.startswith("sqlite"):
        connection = sqlite3.connect(tmp_path / "khotan.db")
        connection.executescript(script)
        connection.close()
    else:
        with psycopg.connect(database_url, autocommit=True) as session:
            session.execute(script.encode())
    assert migrate.status(database_url, tmp_path).up_to_date
    with _connect(database_url) as opened:
        assert migrate.differences(opened) == []


def test_sql_connects_to_nothing(tmp_path: Path) -> None:
    script = migrate.sql("postgresql://khotan:hunter2@nowhere.invalid/shop", tmp_path)
    assert "CREATE TABLE khotan_vars" in script
    assert "DOUBLE PRECISION" in script or "FLOAT(53)" in script
    assert "hunter2" not in script


@pytest.mark.parametrize("action", [migrate.status, migrate.upgrade, migrate.push])
def test_an_unreachable_database_is_named_without_its_password(action: Any, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachable, match=r"127\.0\.0\.1:1/shop") as caught:
        action("postgresql://khotan:hunter2@127.0.0.1:1/shop", tmp_path)
    assert "hunter2" not in str(caught.value.to_json())


@pytest.mark.parametrize("action", [migrate.status, migrate.upgrade, migrate.push])
def test_a_file_that_is_no_database_is_kept(action: Any, tmp_path: Path) -> None:
    content = "not a database at all, " * 100
    (tmp_path / "khotan.db").write_text(content)
    with pytest.raises(DatabaseUnreachable, match="not an SQLite database"):
        action("sqlite:///khotan.db", tmp_path)
    assert (tmp_path / "khotan.db").read_text() == content


def test_the_folder_of_the_file_is_made(tmp_path: Path) -> None:
    migrate.upgrade("sqlite:///.khotan/data/khotan.db", tmp_path)
    assert (tmp_path / ".khotan/data/khotan.db").is_file()


def test_nothing_is_printed_and_logging_is_left_as_it_was(
    database_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("alembic").level)
    migrate.upgrade(database_url, tmp_path)
    migrate.push(database_url, tmp_path)
    migrate.status(database_url, tmp_path)
    migrate.sql(database_url, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert (root.level, list(root.handlers), logging.getLogger("alembic").level) == before


def test_the_version_table_is_our_own(migrated_url: str) -> None:
    with _connect(migrated_url) as connection:
        ours = MigrationContext.configure(connection, opts={"version_table": migrate.VERSION_TABLE})
        assert ours.get_current_revision() == HEAD
        assert MigrationContext.configure(connection).get_current_revision() is None
