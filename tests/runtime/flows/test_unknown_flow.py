"""Runs of flows that a worker does not have: they wait for a worker that has the flow, and fail after a day."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from khotan_cli.runtime import FlowContext, Variant, inflow
from khotan_cli.runtime.database.tables import RUNS
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.engine import Engine
from khotan_cli.runtime.worker.maintenance import Maintenance
from khotan_cli.runtime.worker.unknown_flow import pause_after
from tests.runtime.flows.conftest import Shop, rows_of
from tests.support.flows import (
    Source,
    connection,
    flows_project,
    some_items,
    trigger,
    wait_until_ended,
    worker,
)
from tests.support.loopback import threaded_loopback

NEW = """
@inflow(shop{options})
async def newcomer(ctx: FlowContext) -> None:
    await ctx.sync(shop.list_items, into=ItemRow, key="id")
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("options", ["", ", concurrency=4"], ids=["one at a time", "four at a time"])
def test_runs_of_a_new_flow_complete_during_a_rolling_deploy(postgres_url: str, tmp_path: Path, options: str) -> None:
    with threaded_loopback(Source(some_items(5))) as served:
        project = flows_project(tmp_path, served.url, postgres_url)
        with worker(project) as old:
            wait_until_ended(postgres_url, trigger(project, "items"))  # the old worker has loaded its code
            module = tmp_path / "khotan" / "flows" / "items.py"
            module.write_text(module.read_text() + NEW.format(options=options))
            runs = [trigger(project, "newcomer") for _ in range(4)]
            with worker(project) as new:
                runs += [trigger(project, "newcomer") for _ in range(4)]
                rows = [wait_until_ended(postgres_url, run_id, 150) for run_id in runs]
                new.stop()
            old.stop()
    assert [(row["status"], row["error"]) for row in rows] == [("completed", None)] * 8
    assert {row["epoch"] for row in rows} == {1}, "a run was begun by a worker without its flow"


@pytest.mark.timeout(120)
def test_an_only_worker_leaves_a_run_pending_until_one_with_the_flow_starts(database_url: str, tmp_path: Path) -> None:
    with threaded_loopback(Source(some_items(5))) as served:
        project = flows_project(tmp_path, served.url, database_url, flows=NEW.format(options=""))
        module = tmp_path / "khotan" / "flows" / "items.py"
        now = module.read_text()
        run_id = trigger(project, "newcomer")
        module.write_text(now.replace(NEW.format(options=""), ""))
        with worker(project) as old:
            wait_until_ended(database_url, trigger(project, "items"))
            wait_for_state(database_url, f"{run_id}~1")
            assert project.khotan("flows", "show", run_id).json["status"] == "pending"
            old.stop()
        module.write_text(now)
        with worker(project) as new:
            row = wait_until_ended(database_url, run_id)
            new.stop()
    assert (row["status"], row["epoch"], row["created"] + row["skipped"]) == ("completed", 1, 5)


@pytest.mark.timeout(120)
def test_a_run_of_a_removed_flow_fails_after_a_day(database_url: str, tmp_path: Path) -> None:
    with threaded_loopback(Source(some_items(5))) as served:
        project = flows_project(tmp_path, served.url, database_url, flows=NEW.format(options=""))
        old, young = trigger(project, "newcomer"), trigger(project, "newcomer")
        module = tmp_path / "khotan" / "flows" / "items.py"
        module.write_text(module.read_text().replace(NEW.format(options=""), ""))
        with connection(database_url) as run:
            mark = "2020-01-01 00:00:00.000000" if database_url.startswith("sqlite") else "2020-01-01T00:00:00Z"
            run("UPDATE khotan_runs SET created_at = $ WHERE id = $", mark, old)
        with worker(project) as running:
            row = wait_until_ended(database_url, old)
            wait_for_state(database_url, f"{young}~1")
            running.stop()
        young_now = project.khotan("flows", "show", young).json["status"]
    error = json.loads(row["error"]) if isinstance(row["error"], str) else row["error"]
    assert (row["status"], error["error"]) == ("failed", "unknown_flow")
    assert "'newcomer'" in error["message"]
    assert young_now == "pending"


def wait_for_state(database_url: str, workflow: str, seconds: float = 30.0) -> None:
    """Until the queue has that entry."""
    table = "workflow_status" if database_url.startswith("sqlite") else "khotan_engine.workflow_status"
    deadline = time.monotonic() + seconds
    with connection(database_url) as run:
        while not run(f"SELECT 1 FROM {table} WHERE workflow_uuid = $", workflow):
            assert time.monotonic() < deadline, f"{workflow} is not in the queue"
            time.sleep(0.05)  # another process writes the row


@pytest.mark.parametrize(("number", "seconds"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (2000, 60)])
def test_pauses_double_up_to_a_minute(number: int, seconds: int) -> None:
    assert pause_after(number) == seconds


@pytest.mark.parametrize(("number", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 4), (60, 4), (61, 60)])
def test_pauses_are_short_for_some_minutes_while_other_code_works_beside(number: int, seconds: int) -> None:
    assert pause_after(number, deploying=True) == seconds


async def test_cancel_and_sweep_take_the_successors_along(host: Environment, shop: Shop, declare: Any) -> None:
    dispatcher, run_id = await handed_back(host, shop, declare)
    assert await states(host) == {run_id: "SUCCESS", f"{run_id}~1": "DELAYED"}
    assert await dispatcher.cancel(run_id) == "cancelled"
    assert (await states(host))[f"{run_id}~1"] == "CANCELLED"
    async with host.database.writing() as session:
        await session.execute(RUNS.update().values(ended_at=utc_now() - timedelta(days=60)))
    assert await Maintenance(dispatcher, retention_days=30).sweep() == 1
    assert await states(host) == {}


async def test_reconcile_leaves_a_run_that_waits_for_its_flow(host: Environment, shop: Shop, declare: Any) -> None:
    dispatcher, run_id = await handed_back(host, shop, declare)
    await age(host, timedelta(hours=23))
    assert await dispatcher.reconcile() == []
    row = await host.runs.get(run_id)
    assert row is not None and row.status == "pending"


@pytest.mark.parametrize("known", [True, False])
async def test_reconcile_enqueues_again_where_the_queue_has_lost_a_run(
    host: Environment, shop: Shop, declare: Any, known: bool
) -> None:
    dispatcher, run_id = await handed_back(host, shop, declare)
    await age(host, timedelta(minutes=5))
    async with host.database.writing() as session:
        await session.execute(text(f"DELETE FROM {host.run_queue.table}"))
    if known:
        declare(dispatcher.flow_of_test)  # type: ignore[attr-defined]
    assert [fixed["now"] for fixed in await dispatcher.reconcile()] == (["queued"] if known else [])
    row = await host.runs.get(run_id)
    assert row is not None and row.status == "pending"
    assert await states(host) == ({run_id: "ENQUEUED"} if known else {})


async def test_a_run_of_an_unknown_variant_waits_too(host: Environment, shop: Shop, declare: Any) -> None:
    @inflow(shop, variants={"hourly": Variant()})
    async def lost(ctx: FlowContext) -> None: ...

    declare(lost)
    run_id = await Dispatcher(host).trigger("lost", "hourly")

    @inflow(shop)
    async def lost_again(ctx: FlowContext) -> None: ...

    host.flows["lost"] = lost_again  # type: ignore[index]
    engine = Engine(host, concurrency=2)
    assert await engine.start()
    async with asyncio.timeout(20):
        while f"{run_id}~1" not in await states(host):
            await asyncio.sleep(0.02)
    await engine.stop()
    row = await host.runs.get(run_id)
    assert row is not None and (row.status, row.epoch) == ("pending", 0)


async def test_reconcile_fails_a_run_whose_flow_has_been_missing_for_a_day(
    host: Environment, shop: Shop, declare: Any
) -> None:
    dispatcher, run_id = await handed_back(host, shop, declare)
    await age(host, timedelta(hours=25))
    assert [fixed["now"] for fixed in await dispatcher.reconcile()] == ["failed"]
    row = await host.runs.get(run_id)
    assert row is not None and row.error["error"] == "unknown_flow"
    assert (await states(host))[f"{run_id}~1"] == "CANCELLED"


async def handed_back(host: Environment, shop: Shop, declare: Any) -> tuple[Dispatcher, str]:
    """A run that an engine without its flow has handed back once."""

    @inflow(shop)
    async def lost(ctx: FlowContext) -> None: ...

    declare(lost)
    dispatcher = Dispatcher(host)
    dispatcher.flow_of_test = lost  # type: ignore[attr-defined]
    run_id = await dispatcher.trigger("lost")
    del host.flows["lost"]  # type: ignore[attr-defined]
    engine = Engine(host, concurrency=2)
    assert await engine.start()
    async with asyncio.timeout(20):
        while (await states(host)).get(run_id) != "SUCCESS":
            await asyncio.sleep(0.02)
    await engine.stop()
    async with host.database.writing() as session:  # however long that took, the pause is not over
        await session.execute(
            text(
                f"UPDATE {host.run_queue.table} SET status = 'DELAYED', delay_until_epoch_ms = 4102444800000 "
                "WHERE workflow_uuid LIKE '%~1'"
            )
        )
        await session.execute(text(f"DELETE FROM {host.run_queue.table} WHERE workflow_uuid LIKE '%~2'"))
    return dispatcher, run_id


async def age(host: Environment, how_much: timedelta) -> None:
    async with host.database.writing() as session:
        then = utc_now() - how_much
        await session.execute(RUNS.update().values(created_at=then, updated_at=then))


async def states(host: Environment) -> dict[str, str]:
    return dict(await rows_of(host, f"SELECT workflow_uuid, status FROM {host.run_queue.table}"))
