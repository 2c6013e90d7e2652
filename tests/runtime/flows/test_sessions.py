"""`ctx.session()`: what else a flow writes while one is open, and what it says; what is written with a step."""

from __future__ import annotations

from typing import Any

from khotan_cli.errors import KhotanError
from khotan_cli.runtime import FlowContext, inflow, step
from khotan_cli.runtime.flows.host import Host
from khotan_cli.runtime.records.caches import CacheHandle
from tests.runtime.flows.conftest import Run, Shop


async def test_a_deleted_cache_entry_is_back_where_the_step_raises(host: Host, shop: Shop, run: Run) -> None:
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


async def test_a_cache_without_a_step_is_written_at_once(host: Host, shop: Shop, run: Run) -> None:
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
