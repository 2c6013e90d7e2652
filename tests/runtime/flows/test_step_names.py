"""Names of steps within steps, and of those that are tried again."""

from __future__ import annotations

import asyncio

from khotan_cli.runtime import FlowContext, RunResult, inflow, step
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.execution import execute
from tests.runtime.flows.conftest import ItemRow, Run, Shop
from tests.support.flows import Source, some_items


async def cut(host: Environment, flow: Flow, begun: asyncio.Event) -> str:
    """Trigger the flow, and cut its execution off where it says that it has begun to wait."""
    host.flows[flow.name] = flow  # type: ignore[index]
    run_id = await Dispatcher(host).trigger(flow.name)
    first = asyncio.create_task(execute(host, run_id))
    await begun.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    return run_id


async def test_a_step_within_a_step_is_another(host: Environment, shop: Shop) -> None:
    done: list[int] = []
    begun = asyncio.Event()

    @step()
    async def inner(ctx: FlowContext, number: int) -> int:
        done.append(number)
        return number

    @step()
    async def outer(ctx: FlowContext) -> int:
        return sum(await asyncio.gather(inner(ctx, 1), inner(ctx, 10)))

    @inflow(shop)
    async def flow(ctx: FlowContext) -> RunResult:
        first = await outer(ctx)
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return RunResult(message=f"{first} {await inner(ctx, 2)} {await inner(ctx, 3)}")

    run_id = await cut(host, flow, begun)
    assert await execute(host, run_id) == "completed"
    row = await host.runs.get(run_id)
    assert row is not None and (row.message, done) == ("11 2 3", [1, 10, 2, 3])
    names = [one.name for one in await host.runs.steps(run_id)]
    assert sorted(names) == ["inner", "inner#2", "outer", "outer/inner", "outer/inner#2"]


async def test_a_second_try_takes_what_the_first_finished(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    tries: list[int] = []
    done: list[str] = []

    @step()
    async def inner(ctx: FlowContext, name: str) -> str:
        done.append(name)
        return name

    @step(attempts=3, backoff=0.001)
    async def load(ctx: FlowContext, name: str) -> str:
        tries.append(1)
        synced = await ctx.sync(shop.list_items, into=ItemRow, key="id")
        pushed = await ctx.push([{"id": 1}], shop.create_item, key="id")
        assert (synced.extracted, pushed.extracted) == (20, 1)
        kept = await inner(ctx, name)
        if len(tries) in (1, 3):
            raise ValueError("not yet")
        return kept

    @inflow(shop)
    async def flow(ctx: FlowContext) -> RunResult:
        return RunResult(message=f"{await load(ctx, 'a')} {await load(ctx, 'b')}")

    source.items = some_items(20)
    row = await run(flow)
    assert (row.status, row.message) == ("completed", "a b"), row.error
    assert (row.extracted, done, len(tries)) == (42, ["a", "b"], 4)
    assert source.asked == [0, 10, 0, 10]
    names = [one.name for one in await host.runs.steps(row.id)]
    assert len(names) == len(set(names)) == 10
    assert {"load/inner", "load", "load#2/inner", "load#2", "load#2/sync shop.list_items page 2"} <= set(names)


async def test_steps_side_by_side_keep_their_names(run: Run, host: Environment, shop: Shop) -> None:
    together = asyncio.Barrier(2)

    @step()
    async def inner(ctx: FlowContext) -> None:
        await together.wait()

    @step()
    async def one(ctx: FlowContext) -> None:
        await inner(ctx)

    @step()
    async def two(ctx: FlowContext) -> None:
        await inner(ctx)

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await asyncio.gather(one(ctx), two(ctx))
        await ctx.cursor("after").set(1)

    row = await run(flow)
    names = {found.name for found in await host.runs.steps(row.id)}
    assert names == {"one/inner", "two/inner", "one", "two", "cursor after"}
