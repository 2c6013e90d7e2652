"""Functions that do what would end a process, or cancel themselves: it is their run that ends, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from khotan_cli.runtime import FlowContext, RunResult, inflow, step
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.dry_run import dry_run
from khotan_cli.runtime.worker.engine import Engine
from khotan_cli.runtime.worker.execution import execute
from tests.runtime.flows.conftest import Run, Shop
from tests.runtime.flows.test_survival import _error
from tests.support.flows import Source, flows_project, some_items, trigger, wait_until_ended, worker
from tests.support.loopback import threaded_loopback

ENDS = """
import sys

@step(attempts=2, backoff=0.01)
async def leaves(ctx: FlowContext) -> None:
    sys.exit(3)

@step()
async def waits(ctx: FlowContext) -> None:
    await asyncio.sleep(0.05)

@inflow(shop)
async def exits(ctx: FlowContext) -> None:
    sys.exit(3)

@inflow(shop)
async def exits_in_a_step(ctx: FlowContext) -> None:
    await asyncio.gather(leaves(ctx), waits(ctx))

@inflow(shop)
async def exits_beside(ctx: FlowContext) -> None:
    async def beside() -> None:
        sys.exit(3)
    await asyncio.create_task(beside())

@inflow(shop)
async def exits_ahead(ctx: FlowContext) -> None:
    await ctx.sync(shop.list_items, into=ItemRow, key="id", transform=lambda item: sys.exit(3))

@inflow(shop)
async def cancels(ctx: FlowContext) -> None:
    raise asyncio.CancelledError

@inflow(shop)
async def cancels_its_task(ctx: FlowContext) -> None:
    asyncio.current_task().cancel()
    await asyncio.sleep(60)

@inflow(shop)
async def cancels_ahead(ctx: FlowContext) -> None:
    def transform(item):
        raise asyncio.CancelledError
    await ctx.sync(shop.list_items, into=ItemRow, key="id", transform=transform)

@inflow(shop)
async def stops_the_loop(ctx: FlowContext) -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.05)
"""


@pytest.mark.timeout(120)
def test_what_would_end_a_process_ends_its_run_alone(database_url: str, tmp_path: Path) -> None:
    names = "exits exits_in_a_step exits_beside exits_ahead cancels cancels_its_task cancels_ahead stops_the_loop"
    with threaded_loopback(Source(some_items(20))) as served:
        project = flows_project(tmp_path, served.url, database_url, flows=ENDS)
        with worker(project, KHOTAN_CONCURRENCY="1") as running:
            runs = {name: trigger(project, name) for name in names.split()}
            rows = {name: wait_until_ended(database_url, run_id) for name, run_id in runs.items()}
            after = wait_until_ended(database_url, trigger(project, "items"))
            running.stop()
    assert after["status"] == rows.pop("stops_the_loop")["status"] == "completed"
    assert {row["status"] for row in rows.values()} == {"failed"}
    errors = {name: _error(row) for name, row in rows.items()}
    assert {error["error"] for error in errors.values()} == {"flow_failed"}
    ended = {name: errors[name]["message"] for name in errors if name.startswith("exits")}
    assert all("tried to exit the process with SystemExit(3)" in message for message in ended.values()), ended
    assert "Flow 'exits'" in ended["exits"] and "Step 'leaves'" in ended["exits_in_a_step"]
    cancelled = {name: errors[name]["message"] for name in errors if name.startswith("cancels")}
    assert all("cancelled itself" in message for message in cancelled.values()), cancelled
    assert "items.py:" in errors["exits"]["place"] and "items.py:" in errors["cancels"]["place"]


async def test_a_run_whose_engine_stops_is_resumed(host: Environment, shop: Shop) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        begun.set()
        while not go_on.is_set():
            await asyncio.sleep(0.01)

    host.flows["flow"] = flow  # type: ignore[index]
    engine = Engine(host, concurrency=1)
    run_id = await Dispatcher(host).trigger("flow")
    assert await engine.start()
    await asyncio.to_thread(begun.wait, 20)
    await engine.stop()
    row = await host.runs.get(run_id)
    assert row is not None and (row.status, row.error) == ("running", None)
    go_on.set()
    assert await execute(host, run_id) == "completed"


async def test_a_step_that_is_cancelled_by_its_caller_is_no_failure(run: Run, shop: Shop) -> None:
    @step()
    async def endless(ctx: FlowContext) -> None:
        await asyncio.Event().wait()

    @inflow(shop)
    async def flow(ctx: FlowContext) -> RunResult:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(endless(ctx), 0.01)
        task = asyncio.create_task(endless(ctx))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return RunResult(message="went on")

    row = await run(flow)
    assert (row.status, row.message) == ("completed", "went on"), row.error


async def test_a_dry_run_that_would_end_the_process_says_so(host: Environment, shop: Shop, declare: Any) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        raise SystemExit("enough")

    report = await dry_run(host, declare(flow), "default", None)
    assert report.failure is not None and "SystemExit('enough')" in report.failure["message"]
