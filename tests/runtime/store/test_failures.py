"""What a database refuses, said so that it can be put right: which table, column or constraint; never the value."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from khotan_cli.errors import DatabaseNotMigrated, DatabaseUnreachable, KhotanError, StoreError, ValueRefused
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.errors import translate_error
from khotan_cli.runtime.database.url import parse_url

TABLES = (
    "CREATE TABLE shelves (id INTEGER PRIMARY KEY)",
    "CREATE TABLE goods (id INTEGER PRIMARY KEY, sku VARCHAR(7) CONSTRAINT one_sku UNIQUE, name TEXT NOT NULL,"
    " stock INTEGER CONSTRAINT some_stock CHECK (stock >= 0), shelf INTEGER CONSTRAINT on_shelf REFERENCES shelves (id))",
    "INSERT INTO goods VALUES (1, 'hunter2', 'hunter2', 1, NULL)",
)


@pytest.fixture
async def goods(database: Database) -> Database:
    async with database.session() as session:
        for statement in TABLES:
            await session.execute(text(statement))
    return database


async def refused(database: Database, statement: str, **values: Any) -> KhotanError:
    with pytest.raises(KhotanError) as caught:
        async with database.session() as session:
            await session.execute(text(statement), values)
    assert "hunter2" not in str(caught.value.to_json())
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELEC 'hunter2'", "syntax error"),
        ("SELECT nope(1)", "nope"),
        ("SELECT 'hunter2' +* 1 FROM", "syntax error"),
        ("INSERT INTO goods (id, name) VALUES (1, 'hunter2') ON CONFLICT (name) DO NOTHING", "no unique constraint"),
    ],
)
async def test_a_mistake_in_a_statement_is_no_outage(goods: Database, statement: str, said: str) -> None:
    error = await refused(goods, statement)
    assert type(error) is StoreError and error.code == "database_error"
    assert said in error.message


async def test_a_table_of_the_users_own_is_named(goods: Database) -> None:
    error = await refused(goods, "SELECT * FROM items")
    assert type(error) is StoreError and error.message.startswith("The table items does not exist")
    assert "ensure_table" in error.hint and not error.next
    error = await refused(goods, "SELECT 1 FROM khotan_items")
    assert isinstance(error, DatabaseNotMigrated) and error.next == ("khotan migrate",)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELECT colour FROM goods", "The column colour does not exist"),
        ("SELECT goods.colour FROM goods", "The column goods.colour does not exist"),
        ("INSERT INTO goods (id, colour) VALUES (7, 'hunter2')", "The column goods.colour does not exist"),
    ],
)
async def test_a_column_of_the_users_own_is_named(goods: Database, statement: str, words: str) -> None:
    error = await refused(goods, statement)
    assert type(error) is StoreError and error.message.startswith(words)
    assert "migrations" in error.hint and not error.next


async def test_a_column_that_khotan_wants_leads_to_its_migrations(goods: Database) -> None:
    for statement in (
        "SELECT colour FROM khotan_runs",
        "UPDATE khotan_runs SET colour = 'hunter2'",
        "SELECT khotan_runs.colour FROM goods, khotan_runs",
    ):
        assert isinstance(await refused(goods, statement), DatabaseNotMigrated)
    error = await refused(goods, "SELECT goods.colour FROM goods, khotan_runs")
    assert error.message.startswith("The column goods.colour does not exist")


@pytest.mark.parametrize(
    ("columns", "on_sqlite", "on_postgres"),
    [
        ({"id": 2}, "goods.name is required", "goods.name is required"),
        ({"id": 2, "name": "x", "sku": "hunter2"}, "goods.sku", "one_sku of goods"),
        ({"id": 1, "name": "hunter2"}, "goods.id", "goods_pkey of goods"),
        ({"id": 2, "name": "hunter2", "stock": -1}, "some_stock", "some_stock of goods"),
        ({"id": 2, "name": "hunter2", "shelf": 9}, "a foreign key refers to a missing row", "on_shelf of goods"),
    ],
)
async def test_what_breaks_a_constraint(
    goods: Database, columns: dict[str, Any], on_sqlite: str, on_postgres: str
) -> None:
    names = ", ".join(columns)
    error = await refused(goods, f"INSERT INTO goods ({names}) VALUES (:{names.replace(', ', ', :')})", **columns)
    assert type(error) is StoreError
    assert (on_sqlite if goods.sqlite else on_postgres) in error.message


@pytest.mark.parametrize(
    ("expression", "message", "hint"),
    [
        ("'hunter2'::integer", "integer", "type"),
        ("'hunter2'::uuid", "uuid", "type"),
        ("'{\"hunter2\"'::json::text", "json", "type"),
        ("'hunter2'::regconfig", "", ""),
        ("99999999999::integer", "integer", "larger"),
        ("'99999999999'::integer", "integer", "larger"),
        ("12345.6::numeric(3, 1)", "", "larger"),
        ("'hunter2'::date", "date", "ISO 8601"),
        ("'2026-13-01'::date", "", "ISO 8601"),
        ("chr(0)", "", ""),
        ("'\"\\u0000\"'::jsonb::text", "", "NUL"),
        ("1 / 0", "", ""),
    ],
)
async def test_a_value_that_postgresql_refuses(
    postgres_url: str, tmp_path: Path, expression: str, message: str, hint: str
) -> None:
    database = Database(postgres_url, tmp_path)
    error = await refused(database, f"SELECT {expression.replace(':', chr(92) + ':')}")
    await database.dispose()
    assert message in error.message and hint in error.hint
    assert not isinstance(error, DatabaseUnreachable) and ("NUL" in error.hint) == (hint == "NUL")


async def test_values_that_are_too_long_or_hold_a_nul(postgres_url: str, tmp_path: Path) -> None:
    database = Database(postgres_url, tmp_path)
    async with database.session() as session:
        await session.execute(text("CREATE TABLE short (code VARCHAR(7))"))
    error = await refused(database, "INSERT INTO short VALUES (:code)", code="hunter2 and more")
    assert isinstance(error, ValueRefused) and "character varying(7)" in error.message and "lengthen" in error.hint
    error = await refused(database, "INSERT INTO short VALUES (:code)", code="a\x00")
    assert isinstance(error, ValueRefused) and "NUL" in error.hint
    await database.dispose()


def sqlite_error(code: int, name: str, message: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error


@pytest.mark.parametrize(
    ("code", "name", "kind"),
    [
        (sqlite3.SQLITE_BUSY, "SQLITE_BUSY", DatabaseUnreachable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "SQLITE_BUSY_SNAPSHOT", DatabaseUnreachable),
        (sqlite3.SQLITE_LOCKED, "SQLITE_LOCKED", DatabaseUnreachable),
        (sqlite3.SQLITE_PROTOCOL, "SQLITE_PROTOCOL", DatabaseUnreachable),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, "SQLITE_CANTOPEN_ISDIR", DatabaseUnreachable),
        (sqlite3.SQLITE_IOERR_READ, "SQLITE_IOERR_READ", DatabaseUnreachable),
        (sqlite3.SQLITE_NOTADB, "SQLITE_NOTADB", DatabaseUnreachable),
        (sqlite3.SQLITE_READONLY_DBMOVED, "SQLITE_READONLY_DBMOVED", DatabaseUnreachable),
        (sqlite3.SQLITE_FULL, "SQLITE_FULL", StoreError),
        (sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT", StoreError),
        (sqlite3.SQLITE_ERROR, "SQLITE_ERROR", StoreError),
        (sqlite3.SQLITE_INTERRUPT, "SQLITE_INTERRUPT", StoreError),
        (sqlite3.SQLITE_TOOBIG, "SQLITE_TOOBIG", ValueRefused),
    ],
)
def test_which_of_sqlites_errors_are_outages(code: int, name: str, kind: type[StoreError], tmp_path: Path) -> None:
    url = parse_url("sqlite:///khotan.db", tmp_path)
    for error in (sqlite_error(code, name, "said"), OperationalError("SELECT 1", {}, sqlite_error(code, name, "said"))):
        assert type(translate_error(error, url)) is kind


def test_a_connection_that_was_closed_is_an_outage_and_an_unreadable_text_is_not(tmp_path: Path) -> None:
    url = parse_url("sqlite:///khotan.db", tmp_path)
    assert isinstance(translate_error(sqlite3.OperationalError("no active connection"), url), DatabaseUnreachable)
    error = translate_error(
        sqlite3.OperationalError("Could not decode to UTF-8 column 'a' with text 'it's hunter2'"), url
    )
    assert type(error) is StoreError and "hunter2" not in str(error.to_json())


@pytest.mark.parametrize(
    ("kind", "outage"),
    [
        (psycopg.errors.AdminShutdown, True),
        (psycopg.errors.ConnectionFailure, True),
        (psycopg.OperationalError, True),
        (psycopg.errors.UndefinedFunction, False),
        (psycopg.errors.ObjectInUse, False),
        (psycopg.errors.ConfigFileError, False),
    ],
)
def test_which_of_postgresqls_errors_are_outages(kind: type[psycopg.Error], outage: bool, tmp_path: Path) -> None:
    url = parse_url("postgresql://khotan@db.example.com/shop", tmp_path)
    assert isinstance(translate_error(kind("said"), url), DatabaseUnreachable) == outage


def test_a_server_that_speaks_another_language(tmp_path: Path) -> None:
    url = parse_url("postgresql://khotan@db.example.com/shop", tmp_path)
    missing = psycopg.errors.UndefinedTable("Relation »khotan_runs« existiert nicht")
    assert isinstance(translate_error(missing, url), DatabaseNotMigrated)
    error = translate_error(psycopg.errors.UndefinedTable("Relation »goods« existiert nicht"), url)
    assert type(error) is StoreError and "goods" in error.message
