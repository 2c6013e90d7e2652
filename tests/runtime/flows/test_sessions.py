"""`ctx.session()`: what else a flow writes while one is open, and what it says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from khotan_cli.errors import FlowError, KhotanError, MappingConflict
from khotan_cli.runtime import FlowContext, inflow, step
from khotan_cli.runtime.resources.caches import CacheHandle
from khotan_cli.runtime.resources.mappings import Mappings
from khotan_cli.runtime.runs.environment import Environment
from tests.runtime.flows.conftest import ItemRow, Run, Shop, rows_of
from tests.support.flows import Source, some_items

PROMPT = 10.0
"""Seconds that nothing here takes: SQLite waits thirty for a lock, a run five minutes for a busy database."""


@step()
async def small(ctx: FlowContext) -> int:
    return 1


async def test_what_is_written_meanwhile_belongs_to_the_session(host: Environment, shop: Shop, run: Run) -> None:
    cache = CacheHandle(host.caches["things"], host.entries)
    goods = Mappings(host.resources["goods"], host.mappings)
    await cache.set_many({"old": 1, "older": 1})

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        try:
            async with asyncio.timeout(PROMPT), ctx.session() as session:
                session.add(ItemRow(id=1, name="x", price=1))
                entry = await ctx.mapping("goods").upsert("SKU", shop="1")
                assert entry is not None and entry.refs == {"shop": "1"}
                await goods.upsert("SKU-2", shop="2")
                assert await ctx.mapping("goods").delete("SKU-2")
                await ctx.cache("things").set("a", 1)
                assert await ctx.cache("things").delete("old")
                await cache.set("b", 1)
                assert await cache.delete("older") and await cache.keys() == ["a", "b"]
                await ctx.cursor("since").set(5)
                assert await ctx.cursor("since").get() == 5
                if ctx.body == "raise":
                    raise ValueError("no")
        except ValueError:
            pass

    row = await run(flow, body="raise")
    assert row.status == "completed", row.error
    assert await rows_of(host) == [] and await cache.keys() == ["old", "older"] and (await goods.search())[1] == 0
    assert await rows_of(host, "SELECT * FROM khotan_cache_entries WHERE cache = '_cursor'") == []

    row = await run(flow)
    assert row.status == "completed", row.error
    assert len(await rows_of(host)) == 1 and await cache.keys() == ["a", "b"]
    assert [entry.key for entry in (await goods.search())[0]] == [("SKU",)]
    assert len(await rows_of(host, "SELECT * FROM khotan_cache_entries WHERE cache = '_cursor'")) == 1


async def test_what_a_run_says_in_a_session_outlives_its_rollback(host: Environment, shop: Shop, run: Run) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        async with asyncio.timeout(PROMPT), ctx.session() as session:
            await session.execute(text("INSERT INTO items (id, name, price) VALUES (1, 'x', 1)"))
            await ctx.log("first")
            await ctx.progress(1, 2, "half")
            await ctx.log("second", "warning")
            await ctx.progress(2, 2, "all")
            raise ValueError("no")

    row = await run(flow)
    assert row.status == "failed" and row.error["message"] == "ValueError: no"
    assert await rows_of(host) == []
    lines = await host.runs.updates(row.id)
    assert [(line.level, line.message) for line in lines] == [("info", "first"), ("warning", "second")]
    assert lines[0].at <= lines[1].at <= row.ended_at
    assert row.progress == {"done": 2, "total": 2, "message": "all"}


async def test_a_conflict_in_a_session_leaves_the_session_usable(host: Environment, shop: Shop, run: Run) -> None:
    await Mappings(host.resources["goods"], host.mappings).upsert("A", shop="1")

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        async with ctx.session() as session:
            session.add(ItemRow(id=1, name="x", price=1))
            with pytest.raises(MappingConflict):
                await ctx.mapping("goods").upsert("B", shop="1")
            await asyncio.gather(*[ctx.mapping("goods").upsert(f"C{n}", shop=f"c{n}") for n in range(5)])
            session.add(ItemRow(id=2, name="y", price=1))

    row = await run(flow)
    assert row.status == "completed", row.error
    assert len(await rows_of(host)) == 2
    keys = [entry.key for entry in (await Mappings(host.resources["goods"], host.mappings).search())[0]]
    assert keys == [("A",), *[(f"C{n}",) for n in range(5)]]


async def test_after_a_commit_in_a_session_all_is_as_outside(host: Environment, shop: Shop, run: Run) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        async with asyncio.timeout(PROMPT), ctx.session() as session:
            session.add(ItemRow(id=1, name="x", price=1))
            await session.commit()
            await ctx.mapping("goods").upsert("SKU", shop="1")
            await ctx.cache("things").set("a", 1)
            await ctx.log("said")
            assert await small(ctx) == 1

    row = await run(flow)
    assert row.status == "completed", row.error
    assert [s.name for s in await host.runs.steps(row.id)] == ["cache things", "small"]
    assert len(await rows_of(host)) == 1 and len(await host.runs.updates(row.id)) == 1


async def test_a_task_that_outlives_the_session_writes_by_itself(host: Environment, shop: Shop, run: Run) -> None:
    closed = asyncio.Event()

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        async def later() -> None:
            await closed.wait()
            await ctx.mapping("goods").upsert("SKU", shop="1")

        async with ctx.session() as session:
            session.add(ItemRow(id=1, name="x", price=1))
            task = asyncio.create_task(later())
        closed.set()
        await task

    row = await run(flow)
    assert row.status == "completed", row.error
    assert len(await rows_of(host, "SELECT * FROM khotan_mappings")) == 1


@pytest.mark.parametrize("what", ["step", "sync", "push", "session", "set_vars"])
async def test_a_second_transaction_beside_a_session(
    host: Environment, shop: Shop, source: Source, run: Run, what: str
) -> None:
    """On SQLite it would wait for the session that waits for it; it is refused at once, before anything is done."""
    source.items = some_items(3)

    async def work(ctx: FlowContext) -> None:
        if what == "step":
            await small(ctx)
        elif what == "sync":
            await ctx.sync(shop.list_items, into=ItemRow, key="id")
        elif what == "push":
            await ctx.push([{"id": 1}], shop.create_item, key="id")
        elif what == "set_vars":
            await ctx.set_vars({"token": "sk_live_changed"})
        else:
            async with ctx.session() as other:
                assert (await other.execute(select(ItemRow))).all() == []

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        async with asyncio.timeout(PROMPT), ctx.session() as session:
            await session.execute(text("DELETE FROM khotan_leases"))
            if host.database.sqlite:
                with pytest.raises(FlowError, match="while a session") as caught:
                    await work(ctx)
                assert caught.value.code == "session_open" and "ctx.session()" in caught.value.hint
            else:
                await work(ctx)
        await work(ctx)

    row = await run(flow)
    assert row.status == "completed", row.error
    if what == "push":
        assert len(source.sent) == 1, "the second time the service is known to have it"


@pytest.mark.parametrize("inside", [True, False])
async def test_a_write_and_what_it_does_by_khotans_stores_are_one(
    host: Environment, shop: Shop, run: Run, inside: bool
) -> None:
    goods = Mappings(host.resources["goods"], host.mappings)

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        async def save(session: AsyncSession) -> None:
            session.add(ItemRow(id=1, name="x", price=1))
            await ctx.mapping("goods").upsert("SKU", shop="1")
            await ctx.log("saving")
            if ctx.body == "raise":
                raise ValueError("no")

        async with asyncio.timeout(PROMPT):
            if inside:
                async with ctx.session():
                    await ctx.write("save", save)
            else:
                await ctx.write("save", save)

    row = await run(flow, body="raise")
    assert row.error["message"] == "ValueError: no"
    assert await rows_of(host) == [] and (await goods.search())[1] == 0
    assert [line.message for line in await host.runs.updates(row.id)] == ["saving"]
    row = await run(flow)
    assert row.status == "completed", row.error
    assert len(await rows_of(host)) == 1 and (await goods.search())[1] == 1
    assert [s.name for s in await host.runs.steps(row.id)] == ([] if inside else ["save"])
    assert [line.message for line in await host.runs.updates(row.id)] == ["saving"]


async def test_a_deleted_cache_entry_is_back_where_the_step_raises(host: Environment, shop: Shop, run: Run) -> None:
    cache = CacheHandle(host.caches["things"], host.entries)
    await cache.set_many({"a": 1, "b": 2})

    @step()
    async def forget(ctx: FlowContext) -> Any:
        found: list[Any] = [await ctx.cache("things").delete("a"), await ctx.cache("things").delete("z")]
        if ctx.body == "clear":
            found.append(await ctx.cache("things").clear())
        if ctx.body == "raise":
            raise KhotanError("no")
        return found

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await forget(ctx)

    assert (await run(flow, body="raise")).status == "failed"
    assert await cache.keys() == ["a", "b"]
    row = await run(flow)
    assert (await host.runs.steps(row.id))[0].result == [True, False] and await cache.keys() == ["b"]
    row = await run(flow, body="clear")
    assert (await host.runs.steps(row.id))[0].result == [False, False, 1] and await cache.keys() == []


async def test_a_cache_without_a_step_is_written_at_once(host: Environment, shop: Shop, run: Run) -> None:
    cache = CacheHandle(host.caches["things"], host.entries)
    await cache.set_many({"a": 1, "b": 2})

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        assert await ctx.cache("things").delete("a")
        assert await cache.keys() == ["b"]
        await ctx.cache("things").set("c", 3)
        assert await ctx.cache("things").clear() == 2

    row = await run(flow)
    assert row.status == "completed", row.error
    assert await cache.keys() == []
    names = [s.name for s in await host.runs.steps(row.id)]
    assert names == ["cache things delete", "cache things", "cache things clear"]
