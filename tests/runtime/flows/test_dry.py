"""Dry runs: whatever a flow does, by whichever way, is held back and told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text
from sqlmodel import Field, SQLModel, select

from khotan_cli.runtime import FlowContext, inflow, outflow, step
from khotan_cli.runtime.resources.caches import CacheHandle
from khotan_cli.runtime.resources.mappings import Mappings
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.worker.dry_run import dry_run
from tests.runtime.flows.conftest import ItemRow, Run, Shop, rows_of
from tests.support.flows import Source

Declare = Callable[[Flow], Flow]


class NewRow(SQLModel, table=True):
    """Of a table that only the flow makes."""

    __tablename__ = "new_rows"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    name: str


@step(attempts=3, backoff=0.001)
async def create(ctx: FlowContext, shop: Shop) -> Any:
    return {"answers": [await shop.create_item(body={"name": "x"})]}


@step(attempts=3, backoff=0.001)
async def create_and_look(ctx: FlowContext, shop: Shop) -> str:
    answer = await shop.create_item(body={"name": "x"})
    return str(answer["id"])


async def test_an_answer_as_the_result_of_a_step_stops_the_run(host: Environment, shop: Shop, declare: Declare) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await create(ctx, shop)

    report = await dry_run(host, declare(flow), "default", None)
    assert report.failure is None and report.stopped is not None
    assert "shop.create_item is needed as the result of step 'create'" in report.stopped["message"]
    assert report.stopped["method"] == "POST"


async def test_a_step_that_needs_an_answer_is_not_tried_again(host: Environment, shop: Shop, declare: Declare) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await create_and_look(ctx, shop)

    report = await dry_run(host, declare(flow), "default", None)
    assert report.stopped is not None and report.log == []
    assert report.requests["POST shop.create_item"]["count"] == 1


async def test_what_is_in_caches_and_mappings_stays(host: Environment, shop: Shop, declare: Declare) -> None:
    cache = CacheHandle(host.caches["things"], host.entries)
    goods = Mappings(host.resources["goods"], host.mappings)
    await cache.set_many({"a": 1, "b": 2})
    await goods.upsert("SKU", shop="1")

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        things = ctx.cache("things")
        assert await things.delete("a") and not await things.delete("z")
        await things.set("c", 3)
        assert await things.clear() == 2
        assert await ctx.mapping("goods").delete("SKU") and not await ctx.mapping("goods").delete("none")

    report = await dry_run(host, declare(flow), "default", None)
    assert report.failure is None
    assert report.writes["cache things"] == {"deleted": 3, "set": 1, "sample": ["a", "c", "a", "b"]}
    assert report.writes["mappings of goods"] == {"deleted": 1, "sample": [["SKU"]]}
    assert await cache.keys() == ["a", "b"]
    assert await goods.lookup("SKU") is not None


async def test_the_apps_own_stores_hold_back_too(host: Environment, shop: Shop, declare: Declare) -> None:
    """What `khotan.cache(…)` and `khotan.mapping(…)` give, which know nothing of the run."""
    cache = CacheHandle(host.caches["things"], host.entries)
    goods = Mappings(host.resources["goods"], host.mappings)
    await cache.set_many({"a": 1, "b": 2})
    await goods.upsert("SKU", shop="1")

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await cache.set("c", 3)
        assert await cache.delete("a") and not await cache.delete("z")
        assert await cache.clear() == 2
        await goods.upsert("NEW", shop="2")
        await goods.upsert_many([("SKU", {"shop": "3"}), ("SKU-2", {"shop": "4"})])
        assert await goods.delete("SKU") and not await goods.delete("NEW")

    report = await dry_run(host, declare(flow), "default", None)
    assert report.failure is None
    assert report.writes["cache things"] == {"set": 1, "deleted": 3, "sample": ["c", "a", "a", "b"]}
    noted = report.writes["mappings of goods"]
    assert (noted["created"], noted["updated"], noted["deleted"]) == (2, 1, 1)
    assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    entries, total = await goods.search()
    assert total == 1 and entries[0].refs == {"shop": "1"}
    await cache.set("c", 3)  # the dry run is over
    assert await cache.get("c") == 3


async def test_a_commit_in_a_session_commits_nothing(host: Environment, shop: Shop, declare: Declare) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        async with ctx.session() as session:
            session.add(ItemRow(id=1, name="one", price=1))
            await session.commit()
            await ctx.mapping("goods").upsert("SKU", shop="1")
        async with ctx.session() as session:
            await session.execute(text("INSERT INTO items (id, name, price) VALUES (1, 'again', 1)"))
            async with session.begin_nested():
                session.add(ItemRow(id=2, name="two", price=1))
            await ctx.cache("things").set("a", 1)
            entry = await ctx.mapping("goods").upsert("SKU", shop="1")
            assert entry is not None and entry.refs == {"shop": "1"}
            await session.rollback()
        async with ctx.session() as session:
            assert (await session.execute(select(ItemRow))).all() == []

    report = await dry_run(host, declare(flow), "default", None)
    assert report.failure is None
    assert report.writes["cache things"]["set"] == 1 and report.writes["mappings of goods"]["created"] == 2
    for table in ("items", "khotan_mappings", "khotan_cache_entries"):
        assert await rows_of(host, f"SELECT * FROM {table}") == [], table


async def test_a_table_that_would_be_made_reads_as_empty(
    host: Environment, shop: Shop, source: Source, declare: Declare, run: Run
) -> None:
    @outflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await ctx.ensure_table(NewRow)
        async with ctx.session() as session:
            session.add(NewRow(id=1, name="one"))
            await session.flush()
            await ctx.ensure_table(NewRow)
            assert len((await session.execute(select(NewRow))).all()) == 1
        await ctx.push(select(NewRow), shop.create_item, key="id")

    report = await dry_run(host, declare(flow), "default", None)
    assert (report.failure, report.stopped, report.requests) == (None, None, {})
    row = await run(flow)  # the table was not made before
    assert (row.status, row.created) == ("completed", 1), row.error
    assert [body for _, _, body in source.sent] == [{"id": 1, "name": "one"}]
