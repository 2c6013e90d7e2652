"""Loose records: both databases take the same values, store the same, and say which column takes none."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import JSON, BigInteger, Column, DateTime, Index, LargeBinary, Numeric, String, func, text
from sqlalchemy import Enum as EnumType
from sqlmodel import Field, SQLModel, col, select

from khotan_cli.errors import ConfigError, KhotanError, UsageError, ValueRefused
from khotan_cli.runtime import upsert
from khotan_cli.runtime.database.database import Database

NOON = datetime(2026, 1, 2, 12, tzinfo=timezone(timedelta(hours=2)))


class State(StrEnum):
    ACTIVE = "active"
    GONE = "gone"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Other(Enum):
    ON = "active"


class Loose(SQLModel, table=True):
    __tablename__ = "loose"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    number: int | None = None
    big: int | None = Field(default=None, sa_column=Column(BigInteger))
    ratio: float | None = None
    price: Decimal | None = Field(default=None, sa_column=Column(Numeric(12, 3)))
    flag: bool | None = None
    name: str | None = None
    state: State | None = None
    stored: State | None = Field(
        default=None,
        sa_column=Column(EnumType(State, name="stored", values_callable=lambda kind: [one.value for one in kind])),
    )
    word: str | None = Field(default=None, sa_column=Column(EnumType("up", "down", name="word")))
    size: Size | None = None
    day: date | None = None
    at: datetime | None = None
    wall: datetime | None = Field(default=None, sa_column=Column(DateTime))
    uid: UUID | None = None
    code: str | None = Field(default=None, sa_column=Column(String(3)))
    raw: bytes | None = Field(default=None, sa_column=Column("raw bytes", LargeBinary))
    extra: Any = Field(default=None, sa_column=Column(JSON))


class Named(SQLModel, table=True):
    __tablename__ = "named"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True)
    note: str | None = None


class Dated(SQLModel, table=True):
    __tablename__ = "dated"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    made: datetime = Field(default_factory=lambda: NOON, sa_column=Column(DateTime(timezone=True)))
    local: datetime = Field(default_factory=lambda: NOON, sa_column=Column(DateTime))


class Partial(SQLModel, table=True):
    __tablename__ = "partial"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_code", "code", unique=True, sqlite_where=text("code > 0"), postgresql_where=text("code > 0")),
    )

    id: int = Field(primary_key=True)
    code: int
    sku: str


Index("ix_lower_sku", func.lower(col(Partial.sku)), unique=True)


@pytest.fixture
async def tables(database: Database) -> AsyncIterator[Database]:
    async with database.engine.begin() as connection:
        for model in (Loose, Named, Dated):
            await connection.run_sync(SQLModel.metadata.tables[str(model.__tablename__)].create)
    yield database


async def write(database: Database, *records: Any, model: Any = Loose, key: str = "id") -> None:
    async with database.writing() as session:
        await upsert(session, model, records, key=key)


TAKEN: list[tuple[str, Any, Any]] = [
    ("number", 7, 7), ("number", "7", 7), ("number", " -7 ", -7), ("number", "007", 7), ("number", Size.LARGE, 2),
    ("number", Decimal(7), 7), ("big", 2**63 - 1, 2**63 - 1), ("big", str(2**40), 2**40),
    ("ratio", 1, 1.0), ("ratio", "1.5e3", 1500.0), ("ratio", Decimal("0.5"), 0.5), ("price", "1.5", Decimal("1.500")),
    ("price", 2, Decimal(2)), ("price", 2.5, Decimal("2.5")), ("flag", True, True), ("flag", 0, False),
    ("flag", "yes", True), ("flag", "F", False), ("flag", " off ", False),
    ("name", 7, "7"), ("name", 1.5, "1.5"), ("name", True, "true"), ("name", State.GONE, "gone"),
    ("name", UUID(int=7), str(UUID(int=7))), ("name", date(2026, 1, 2), "2026-01-02"), ("name", "", ""),
    ("state", State.ACTIVE, State.ACTIVE), ("state", "ACTIVE", State.ACTIVE), ("state", "active", State.ACTIVE),
    ("state", Other.ON, State.ACTIVE), ("stored", State.GONE, State.GONE), ("stored", "GONE", State.GONE),
    ("stored", "gone", State.GONE), ("word", "up", "up"), ("size", 2, Size.LARGE), ("size", "LARGE", Size.LARGE),
    ("size", Size.SMALL, Size.SMALL), ("day", "2026-01-02", date(2026, 1, 2)),
    ("wall", "2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 3, 4, 5)),
    ("at", "2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
    ("uid", str(UUID(int=7)).upper(), UUID(int=7)),
    ("raw", b"\x00\xff", b"\x00\xff"),
]  # fmt: skip


async def test_what_columns_take(tables: Database) -> None:
    for name, value, kept in TAKEN:
        await write(tables, {"id": 1, name: value}, {"id": 2, name: None})
        async with tables.session() as session:
            found = (await session.execute(select(Loose).order_by(col(Loose.id)))).scalars().all()
        assert [getattr(one, name) for one in found] == [kept, None], (name, value)
        assert type(getattr(found[0], name)) is type(kept), (name, value)


async def test_a_value_that_was_read_is_no_change(tables: Database) -> None:
    for name, value, _ in TAKEN:
        await write(tables, {"id": 1, name: value})
        async with tables.writing() as session:
            assert await upsert(session, Loose, [{"id": 1, name: value}], key="id") == (0, 0, 1), (name, value)


REFUSED: list[tuple[str, Any]] = [
    ("number", "abc"), ("number", 2.5), ("number", 2.0), ("number", "2.0"), ("number", True), ("number", ""),
    ("number", Decimal("2.0")), ("number", [1]), ("number", {"a": 1}), ("number", date(2026, 1, 2)),
    ("number", 2**70), ("number", -(2**70)), ("number", str(2**70)), ("big", 2**63), ("ratio", "abc"), ("ratio", True),
    ("ratio", []), ("price", "abc"), ("price", True), ("price", {}), ("flag", "maybe"), ("flag", 2), ("flag", 1.0),
    ("name", "a\ud800"), ("state", "green"), ("state", 1), ("state", ["active"]), ("stored", "moved"), ("word", "left"),
    ("size", 3), ("size", "huge"), ("day", "soon"), ("day", 7.5), ("at", "soon"), ("uid", "abc"), ("uid", 7),
    ("wall", "soon"), ("wall", 7), ("wall", "17"), ("day", 86400), ("at", datetime(2026, 1, 2)),
]  # fmt: skip


async def test_defaults_are_read_as_records_are(tables: Database) -> None:
    await write(tables, {"id": 1}, model=Dated)
    await write(tables, {"id": 2, "made": NOON, "local": NOON}, model=Dated)
    async with tables.session() as session:
        found = (await session.execute(select(Dated))).scalars().all()
    for one in found:
        assert (one.made.replace(tzinfo=None).hour if tables.sqlite else one.made.astimezone(UTC).hour) == 10
        assert one.local == datetime(2026, 1, 2, 12)


async def test_what_columns_do_not_take(tables: Database) -> None:
    for name, value in REFUSED:
        try:
            await write(tables, {"id": 1, name: None}, {"id": 2, name: value})
        except ValueRefused as error:
            assert error.message.startswith(f"Invalid value for loose.{name}: "), error
            assert error.hint and (not isinstance(value, str) or not value or value not in error.message)
        else:
            pytest.fail(f"{name} took {value!r}")
    async with tables.session() as session:
        assert (await session.execute(select(func.count()).select_from(Loose))).scalar() == 0


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("number", 2**40, "BigInteger"),
        ("number", -(2**31) - 1, "BigInteger"),
        ("code", "long", "longer column"),
        ("price", 10**9, "Numeric(20"),
    ],
)
async def test_a_column_that_is_too_narrow_refuses_on_both(tables: Database, name: str, value: Any, hint: str) -> None:
    with pytest.raises(ValueRefused, match=rf"Invalid value for loose.{name}") as caught:
        await write(tables, {"id": 1}, {"id": 2, name: value})
    assert hint in caught.value.hint


async def test_a_nul_is_for_sqlite_alone(tables: Database) -> None:
    if tables.sqlite:
        await write(tables, {"id": 1, "name": "a\x00"})
        return
    with pytest.raises(ValueRefused, match=r"Invalid value for loose.name"):
        await write(tables, {"id": 1, "name": "a\x00"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ratio", math.nan),
        ("ratio", "nan"),
        ("price", math.inf),
        ("price", Decimal("NaN")),
        ("extra", {"a": [math.inf]}),
        ("extra", math.nan),
        ("number", 10**30),
        ("wall", "infinity"),
        ("at", "today"),
        ("day", "epoch"),
    ],
)
async def test_what_one_database_cannot_hold_both_refuse(tables: Database, name: str, value: Any) -> None:
    with pytest.raises(ValueRefused, match=rf"loose\.{name}"):
        await write(tables, {"id": 1}, {"id": 2, name: value})


async def test_what_both_databases_hold_exactly(tables: Database) -> None:
    values = {"ratio": math.inf, "price": 10**8, "extra": {"big": 10**30, "none": None}}
    await write(tables, {"id": 1, **values}, {"id": 2, "ratio": -math.inf, "price": None, "extra": None})
    async with tables.session() as session:
        found = select(col(Loose.ratio), col(Loose.price), col(Loose.extra)).order_by(col(Loose.id))
        rows = (await session.execute(found)).all()
        nulls = (await session.execute(text("SELECT count(*) FROM loose WHERE extra IS NULL"))).scalar()
    assert [tuple(row) for row in rows] == [tuple(values.values()), (-math.inf, None, None)] and nulls == 1


async def test_a_record_that_is_none(tables: Database) -> None:
    for record in (5, None, "text", [("id", 1)], object()):
        with pytest.raises(UsageError, match=r"Record 1 must be a mapping or a model"):
            await write(tables, {"id": 1}, record)


@pytest.mark.parametrize(("model", "key"), [(Named, "name"), (Loose, "id")])
async def test_a_key_that_cannot_be_compared(tables: Database, model: Any, key: str) -> None:
    for value in (["x"], {"a": 1}, {"x"}):
        with pytest.raises(UsageError, match=rf"Record 1: .*{key!r}"):
            await write(tables, {key: "1"}, {key: value}, model=model, key=key)


async def test_a_field_whose_name_is_no_text(tables: Database) -> None:
    with pytest.raises(ConfigError, match="has no column 7"):
        await write(tables, {"id": 1, 7: 1})


async def test_two_ways_to_write_a_key_down_are_one(tables: Database) -> None:
    async with tables.writing() as session:
        done = await upsert(session, Named, [{"name": 7, "note": "a"}, {"name": "7", "note": "b"}], key="name")
    assert done == (1, 0, 0)


async def test_a_moment_at_the_edge_of_the_calendar_is_a_key(tables: Database) -> None:
    edge = datetime.min.replace(tzinfo=timezone(timedelta(hours=2)))
    with pytest.raises(KhotanError):
        await write(tables, {"id": edge})


@pytest.mark.parametrize("key", ["code", "sku"])
async def test_an_index_over_some_rows_or_of_an_expression_is_no_key(database: Database, key: str) -> None:
    with pytest.raises(ConfigError, match=f"key {key} of partial is not unique"):
        await write(database, {"id": 1, "code": 1, "sku": "x"}, model=Partial, key=key)
