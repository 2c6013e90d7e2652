"""Connections: pragmas, event loops, and every way a database can refuse."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import aiosqlite
import psycopg
import pytest
from sqlalchemy import insert, select, text

from khotan_cli.errors import (
    ConfigError,
    DatabaseNotMigrated,
    DatabaseUnreachable,
    KhotanError,
    StoreError,
    ValueRefused,
)
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.errors import translate_error
from khotan_cli.runtime.database.sqlite_threads import ConnectionThreads, thread_of
from khotan_cli.runtime.database.tables import PLUGS, PlugRow
from khotan_cli.runtime.database.types import UtcDateTime
from khotan_cli.runtime.database.url import parse_url
from khotan_cli.runtime.store import migrate


async def _failure(url: str, root: Path) -> KhotanError:
    database = Database(url, root)
    try:
        with pytest.raises(KhotanError) as caught:
            await database.check_migrated()
        return caught.value
    finally:
        await database.dispose()


async def test_a_migrated_database_answers(database: Database) -> None:
    await database.ping()
    await database.check_migrated()


async def test_an_empty_database_says_to_migrate(database_url: str, tmp_path: Path) -> None:
    error = await _failure(database_url, tmp_path)
    assert isinstance(error, DatabaseNotMigrated)
    assert error.next == ("khotan migrate",)
    assert list(tmp_path.iterdir()) == []  # to ask did not create a file


async def test_a_missing_column_says_to_migrate(migrated_url: str, tmp_path: Path) -> None:
    database = Database(migrated_url, tmp_path)
    async with database.session() as session:
        await session.execute(text("ALTER TABLE khotan_vars DROP COLUMN ciphertext"))
    await database.dispose()
    assert isinstance(await _failure(migrated_url, tmp_path), DatabaseNotMigrated)


async def test_one_database_serves_several_event_loops(database: Database) -> None:
    await database.ping()
    await asyncio.to_thread(asyncio.run, _ping_and_dispose(database))
    await database.ping()


async def _ping_and_dispose(database: Database) -> None:
    await database.ping()
    await database.dispose()


async def test_loops_that_ended_without_dispose_are_forgotten(database: Database) -> None:
    await asyncio.to_thread(asyncio.run, database.ping())
    assert len(database._engines) == 1
    await database.ping()
    assert len(database._engines) == 1


async def test_an_error_inside_a_session_rolls_back(database: Database) -> None:
    row = {"name": "shop", "enabled": True, "created_at": datetime.now(UTC), "updated_at": datetime.now(UTC)}
    with pytest.raises(ZeroDivisionError):
        async with database.session() as session:
            await session.execute(insert(PLUGS).values(**row))
            _ = 1 / 0
    async with database.session() as session:
        assert (await session.execute(select(PLUGS.c.name))).all() == []


async def test_statement_errors_quote_neither_statement_nor_values(database: Database) -> None:
    with pytest.raises(StoreError) as caught:
        async with database.session() as session:
            row = {"name": "hunter2", "enabled": True, "created_at": datetime.now(UTC), "updated_at": datetime.now(UTC)}
            await session.execute(insert(PLUGS), [row, row])
    assert ("khotan_plugs.name" if database.sqlite else "pk_khotan_plugs") in caught.value.message
    assert "hunter2" not in str(caught.value.to_json())
    assert "INSERT" not in str(caught.value.to_json())
    assert caught.value.__cause__ is None


async def test_moments_keep_their_time_zone(database: Database) -> None:
    summer = datetime(2026, 7, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    async with database.session() as session:
        session.add(PlugRow(name="shop", created_at=summer, updated_at=summer))
    async with database.session() as session:
        stored = (await session.execute(select(PLUGS.c.created_at))).scalar_one()
    assert stored == summer
    assert stored.utcoffset() == timedelta(0)


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        UtcDateTime().process_bind_param(datetime(2026, 7, 1), None)


async def test_now_is_the_present_moment(database: Database) -> None:
    before = datetime.now(UTC).timestamp()
    async with database.session() as session:
        now = (await session.execute(select(database.now()))).scalar_one()
    assert isinstance(now, float)
    assert before - 1 <= now <= datetime.now(UTC).timestamp() + 1


async def test_sqlite_runs_in_wal_mode_with_foreign_keys(sqlite_url: str, tmp_path: Path) -> None:
    migrate.upgrade(sqlite_url, tmp_path)
    database = Database(sqlite_url, tmp_path)
    async with database.session() as session:
        found = {
            name: (await session.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "busy_timeout", "synchronous", "foreign_keys")
        }
    await database.dispose()
    assert found == {"journal_mode": "wal", "busy_timeout": 30_000, "synchronous": 1, "foreign_keys": 1}


async def test_what_must_outlive_a_loss_of_power_waits_for_the_disk(sqlite_url: str, tmp_path: Path) -> None:
    migrate.upgrade(sqlite_url, tmp_path)
    database = Database(sqlite_url, tmp_path)
    levels: list[int | None] = []
    for durable in (True, False, True):
        async with database.writing(durable=durable) as session:
            levels.append((await session.execute(text("PRAGMA synchronous"))).scalar())
    await database.dispose()
    assert levels == [2, 1, 2]


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "khotan.db").write_text("not a database at all, " * 100)
    error = await _failure("sqlite:///khotan.db", tmp_path)
    assert isinstance(error, DatabaseUnreachable)
    assert "is not an SQLite database" in error.message


async def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "khotan.db").mkdir()
    error = await _failure("sqlite:///khotan.db", tmp_path)
    assert isinstance(error, DatabaseUnreachable)
    assert "cannot be opened" in error.message


async def test_a_file_that_stays_locked_is_an_error_not_a_wait_for_ever(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("khotan_cli.runtime.database.database.BUSY_MILLISECONDS", 50)
    migrate.upgrade(sqlite_url, tmp_path)
    holder = sqlite3.connect(tmp_path / "khotan.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    database = Database(sqlite_url, tmp_path)
    with pytest.raises(DatabaseUnreachable, match="locked by another process"):
        async with database.session() as session:
            await session.execute(text("DELETE FROM khotan_plugs"))
    await database.dispose()
    holder.close()


async def test_a_database_that_only_lets_itself_be_read(migrated_url: str, tmp_path: Path) -> None:
    database = Database(migrated_url, tmp_path)
    with pytest.raises(StoreError, match=r"is read-only|cannot be written"):
        async with database.session() as session:
            read_only = "PRAGMA query_only=1" if database.sqlite else "SET TRANSACTION READ ONLY"
            await session.execute(text(read_only))
            await session.execute(text("DELETE FROM khotan_plugs"))
    await database.dispose()


async def test_a_server_that_does_not_listen(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses connections
        port = taken.getsockname()[1]
        error = await _failure(f"postgresql://khotan:hunter2@127.0.0.1:{port}/shop", tmp_path)
    assert isinstance(error, DatabaseUnreachable)
    assert f"127.0.0.1:{port}/shop" in error.message
    assert "hunter2" not in str(error.to_json())
    assert error.exit_code == 4


async def test_a_host_that_does_not_exist(tmp_path: Path) -> None:
    error = await _failure("postgresql://khotan:hunter2@nowhere.invalid/shop", tmp_path)
    assert isinstance(error, DatabaseUnreachable)
    assert "nowhere.invalid" in error.message


@pytest.mark.parametrize("wrong", ["password", "user", "database"])
async def test_a_server_that_refuses(postgres_url: str, tmp_path: Path, wrong: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        info = connection.info
        parts = {
            "user": info.user,
            "password": info.password,
            "database": info.dbname,
            "host": f"127.0.0.1:{info.port}",
        }
    url = "postgresql://{user}:{password}@{host}/{database}".format(**(parts | {wrong: "hunter2"}))
    error = await _failure(url, tmp_path)
    assert isinstance(error, DatabaseUnreachable)
    assert parts["password"] not in str(error.to_json())
    assert ("hunter2" in error.message) == (wrong != "password")


@pytest.mark.parametrize("said", ["hunter2 /+", "hunter2%20%2F%2B", "hunter2+%2F%2B"])
def test_a_password_in_a_drivers_message_is_taken_out(said: str, tmp_path: Path) -> None:
    url = parse_url("postgresql://khotan:hunter2%20%2F%2B@db.example.com/shop", tmp_path)
    error = translate_error(psycopg.OperationalError(f"cannot connect with {said}\nand more of it: {said}"), url)
    assert error.message == "PostgreSQL db.example.com:5432/shop cannot be reached: cannot connect with ••••"


async def test_an_option_libpq_does_not_know_is_a_matter_of_configuration(postgres_url: str, tmp_path: Path) -> None:
    error = await _failure(f"{postgres_url}?ssl=require", tmp_path)
    assert isinstance(error, ConfigError)
    assert "ssl" in error.message


async def test_a_value_that_the_server_has_no_form_for(postgres_url: str, tmp_path: Path) -> None:
    migrate.upgrade(postgres_url, tmp_path)
    database = Database(postgres_url, tmp_path)
    for condition, hint in (
        (PLUGS.c.name == "a\x00", "NUL"),
        (text("1 = 1/0"), "Convert"),
        (text("'[' = '['::json::text"), "Convert"),
    ):
        with pytest.raises(ValueRefused) as caught:
            async with database.session() as session:
                await session.execute(select(PLUGS.c.name).where(condition))
        assert caught.value.http_status == 422 and hint in caught.value.hint and not caught.value.next
    await database.dispose()


async def test_a_connection_that_the_server_dropped_is_replaced(postgres_url: str, tmp_path: Path) -> None:
    migrate.upgrade(postgres_url, tmp_path)
    database = Database(postgres_url, tmp_path)
    await database.ping()
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) {others}")
        while connection.execute(f"SELECT 1 {others}").fetchone():  # the backend says so to its client, then it is gone
            await asyncio.sleep(0.01)
    await database.ping()
    await database.dispose()


async def test_the_threads_of_closed_connections_end_before_their_loop(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait()

    connection = await aiosqlite.connect(tmp_path / "khotan.db")
    thread, threads = thread_of(connection), ConnectionThreads()
    assert thread is not None and thread.is_alive(), "aiosqlite keeps its thread under another name"
    threads.add(SimpleNamespace(driver_connection=connection), None)
    await connection.create_function("wait", 0, wait)
    statement = asyncio.create_task(connection.execute_fetchall("SELECT wait()"))
    await asyncio.to_thread(begun.wait)
    connection.stop()
    asyncio.get_running_loop().call_later(0.2, go_on.set)
    await threads.ended()
    assert not thread.is_alive()
    await statement
