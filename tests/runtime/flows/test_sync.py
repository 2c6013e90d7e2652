"""ctx.sync: pages into a table."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from sqlalchemy import DateTime, Numeric, Uuid, text, true
from sqlmodel import Field, SQLModel

from khotan_cli.errors import DatabaseBusy
from khotan_cli.runtime import FlowContext, KhotanError, OffsetPaginator, inflow, step
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.runs import Reject, RunStore
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.execution import execute
from tests.runtime.flows.conftest import ItemRow, Run, Shop, counts, rows_of
from tests.support.flows import Source, some_items
from tests.support.loopback import as_json


async def test_counters_come_from_the_database(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id")

    source.items = some_items(25)
    assert counts(await run(items)) == {"extracted": 25, "created": 25}
    assert counts(await run(items)) == {"extracted": 25, "skipped": 25}
    source.items = [*some_items(25)[1:], {"id": 99, "name": "new", "price": 1}]
    source.items[3]["name"] = "renamed"
    assert counts(await run(items)) == {"extracted": 25, "created": 1, "updated": 1, "skipped": 23}
    rows = await rows_of(host)
    assert len(rows) == 26 and rows[4] == (4, "renamed", 1.0) and rows[-1] == (99, "new", 1.0)


async def test_a_transform_changes_leaves_out_and_may_raise(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    def cleaned(item: Any) -> dict[str, Any] | None:
        if item.id == 1:
            return None
        if item.id == 2:
            raise ValueError("odd")
        return {"id": item.id, "name": item.name.upper(), "price": item.price}

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", transform=cleaned, on_invalid="skip")

    source.items = some_items(4)
    row = await run(items)
    assert (row.status, counts(row)) == (
        "partial",
        {"extracted": 4, "transformed": 2, "created": 2, "skipped": 1, "failed": 1},
    )
    assert await rows_of(host) == [(0, "ITEM 0", 0.0), (3, "ITEM 3", 0.75)]
    rejects, total = await host.runs.rejects(row.id)
    assert total == 1 and rejects[0].reason == "record 2: ValueError: odd" and rejects[0].record["id"] == 2


async def test_a_record_that_no_database_takes_is_kept_to_be_read(run: Run, host: Environment, shop: Shop) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await ctx.progress(1, 2, "a\x00b")

    row = await run(flow)
    assert row.progress["message"] == "a\ufffdb"
    async with host.database.writing() as session:
        record = {"a\x00": float("nan"), "b": ["\ud800", None, 1.5]}
        await host.runs.reject(session, row.id, [Reject("sync", "no \x00", record)])
    (kept,), _ = await host.runs.rejects(row.id)
    assert (kept.reason, kept.record) == ("no \ufffd", {"a\ufffd": "nan", "b": ["\ufffd", None, 1.5]})


@pytest.mark.parametrize(("wins", "name"), [("first", "a"), ("last", "c")])
async def test_which_of_several_wins(
    run: Run, host: Environment, shop: Shop, source: Source, wins: Any, name: str
) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", dedupe=wins)

    first = [{"id": 1, "name": "a", "price": 1}, {"id": 1, "name": "b", "price": 1}]
    source.items = [*first, *some_items(30)[10:19], {"id": 1, "name": "c", "price": 1}]
    row = await run(items)
    assert row.extracted == 12 and row.created == 10
    assert next(row for row in await rows_of(host) if row[0] == 1)[1] == name


async def test_columns_set_once(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", exclude_on_update=["name"])

    source.items = some_items(2)
    await run(items)
    source.items = [{"id": 0, "name": "other", "price": 0}, {"id": 1, "name": "other", "price": 9}]
    assert counts(await run(items)) == {"extracted": 2, "updated": 1, "skipped": 1}
    assert await rows_of(host) == [(0, "item 0", 0.0), (1, "item 1", 9.0)]


async def test_what_did_not_come_is_deleted_after_a_complete_pass_only(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        where = ItemRow.id < 50 if ctx.body == "below 50" else None
        await ctx.sync(
            shop.list_items,
            into=ItemRow,
            key="id",
            delete_missing=True,
            delete_where=where,
            on_invalid="skip",
            allow_empty=ctx.body == "empty",
        )

    source.items = some_items(60)
    await run(items)
    source.items = some_items(60)[1:]
    assert counts(await run(items)) == {"extracted": 59, "skipped": 59, "deleted": 1}
    source.items = some_items(60)[2:59]
    assert (await run(items, body="below 50")).deleted == 1
    assert {row[0] for row in await rows_of(host)} == set(range(2, 60))
    source.answers = {10: lambda: as_json({"data": [{"id": "x"}], "total": 57})}
    assert counts(await run(items)).get("deleted") is None
    source.answers = {}
    source.items = []
    assert (await run(items)).deleted == 0
    assert len(await rows_of(host)) == 58
    assert (await run(items, body="empty")).deleted == 58


async def test_nothing_is_deleted_after_a_resume_with_another_filter(
    host: Environment, shop: Shop, source: Source, run: Run
) -> None:
    filters = iter(["a", "b"])

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(
            shop.list_items,
            into=ItemRow,
            key="id",
            params={"since": next(filters)},
            delete_missing=True,
            delete_where=true(),
        )

    source.items = some_items(30)
    drop = source.answers
    drop[20] = lambda: as_json({"error": "down"}, 500)
    host.flows["items"] = items  # type: ignore[index]
    async with host.database.writing() as session:
        await session.execute(text("INSERT INTO items (id, name, price) VALUES (777, 'old', 1)"))
    dispatcher = Dispatcher(host)
    run_id = await dispatcher.trigger("items")
    await execute(host, run_id)
    drop.clear()
    again = await dispatcher.retry(run_id, "3")
    await execute(host, again)
    row = await host.runs.get(again)
    assert row is not None
    assert (row.status, row.created, row.deleted) == ("completed", 30, 0)
    assert (777, "old", 1.0) in await rows_of(host)
    assert "not complete" in (await host.runs.updates(again))[0].message


async def test_a_bounded_walk_is_no_complete_pass(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    bounded = shop.with_options(paginator=OffsetPaginator(limit=10, total="total", max_pages=2))

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id")
        await ctx.sync(bounded.list_items, into=ItemRow, key="id", delete_missing=True)

    source.items = some_items(50)
    row = await run(items)
    assert (row.extracted, row.deleted) == (70, 0)


async def test_untyped_items_and_no_prefetch(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        done = await ctx.sync(shop.list_loose, into=ItemRow, key="id", prefetch=False)
        assert (done.pages, done.complete, done.created) == (3, True, 21)

    source.items = [{**item, "more": {"a": 1}} for item in some_items(21)]
    assert counts(await run(items)) == {"extracted": 21, "created": 21}


class Colour(str, Enum):  # noqa: UP042 - as str() of it tells another text than its value
    RED = "red"
    BLUE = "blue"


class OddKeyRow(SQLModel, table=True):
    __tablename__ = "odd_keys"  # pyright: ignore[reportAssignmentType]

    code: str = Field(primary_key=True)
    uid: uuid.UUID = Field(sa_type=Uuid, unique=True)
    at: datetime = Field(sa_type=DateTime(timezone=False), unique=True)
    ratio: float = Field(unique=True)
    amount: Decimal = Field(sa_type=Numeric(10, 2), unique=True)
    number: int = Field(unique=True)


ODD_KEYS: dict[str, list[Any]] = {
    "code": [Colour.RED, Colour.BLUE],
    "uid": ["6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6BA7B811-9DAD-11D1-80B4-00C04FD430C8"],
    "at": [datetime(2026, 1, 1, 12, tzinfo=UTC), "2026-01-02T12:00:00"],
    "ratio": [1, 2.5],
    "amount": [1, "2.50"],
    "number": ["1", "2"],
}


@pytest.mark.parametrize("key", list(ODD_KEYS))
async def test_a_key_of_another_type_than_its_column_is_still_that_rows(
    run: Run, host: Environment, shop: Shop, source: Source, key: str
) -> None:
    """What came is not taken for missing because its key is written down differently."""
    plain = {
        "code": "c0",
        "uid": uuid.UUID(int=7),
        "at": datetime(2025, 1, 1),
        "ratio": 0.5,
        "amount": Decimal("0.50"),
        "number": 7,
    }
    records = [{**plain, "code": f"c{n}", **_moved(plain, n), key: value} for n, value in enumerate(ODD_KEYS[key])]

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.ensure_table(OddKeyRow)
        await ctx.sync(
            shop.list_loose,
            into=OddKeyRow,
            key=key,
            transform=lambda item: records[item["id"]] if item["id"] < 2 else {**plain, "code": "gone"},
            delete_missing=True,
        )

    source.items = some_items(3)
    row = await run(items)
    assert (row.status, counts(row)) == ("completed", {"extracted": 3, "transformed": 3, "created": 3}), row.error
    source.items = some_items(2)
    assert counts(await run(items)) == {"extracted": 2, "transformed": 2, "skipped": 2, "deleted": 1}


def _moved(plain: dict[str, Any], n: int) -> dict[str, Any]:
    """Other values for the other unique columns."""
    return {
        "uid": uuid.UUID(int=100 + n),
        "at": datetime(2025, 2, 1 + n),
        "ratio": plain["ratio"] + 100 + n,
        "amount": plain["amount"] + 100 + n,
        "number": plain["number"] + 100 + n,
    }


@pytest.mark.parametrize("option", ["delete_missing", "dedupe"])
async def test_a_retry_from_a_step_knows_the_keys_of_the_steps_before(
    run: Run, host: Environment, shop: Shop, source: Source, option: str
) -> None:
    options: dict[str, Any] = {"dedupe": "first"} if option == "dedupe" else {"delete_missing": True}
    broken = True

    def checked(item: Any) -> Any:
        if broken and item.id == 25:
            raise ValueError("odd")
        return item

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", transform=checked, **options)

    async with host.database.writing() as session:
        await session.execute(text("INSERT INTO items (id, name, price) VALUES (777, 'gone', 1)"))
    source.items = [*some_items(30), {"id": 3, "name": "second", "price": 9}]
    failed = await run(items)
    assert (failed.status, failed.created) == ("failed", 20)
    broken = False
    dispatcher = Dispatcher(host)
    again = await dispatcher.retry(failed.id, "3")
    assert await execute(host, again) == "completed"
    row = await host.runs.get(again)
    assert row is not None
    if option == "dedupe":
        assert counts(row) == {"extracted": 31, "transformed": 30, "created": 30, "skipped": 1}
        assert (3, "item 3", 0.75) in await rows_of(host)
        return
    assert counts(row) == {"extracted": 31, "transformed": 31, "created": 30, "updated": 1, "deleted": 1}
    assert len(await rows_of(host)) == 30
    # The keys of a completed run have been forgotten.
    source.items = some_items(30)
    late = await dispatcher.retry(again, "3")
    assert await execute(host, late) == "completed"
    assert len(await rows_of(host)) == 30
    assert "not complete" in (await host.runs.updates(late))[0].message


class NamedRow(SQLModel, table=True):
    __tablename__ = "named_items"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    name: str = Field(unique=True)
    price: float


async def test_nothing_is_deleted_after_a_resume_with_another_key(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    keys, fail = iter(["id", "name"]), [True]

    def checked(item: Any) -> Any:
        if fail[0] and item.id == 25:
            raise ValueError("odd")
        return item

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.ensure_table(NamedRow)
        await ctx.sync(shop.list_items, into=NamedRow, key=next(keys), transform=checked, delete_missing=True)

    source.items = some_items(30)
    failed = await run(items)
    fail[0] = False
    again = await Dispatcher(host).retry(failed.id, "4")
    assert await execute(host, again) == "completed"
    assert await rows_of(host, "SELECT count(*) FROM named_items") == [(30,)]


async def test_a_transform_that_leaves_everything_out_empties_no_table(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        keep = (lambda item: item) if ctx.body is None else (lambda item: None)
        await ctx.sync(
            shop.list_items,
            into=ItemRow,
            key="id",
            transform=keep,
            delete_missing=True,
            allow_empty=ctx.body == "all",
        )

    source.items = some_items(12)
    await run(items)
    row = await run(items, body="none")
    assert (row.skipped, row.deleted) == (12, 0)
    assert "every record was skipped" in (await host.runs.updates(row.id))[0].message
    assert (await run(items, body="all")).deleted == 12


class StrictRow(SQLModel, table=True):
    __tablename__ = "strict"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    name: str
    code: int = Field(unique=True)


@pytest.mark.parametrize("mode", ["skip", "fail"])
async def test_a_record_that_the_table_refuses_holds_up_no_other(
    run: Run, host: Environment, shop: Shop, source: Source, mode: Any
) -> None:
    odd: dict[int, dict[str, Any]] = {3: {"name": None}, 7: {"id": None}, 12: {"code": 11}, 18: {"code": 2**70}}

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.ensure_table(StrictRow)
        await ctx.sync(
            shop.list_items,
            into=StrictRow,
            key="id",
            transform=lambda item: {"id": item.id, "name": item.name, "code": item.id, **odd.get(item.id, {})},
            on_invalid=mode,
        )

    source.items = some_items(25)
    row = await run(items)
    if mode == "fail":
        assert row.status == "failed"
        return
    assert (row.status, row.error) == ("partial", None)
    assert counts(row) == {"extracted": 25, "transformed": 21, "created": 21, "failed": 4}
    rejects, total = await host.runs.rejects(row.id)
    assert total == 4 and {str(reject.record["name"]) for reject in rejects} == {"None", "item 7", "item 12", "item 18"}
    assert await rows_of(host, "SELECT count(*) FROM strict") == [(21,)]
    assert counts(await run(items)) == {"extracted": 25, "transformed": 21, "skipped": 21, "failed": 4}


class LinkedRow(SQLModel, table=True):
    __tablename__ = "linked"  # pyright: ignore[reportAssignmentType]

    id: int | None = Field(default=None, primary_key=True)
    remote_id: int | None = Field(default=None, unique=True)
    name: str


async def test_rows_that_never_had_a_key_are_not_missing(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.ensure_table(LinkedRow)
        await ctx.sync(
            shop.list_items,
            into=LinkedRow,
            key="remote_id",
            transform=lambda item: {"remote_id": item.id, "name": item.name},
            delete_missing=True,
        )

    source.items = some_items(3)
    await run(items)
    async with host.database.writing() as session:
        await session.execute(text("INSERT INTO linked (name) VALUES ('not sent yet')"))
    source.items = some_items(2)
    assert (await run(items)).deleted == 1
    assert await rows_of(host, "SELECT name FROM linked ORDER BY name") == [("item 0",), ("item 1",), ("not sent yet",)]


async def test_a_table_in_which_nothing_is_found_again_is_left_alone(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    """Something else moves the rows while they come: what is missing is then not known."""

    @step()
    async def move(ctx: FlowContext) -> None:
        async with ctx.session() as session:
            await session.execute(text("UPDATE items SET id = id + 1000"))

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id")
        await move(ctx)
        await ctx.sync(shop.list_items, into=ItemRow, key="id", delete_missing=True, delete_where=ItemRow.id >= 1000)

    source.items = some_items(3)
    row = await run(items)
    assert (row.status, row.deleted, len(await rows_of(host))) == ("completed", 0, 6)
    assert "no row of the table has a key that the source returned" in (await host.runs.updates(row.id))[0].message


async def test_a_page_that_is_written_again_is_counted_once(
    run: Run, host: Environment, shop: Shop, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database gives up the second page's transaction: the records left out of it are still counted."""
    store, pages = RunStore.record, 0

    async def busy_once(*args: Any, **options: Any) -> bool:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise DatabaseBusy("gave up")
        return await store(*args, **options)

    monkeypatch.setattr(RunStore, "record", busy_once)

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", dedupe="first", prefetch=False)

    source.items = [*some_items(10), *some_items(5)]
    assert counts(await run(items)) == {"extracted": 15, "created": 10, "skipped": 5}
    assert pages == 3


class NoKey(SQLModel, table=True):
    __tablename__ = "no_key"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    name: str
    must: str


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        (NoKey, {"key": "name"}, "not unique"),
        (NoKey, {"key": "nam"}, "no column 'nam'"),
        (NoKey, {"key": "id"}, "no_key.must is required"),
        (dict, {"key": "id"}, "is not a table"),
        (ItemRow, {"key": "id", "exclude_on_update": ["nmae"]}, "no column 'nmae'"),
        (ItemRow, {"key": "id", "delete_where": True}, "delete_missing"),
        (ItemRow, {"key": "id", "dedupe": "best"}, "first or last"),
    ],
)
async def test_what_cannot_fit_is_said(
    run: Run, shop: Shop, source: Source, table: Any, options: dict[str, Any], words: str
) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=table, **options)

    source.items = some_items(1)
    row = await run(items)
    assert row.status == "failed" and words in row.error["message"], row.error
    assert row.error["error"] in ("config_invalid", "invalid_input")


async def test_an_id_that_belongs_to_another_key_holds_up_no_other_record(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @inflow(shop, resource="goods")
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", on_invalid=ctx.body)

    source.items = some_items(5)
    assert (await run(items, body="skip")).status == "completed"
    source.items[3] = {"id": 3, "name": "renamed", "price": 1}
    source.items[4] = {"id": 4, "name": "item 4", "price": 99}
    failed = await run(items, body="fail")
    assert failed.error["error"] == "mapping_conflict"
    row = await run(items, body="skip")
    assert (row.status, row.updated, row.failed) == ("partial", 2, 1)
    rejects, total = await host.runs.rejects(row.id)
    assert total == 1 and rejects[0].record["name"] == "renamed" and "'3'" in rejects[0].reason
    found = await host.mappings.by_keys("goods", ["item 3", "renamed", "item 4"])
    assert set(found) == {"item 3", "item 4"}


async def test_mappings_are_kept_for_a_flow_with_a_resource(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @inflow(shop, resource="goods")
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id")
        found = await ctx.mapping("goods").lookup("item 3")
        assert found is not None and found.refs == {"shop": "3"}

    source.items = some_items(12)
    assert (await run(items)).status == "completed"
    assert await rows_of(host, "SELECT count(*) FROM khotan_mapping_refs WHERE origin = 'read'") == [(12,)]
    source.items[3]["id"] = 5  # now two items claim one id
    row = await run(items)
    assert (row.status, row.error["error"]) == ("failed", "mapping_conflict")


async def test_a_credential_in_a_link_is_not_stored(host: Environment, source: Source, run: Run, shop: Shop) -> None:
    from khotan_cli.runtime import NextUrlPaginator

    secret = "sk_live_0123456789"
    linked = shop.with_options(paginator=NextUrlPaginator(path="next", items="data"))
    link = f"{shop.base_url}/items?offset=10&api_key={secret}"
    source.answers = {0: lambda: as_json({"data": some_items(10), "total": 20, "next": link})}
    source.items = some_items(20)

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(linked.list_items, into=ItemRow, key="id")

    row = await run(items)
    assert (row.status, row.created) == ("completed", 20), row.error
    kept = await rows_of(host, "SELECT CAST(result AS TEXT) FROM khotan_run_steps ORDER BY number")
    assert "offset=10" in kept[0][0] and secret not in str(kept)


async def test_errors_name_place_and_no_secret(run: Run, shop: Shop, source: Source) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.log(f"token is {(await ctx.vars())['token']}")
        raise KhotanError(f"bad {(await ctx.vars())['token']}", hint="no")

    row = await run(items)
    assert "sk_live" not in str(row.error) and "••••6789" in row.error["message"]
    assert "test_sync.py:" in row.error["place"]
