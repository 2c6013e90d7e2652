"""Which keys are one is for the database to say: collations, padding, precision; and what becomes of equal ones."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import CHAR, Column, Computed, DateTime, ForeignKey, Numeric, String, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from khotan_cli.runtime import FlowContext, inflow, upsert
from khotan_cli.runtime.runs.environment import Environment
from tests.runtime.flows.conftest import Run, Shop, counts, rows_of
from tests.support.flows import Source


class Coded(SQLModel, table=True):
    """Declared as text. The real column is each test's own."""

    __tablename__ = "coded"  # pyright: ignore[reportAssignmentType]

    code: str = Field(primary_key=True)
    note: str | None = None


class Padded(SQLModel, table=True):
    __tablename__ = "padded"  # pyright: ignore[reportAssignmentType]

    code: str = Field(sa_column=Column(CHAR(5), primary_key=True))
    note: str | None = None


class Priced(SQLModel, table=True):
    __tablename__ = "priced"  # pyright: ignore[reportAssignmentType]

    code: Decimal = Field(sa_column=Column(Numeric(10, 2), primary_key=True))
    note: str | None = None


class Timed(SQLModel, table=True):
    __tablename__ = "timed"  # pyright: ignore[reportAssignmentType]

    code: datetime = Field(sa_column=Column(DateTime, primary_key=True))
    note: str | None = None


class Pair(SQLModel, table=True):
    __tablename__ = "pair"  # pyright: ignore[reportAssignmentType]

    code: str = Field(primary_key=True)
    place: str = Field(primary_key=True)
    note: str | None = None


class Node(SQLModel, table=True):
    __tablename__ = "node"  # pyright: ignore[reportAssignmentType]

    code: int = Field(primary_key=True)
    parent: int | None = Field(default=None, sa_column=Column(ForeignKey("node.code")))


class Named(SQLModel, table=True):
    __tablename__ = "named_rows"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("email"),)

    code: int = Field(primary_key=True)
    email: str = Field(sa_column=Column(String(40), nullable=False))
    nick: str | None = Field(default=None, unique=True)


class Generated(SQLModel, table=True):
    __tablename__ = "generated_rows"  # pyright: ignore[reportAssignmentType]

    code: int = Field(primary_key=True)
    twice: int | None = Field(default=None, sa_column=Column("twice", String, Computed("code * 2")))
    note: str | None = None


async def sql(host: Environment, *statements: str) -> None:
    async with host.database.writing() as session:
        for statement in statements:
            await session.execute(text(statement))


def syncing(shop: Shop, table: Any, key: Any = "code", **options: Any) -> Any:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_loose, into=table, key=key, **options)

    return items


PG, LITE = "postgresql", "sqlite"
REAL: list[Any] = [
    (Coded, PG, "CREATE TABLE coded (code CITEXT PRIMARY KEY, note TEXT)", ["Abc", "x"], ["ABC", "X"]),
    (Coded, PG, "CREATE TABLE coded (code CHAR(6) PRIMARY KEY, note TEXT)", ["a", "b  "], ["a ", "b"]),
    (Coded, PG, "CREATE TABLE coded (code VARCHAR(3) PRIMARY KEY, note TEXT)", ["abc  ", "d"], ["abc   ", "d"]),
    (Padded, PG, "CREATE TABLE padded (code CHAR(5) PRIMARY KEY, note TEXT)", ["a", "b "], ["a  ", "b"]),
    (Priced, PG, "CREATE TABLE priced (code NUMERIC(10,2) PRIMARY KEY, note TEXT)", ["1.001", 2], ["1", "2.00"]),
    (
        Timed,
        PG,
        "CREATE TABLE timed (code TIMESTAMP PRIMARY KEY, note TEXT)",
        ["2026-01-01T00:00:00.123456789", "2026-01-02T00:00:00"],
        ["2026-01-01T00:00:00.123456789", "2026-01-02 00:00:00"],
    ),
    (
        Timed,
        PG,
        "CREATE TABLE timed (code TIMESTAMPTZ PRIMARY KEY, note TEXT)",
        ["2026-01-01T00:00:00", "2026-07-02T00:00:00"],
        ["2026-01-01T00:00:00", "2026-07-02T00:00:00"],
    ),
    (Timed, PG, "CREATE TABLE timed (code TIMESTAMP(0) PRIMARY KEY, note TEXT)", ["2026-01-01T00:00:00.4"], None),
    (Coded, LITE, "CREATE TABLE coded (code TEXT COLLATE NOCASE PRIMARY KEY, note TEXT)", ["Abc", "x"], ["ABC", "X"]),
    (Coded, LITE, "CREATE TABLE coded (code TEXT COLLATE RTRIM PRIMARY KEY, note TEXT)", ["a", "b "], ["a ", "b"]),
]


@pytest.mark.parametrize(
    ("table", "dialect", "ddl", "first", "second"), REAL, ids=[f"{r[1]}-{r[2][13:40]}" for r in REAL]
)
async def test_what_came_is_not_deleted(
    run: Run,
    host: Environment,
    shop: Shop,
    source: Source,
    table: Any,
    dialect: str,
    ddl: str,
    first: list[Any],
    second: Any,
) -> None:
    if host.database.sqlite != (dialect == LITE):
        return
    setup = ["CREATE EXTENSION IF NOT EXISTS citext"] if "CITEXT" in ddl else []
    zone = [f"ALTER DATABASE {host.database.url.database} SET timezone TO 'America/New_York'"] if "STAMP" in ddl else []
    await sql(host, *setup, *zone, ddl)
    await host.database.dispose()
    items = syncing(shop, table, delete_missing=True)
    source.items = [{"code": code, "note": "n"} for code in first]
    assert counts(await run(items)) == {"extracted": len(first), "created": len(first)}
    for codes in (first, second or first):
        source.items = [{"code": code, "note": "n"} for code in codes]
        assert counts(await run(items)) == {"extracted": len(first), "skipped": len(first)}
    source.items = source.items[:1]
    if len(first) > 1:
        assert (await run(items)).deleted == len(first) - 1
    assert await rows_of(host, f"SELECT count(*) FROM {table.__tablename__}") == [(1,)]


@pytest.mark.parametrize("wins", ["first", "last"])
async def test_two_keys_that_the_database_takes_for_one(
    run: Run, host: Environment, shop: Shop, source: Source, wins: Any
) -> None:
    real = "TEXT COLLATE NOCASE" if host.database.sqlite else "CITEXT"
    if not host.database.sqlite:
        await sql(host, "CREATE EXTENSION IF NOT EXISTS citext")
    await sql(host, f"CREATE TABLE coded (code {real} PRIMARY KEY, note TEXT)")
    some = [{"code": f"x{number}", "note": "n"} for number in range(8)]
    source.items = [{"code": "abc", "note": "1"}, {"code": "ABC", "note": "2"}, *some, {"code": "aBc", "note": "3"}]
    row = await run(syncing(shop, Coded, dedupe=wins, delete_missing=True))
    assert (row.status, row.created, row.deleted) == ("completed", 9, 0)
    note = await rows_of(host, "SELECT note FROM coded WHERE code = 'abc'")
    assert note == [("1" if wins == "first" else "3",)]
    async with host.database.writing() as session:
        done = await upsert(session, Coded, [{"code": "Q", "note": "1"}, {"code": "q", "note": "2"}], key="code")
    assert done == (1, 0, 1)


async def test_keys_of_several_columns(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    real = "TEXT COLLATE NOCASE" if host.database.sqlite else "VARCHAR(20)"
    await sql(host, f"CREATE TABLE pair (code {real}, place {real}, note TEXT, PRIMARY KEY (code, place))")
    items = syncing(shop, Pair, ("code", "place"), delete_missing=True)
    source.items = [{"code": "a", "place": '"b"'}, {"code": 'a"', "place": "b"}, {"code": "c", "place": "d"}]
    await run(items)
    source.items = source.items[:2]
    assert counts(await run(items)) == {"extracted": 2, "skipped": 2, "deleted": 1}


async def test_a_field_that_was_not_sent_leaves_its_column_as_it_is(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    from pydantic import BaseModel

    class Item(BaseModel):
        code: str
        note: str = "default"

    class Page(BaseModel):
        data: list[Item]
        total: int

    from khotan_cli.runtime import get

    class Other(Shop):
        base_url = shop.base_url
        listed = get("/items", returns=Page)

    other = Other(name="shop")
    await sql(host, "CREATE TABLE coded (code VARCHAR(20) PRIMARY KEY, note TEXT)")
    unset: list[Any] = ["keep"]

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(other.listed, into=Coded, key="code", unset=unset[0])

    source.items = [{"code": "a", "note": "kept"}, {"code": "b", "note": "kept"}]
    await run(items)
    source.items = [{"code": "a"}, {"code": "b", "note": "new"}, {"code": "c"}]
    assert counts(await run(items)) == {"extracted": 3, "created": 1, "updated": 1, "skipped": 1}
    rows = await rows_of(host, "SELECT code, note FROM coded ORDER BY code")
    assert rows == [("a", "kept"), ("b", "new"), ("c", "default")]
    unset[0] = "default"
    await run(items)
    assert (await rows_of(host, "SELECT note FROM coded ORDER BY code"))[0] == ("default",)
    async with host.database.writing() as session:
        await upsert(session, Coded, [Item(code="b")], key="code")
        await upsert(session, Coded, [Item(code="c")], key="code", unset="default")
        await upsert(session, Coded, [Item(code="d")], key="code")
    rows = await rows_of(host, "SELECT code, note FROM coded WHERE code > 'a' ORDER BY code")
    assert rows == [("b", "new"), ("c", "default"), ("d", "default")]
    await other.aclose()


NAMED = "CREATE TABLE named_rows (code INTEGER PRIMARY KEY, email VARCHAR(40) NOT NULL UNIQUE, nick VARCHAR UNIQUE)"


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
async def test_unique_values_that_move_settle(
    run: Run, host: Environment, shop: Shop, source: Source, on_invalid: Any
) -> None:
    await sql(host, NAMED)
    items = syncing(shop, Named, delete_missing=True, on_invalid=on_invalid)
    source.items = [{"code": n, "email": f"{n}@x.example", "nick": f"n{n}"} for n in range(12)]
    assert (await run(items)).created == 12
    moved = [dict(item) for item in source.items[1:]]
    moved.append({"code": 99, "email": "0@x.example", "nick": "n0"})  # of a row that is gone
    moved[0]["email"], moved[5]["email"] = moved[5]["email"], moved[0]["email"]  # swapped in one page
    moved[1]["nick"], moved[10]["nick"] = moved[10]["nick"], moved[1]["nick"]  # over two pages
    moved[7]["email"], moved[8]["email"] = "new@x.example", moved[7]["email"]  # moved on
    source.items = moved
    row = await run(items)
    assert (row.status, row.created, row.deleted, row.failed) == ("completed", 1, 1, 0), row.error
    rows = await rows_of(host, "SELECT code, email, nick FROM named_rows ORDER BY code")
    assert rows == [(item["code"], item["email"], item["nick"]) for item in sorted(moved, key=lambda i: i["code"])]
    assert counts(await run(items)) == {"extracted": 12, "skipped": 12}


async def test_a_value_that_two_records_claim_is_refused_and_blocks_no_deletion(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    await sql(host, NAMED)
    items = syncing(shop, Named, delete_missing=True, on_invalid="skip")
    source.items = [{"code": 1, "email": "a"}, {"code": 2, "email": "b"}, {"code": 3, "email": "c"}]
    await run(items)
    source.items = [{"code": 1, "email": "a"}, {"code": 4, "email": "a"}, {"code": 2, "email": "b"}]
    row = await run(items)
    assert (row.status, row.failed, row.deleted) == ("partial", 1, 1)
    (reject,), _ = await host.runs.rejects(row.id)
    assert "unique" in reject.reason and reject.record["code"] == 4
    assert (await run(syncing(shop, Named, delete_missing=True))).status == "failed"


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
async def test_children_may_come_before_their_parents(
    run: Run, host: Environment, shop: Shop, source: Source, on_invalid: Any
) -> None:
    await sql(host, "CREATE TABLE node (code INTEGER PRIMARY KEY, parent INTEGER REFERENCES node (code))")
    items = syncing(shop, Node, delete_missing=True, max_delete=1.0, on_invalid=on_invalid)
    # Within a page, over pages, and in chains.
    source.items = [{"code": n, "parent": n + 1 if n < 24 else None} for n in range(25)]
    row = await run(items)
    assert (row.status, row.created) == ("completed", 25), row.error
    assert counts(await run(items)) == {"extracted": 25, "skipped": 25}
    source.items = source.items[-2:]
    assert (await run(items)).deleted == 23
    source.items = [{"code": 1, "parent": 777}]
    assert (await run(items)).status == ("failed" if on_invalid == "fail" else "partial")


async def test_many_rows_that_point_at_each_other_are_deleted(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    await sql(host, "CREATE TABLE node (code INTEGER PRIMARY KEY, parent INTEGER REFERENCES node (code))")
    values = ", ".join(f"({n}, {n - 1 if n else 'NULL'})" for n in range(3000))
    await sql(host, f"INSERT INTO node VALUES {values}")
    source.items = [{"code": 0, "parent": None}]
    assert (await run(syncing(shop, Node, delete_missing=True, max_delete=1.0))).deleted == 2999


async def test_a_partitioned_table(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    if host.database.sqlite:
        return
    await sql(
        host,
        "CREATE TABLE coded (code VARCHAR(20) PRIMARY KEY, note TEXT) PARTITION BY HASH (code)",
        "CREATE TABLE coded_0 PARTITION OF coded FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE coded_1 PARTITION OF coded FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    )
    items = syncing(shop, Coded, delete_missing=True)
    source.items = [{"code": f"c{n}", "note": "n"} for n in range(25)]
    assert counts(await run(items)) == {"extracted": 25, "created": 25}
    source.items = [*source.items[1:], {"code": "new", "note": "n"}]
    source.items[3] = {**source.items[3], "note": "changed"}
    assert counts(await run(items)) == {"extracted": 25, "created": 1, "updated": 1, "skipped": 23, "deleted": 1}


async def test_a_generated_column_in_the_record(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    stored = "GENERATED ALWAYS AS (code * 2) STORED"
    await sql(host, f"CREATE TABLE generated_rows (code INTEGER PRIMARY KEY, twice INTEGER {stored}, note TEXT)")
    source.items = [{"code": 2, "twice": 4, "note": "n"}]
    assert counts(await run(syncing(shop, Generated))) == {"extracted": 1, "created": 1}


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        ("CREATE TABLE coded (code VARCHAR(20), note TEXT)", "no unique constraint on the key"),
        (
            "CREATE TABLE coded (code VARCHAR(20) PRIMARY KEY, note TEXT GENERATED ALWAYS AS ('x') STORED)",
            "generated column",
        ),
    ],
)
async def test_a_table_that_is_not_as_its_model_says(
    run: Run, host: Environment, shop: Shop, source: Source, ddl: str, words: str
) -> None:
    await sql(host, ddl)
    source.items = [{"code": "a", "note": "n"}]
    row = await run(syncing(shop, Coded))
    assert row.status == "failed" and words in row.error["message"] and row.error["hint"], row.error
