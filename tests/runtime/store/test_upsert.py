"""Bulk upsert: what is created, changed, left alone; on both databases."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from sqlalchemy import JSON, BigInteger, Column, DateTime, LargeBinary, Numeric, UniqueConstraint, text
from sqlmodel import Field, SQLModel, col, select

from khotan_cli.errors import ConfigError, StoreError, UsageError
from khotan_cli.runtime import Upserted, upsert
from khotan_cli.runtime.database.database import Database


class Kind(Enum):
    SMALL = "small"
    LARGE = "large"


class Thing(SQLModel, table=True):
    __tablename__ = "thing s"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("tenant", "order"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    tenant: str
    order: int
    name: str | None = None
    price: Decimal | None = None
    day: date | None = None
    at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))
    kind: Kind = Kind.SMALL
    data: Any = Field(default=None, sa_column=Column("da%ta", JSON))
    raw: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    made: datetime = Field(default_factory=lambda: datetime.now(UTC), sa_column=Column(DateTime(timezone=True)))


class Plain(SQLModel, table=True):
    __tablename__ = "plain"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    name: str
    note: str | None = None


class Values(SQLModel, table=True):
    __tablename__ = "values"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    ratio: float | None = None
    big: int | None = Field(default=None, sa_column=Column(BigInteger))
    price: Decimal | None = Field(default=None, sa_column=Column(Numeric(30, 6)))
    kind: Kind = Kind.SMALL
    raw: bytes | None = Field(default=None, sa_column=Column(LargeBinary))


class Record(BaseModel):
    id: int
    name: str


KEY = ("tenant", "order")


@pytest.fixture
async def tables(database: Database) -> AsyncIterator[Database]:
    async with database.engine.begin() as connection:
        for name in ("thing s", "plain", "values"):
            await connection.run_sync(SQLModel.metadata.tables[name].create)
    yield database


def record(dice: random.Random, number: int) -> dict[str, Any]:
    return {
        "tenant": dice.choice(["a", "b", "ü"]),
        "order": number,
        "name": dice.choice([None, "plain", "with 'quotes\" and \\", "日本語", "line\nbreak", ""]),
        "price": dice.choice([None, Decimal("0.10"), Decimal("12345.678")]),
        "day": dice.choice([None, date(2026, 2, 28)]),
        "at": dice.choice([None, datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(seconds=number)]),
        "kind": dice.choice(list(Kind)),
        "data": dice.choice([None, {"a": [1, {"b": None}]}, [1, 2], "text"]),
        "raw": dice.choice([None, b"\x00\xff"]),
    }


async def stored(database: Database) -> dict[tuple[str, int], dict[str, Any]]:
    async with database.session() as session:
        found = (await session.execute(select(Thing))).scalars().all()
    return {(one.tenant, one.order): one.model_dump(exclude={"id", "made"}) for one in found}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, datetime) and isinstance(right, datetime):
        return left.replace(tzinfo=UTC) == right.replace(tzinfo=UTC)  # SQLite keeps no zone
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        return abs(left - right) < Decimal("1e-9")
    return bool(left == right)


async def test_random_batches_against_a_plain_dictionary(tables: Database) -> None:
    dice = random.Random(7)
    expected: dict[tuple[str, int], dict[str, Any]] = {}
    for _ in range(12):
        batch = [record(dice, dice.randint(1, 60)) for _ in range(dice.randint(0, 40))]
        distinct = {(one["tenant"], one["order"]): one for one in batch}
        created = [key for key in distinct if key not in expected]
        unchanged = [key for key, one in distinct.items() if key in expected and expected[key] == one]
        async with tables.writing() as session:
            done = await upsert(session, Thing, batch, key=KEY)
        expected |= distinct
        updated = len(distinct) - len(created) - len(unchanged)
        assert done == Upserted(len(created), updated, len(unchanged))
        found = await stored(tables)
        assert found.keys() == expected.keys()
        for key, one in expected.items():
            assert all(same(found[key][name], value) for name, value in one.items()), (found[key], one)


async def test_numbers_arrive_as_they_are(tables: Database) -> None:
    floats = [0.1, 1 / 3, 1.7976931348623157e308, 5e-324, -2.5e-10, 1e21, None]
    rows = [
        {"id": n, "ratio": value, "big": 2**63 - 1 - n, "price": Decimal("123456789.000001"), "raw": b"\x00\xff"}
        for n, value in enumerate(floats)
    ]
    for expected in (Upserted(len(rows), 0, 0), Upserted(0, 0, len(rows))):
        async with tables.writing() as session:
            assert await upsert(session, Values, rows, key="id") == expected
    async with tables.session() as session:
        found = (await session.execute(select(Values).order_by(col(Values.id)))).scalars().all()
    assert [(one.ratio, one.big, one.raw) for one in found] == [(r["ratio"], r["big"], r["raw"]) for r in rows]
    assert all(same(one.price, Decimal("123456789.000001")) for one in found)


async def test_json_keeps_the_order_of_its_keys(tables: Database) -> None:
    document = {"zebra": 1, "ant": {"b": 1, "a": [2.50, 1e5]}, "m": None}
    async with tables.writing() as session:
        await upsert(session, Thing, [{"tenant": "a", "order": 1, "data": document}], key=KEY)
    async with tables.session() as session:
        found = (await session.execute(select(Thing))).scalars().one()
    assert list(found.data) == ["zebra", "ant", "m"]
    assert list(found.data["ant"]) == ["b", "a"]


async def test_an_unchanged_run_rewrites_no_row(tables: Database) -> None:
    rows = [{"id": number, "name": f"n{number}"} for number in range(2500)]
    asked = (
        "SELECT id, rowid FROM plain" if tables.sqlite else "SELECT id, xmin::text, xmax::text, ctid::text FROM plain"
    )

    async def seen() -> list[Any]:
        async with tables.session() as session:
            return sorted(tuple(row) for row in (await session.execute(text(asked))).all())

    async with tables.writing() as session:
        assert await upsert(session, Plain, rows, key="id") == (2500, 0, 0)
    before = await seen()
    async with tables.writing() as session:
        assert await upsert(session, Plain, rows, key="id") == (0, 0, 2500)
        if tables.sqlite:
            changes = (await session.execute(text("SELECT total_changes()"))).scalar()
            assert (await session.execute(text("SELECT changes()"))).scalar() in (0, 1, changes)
    assert await seen() == before


async def test_columns_that_records_do_not_have(tables: Database) -> None:
    async with tables.writing() as session:
        await upsert(session, Plain, [{"id": 1, "name": "a", "note": "kept"}], key="id")
        done = await upsert(session, Plain, [Record(id=1, name="b"), Record(id=2, name="c")], key="id")
        assert done == (1, 1, 0)
        found = (await session.execute(text("SELECT id, name, note FROM plain ORDER BY id"))).all()
    assert [tuple(row) for row in found] == [(1, "b", "kept"), (2, "c", None)]


async def test_columns_that_are_set_once(tables: Database) -> None:
    async with tables.writing() as session:
        await upsert(session, Plain, [{"id": 1, "name": "a", "note": "x"}], key="id")
        changed = [{"id": 1, "name": "b", "note": "x"}]
        assert await upsert(session, Plain, changed, key="id", exclude_on_update=["name"]) == (0, 0, 1)
        changed[0]["note"] = "y"
        assert await upsert(session, Plain, changed, key="id", exclude_on_update=["name"]) == (0, 1, 0)
        assert tuple((await session.execute(text("SELECT name, note FROM plain"))).one()) == ("a", "y")


async def test_defaults_are_filled_in_when_a_row_is_made_only(tables: Database) -> None:
    one = {"tenant": "a", "order": 1, "name": "x"}
    async with tables.writing() as session:
        await upsert(session, Thing, [one], key=KEY)
        asked = text('SELECT id, made, kind FROM "thing s"')
        first = tuple((await session.execute(asked)).one())
        await upsert(session, Thing, [{**one, "name": "y"}], key=KEY)
        assert tuple((await session.execute(asked)).one()) == first
    assert None not in first and first[2] == "SMALL"


async def test_nothing_and_a_transaction_that_is_rolled_back(tables: Database) -> None:
    async with tables.writing() as session:
        assert await upsert(session, Plain, [], key="id") == (0, 0, 0)
        await upsert(session, Plain, [{"id": 1, "name": "a"}], key="id")
        await session.rollback()
    async with tables.session() as session:
        assert (await session.execute(text("SELECT count(*) FROM plain"))).scalar() == 0


async def test_two_at_once_on_the_same_keys(tables: Database) -> None:
    async def work(name: str) -> int:
        created = 0
        for start in range(0, 400, 100):
            async with tables.writing() as session:
                rows = [{"id": number, "name": name} for number in range(start, start + 100)]
                created += (await upsert(session, Plain, rows, key="id")).created
        return created

    assert sum(await asyncio.gather(work("a"), work("b"), work("c"))) == 400


@pytest.mark.parametrize(
    ("model", "records", "key", "error", "words"),
    [
        (Plain, [{"id": 1, "name": "x", "nots": 1}], "id", ConfigError, "no column 'nots'"),
        (Plain, [{"id": 1}], "id", ConfigError, "plain.name is required"),
        (Plain, [{"id": 1, "name": "x"}], "name", ConfigError, "not unique"),
        (Plain, [{"id": 1, "name": "x"}], (), ConfigError, "Missing key"),
        (
            Plain,
            [{"id": 1, "name": "x"}, {"id": None, "name": "y"}],
            "id",
            UsageError,
            "Record 1 has no value for the key field 'id'",
        ),
        (Plain, [{"name": "y"}], "id", UsageError, "Record 0 has no value for the key field 'id'"),
        (Record, [{"id": 1, "name": "x"}], "id", ConfigError, "is not a table"),
    ],
)
async def test_what_does_not_fit(
    tables: Database, model: Any, records: Any, key: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words.replace("(", r"\(")):
        async with tables.writing() as session:
            await upsert(session, model, records, key=key)


async def test_a_nul_character_is_said_before_postgresql_chokes(tables: Database) -> None:
    if tables.sqlite:
        return
    with pytest.raises(StoreError, match="NUL"):
        async with tables.writing() as session:
            await upsert(session, Plain, [{"id": 1, "name": "a\x00b"}], key="id")


async def test_a_text_that_speaks_of_a_nul_holds_none(tables: Database) -> None:
    texts = ["a\\u0000b", "\\\\u0000"]
    async with tables.writing() as session:
        await upsert(session, Plain, [{"id": n, "name": name} for n, name in enumerate(texts)], key="id")
        assert (await session.execute(text("SELECT name FROM plain ORDER BY id"))).scalars().all() == texts
