"""Hooks are told of each start and each end of a run once, whoever ended it."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from khotan_cli.errors import KhotanError
from khotan_cli.runtime import FlowContext, Hooks, RunInfo, inflow
from khotan_cli.runtime.database.tables import RUNS
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.engine import Engine
from khotan_cli.runtime.worker.execution import execute
from tests.runtime.flows.conftest import Shop
from tests.runtime.flows.test_engine import until_ended


def noted(told: list[str], *, ends_the_process: bool = False) -> Hooks:
    def end(info: RunInfo) -> None:
        told.append(info.status)
        assert info.ended_at is not None
        if ends_the_process:
            raise SystemExit(3)

    return Hooks(on_start=lambda info: told.append("start"), on_failure=lambda info: told.append("failure"), on_end=end)


async def test_hooks_are_told_of_a_flow_that_never_yields(host: Environment, shop: Shop) -> None:
    told: list[str] = []
    go_on = threading.Event()

    @inflow(shop, timeout=0.1, hooks=noted(told))
    async def blocks(ctx: FlowContext) -> None:
        go_on.wait()

    host.flows["blocks"] = blocks  # type: ignore[index]
    engine = Engine(host, concurrency=1)
    run_id = await Dispatcher(host).trigger("blocks")
    assert await engine.start()
    try:
        assert await until_ended(host, run_id) == "failed"
        go_on.set()  # it ends after all, too late
    finally:
        go_on.set()
        await engine.stop(grace=10)
    assert told == ["start", "failure", "failed"]


async def test_hooks_are_told_of_a_waiting_run_that_is_cancelled(host: Environment, shop: Shop, declare: Any) -> None:
    told: list[str] = []

    @inflow(shop, hooks=noted(told, ends_the_process=True))
    async def flow(ctx: FlowContext) -> None: ...

    declare(flow)
    run_id = await Dispatcher(host).trigger("flow")
    both = await asyncio.gather(*[Dispatcher(host).cancel(run_id) for _ in range(2)], return_exceptions=True)
    assert "cancelled" in both and all(one == "cancelled" or isinstance(one, KhotanError) for one in both)
    assert await execute(host, run_id) == "cancelled"
    assert told == ["cancelled"]


async def test_hooks_are_told_once_of_a_stuck_run(host: Environment, shop: Shop, declare: Any) -> None:
    told: list[str] = []

    @inflow(shop, hooks=noted(told))
    async def flow(ctx: FlowContext) -> None: ...

    declare(flow)
    app: list[str] = []
    object.__setattr__(host, "hooks", noted(app))
    await Dispatcher(host).trigger("flow")
    of_no_flow = await Dispatcher(host).trigger("flow")
    async with host.database.session() as session:
        old = datetime.now(UTC) - timedelta(minutes=5)
        await session.execute(RUNS.update().values(updated_at=old))
        await session.execute(RUNS.update().where(RUNS.c.id == of_no_flow).values(flow="gone"))
        await session.execute(text(f"UPDATE {host.run_queue.table} SET status = 'ERROR'"))
    await asyncio.gather(Dispatcher(host).reconcile(), Dispatcher(host).reconcile())
    assert told == ["failure", "failed"]
    assert sorted(app) == ["failed", "failed", "failure", "failure"]


async def test_the_start_is_told_once_though_the_run_is_resumed(host: Environment, shop: Shop, declare: Any) -> None:
    told: list[str] = []
    begun = asyncio.Event()

    @inflow(shop, hooks=noted(told))
    async def flow(ctx: FlowContext) -> None:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()

    declare(flow)
    run_id = await Dispatcher(host).trigger("flow")
    first = asyncio.create_task(execute(host, run_id))
    await begun.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await execute(host, run_id) == "completed"
    assert told == ["start", "completed"]
