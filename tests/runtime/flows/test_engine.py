"""The durable engine: what of it we rely on though it is not promised, and how it sits in an application."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from dbos import DBOS
from dbos._serialization import DefaultSerializer
from sqlalchemy import text

from khotan_cli.errors import ConfigError, DatabaseNotMigrated
from khotan_cli.runtime import FlowContext, inflow, outflow
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.run_queue import RunQueue
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.engine import Engine, _stop_events
from tests.runtime.flows.conftest import Run, Shop, rows_of


async def until_ended(host: Environment, run_id: str) -> str:
    async with asyncio.timeout(20):
        while True:
            row = await host.runs.get(run_id)
            assert row is not None
            if row.status not in ("pending", "running"):
                return str(row.status)
            await asyncio.sleep(0.02)


async def test_the_private_hooks_are_there(host: Environment, shop: Shop) -> None:
    """A new version of the engine may rename them: this says so before a run is lost."""

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None: ...

    host.flows["flow"] = flow  # type: ignore[index]
    engine = Engine(host, concurrency=2)
    assert await engine.start()
    try:
        assert callable(DBOS._recover_pending_workflows)
        assert all(isinstance(event, threading.Event) for event in _stop_events()) and _stop_events()
        assert callable(host.run_queue.client._sys_db.run_migrations)
        assert callable(host.run_queue.client._sys_db.verify_migrations)
    finally:
        await engine.stop()


async def test_a_pickled_row_is_not_read(host: Environment, shop: Shop) -> None:
    host.run_queue.client  # noqa: B018 - made at first use
    with pytest.raises(ValueError, match="pickle"):
        DefaultSerializer().deserialize("gASVBAAAAAAAAABLAS4=")


async def test_an_engine_stops_and_starts_again_and_flows_run_side_by_side(host: Environment, shop: Shop) -> None:
    inside: list[str] = []
    most: list[int] = []

    @inflow(shop, concurrency=3)
    async def wide(ctx: FlowContext) -> None:
        inside.append(ctx.run_id)
        for _ in range(200):  # three are to be here together, however slowly they start
            most.append(len(inside))
            if max(most) >= 3:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)  # a fourth would come now
        inside.remove(ctx.run_id)

    @inflow(shop)
    async def narrow(ctx: FlowContext) -> None:
        inside.append(ctx.run_id)
        most.append(len(inside))
        await asyncio.sleep(0.05)
        inside.remove(ctx.run_id)

    host.flows.update({"wide": wide, "narrow": narrow})  # type: ignore[attr-defined]
    dispatcher = Dispatcher(host)
    for flow, bound in (("wide", 3), ("narrow", 1)):
        engine = Engine(host, concurrency=8)
        assert await engine.start()
        with pytest.raises(ConfigError, match="already"):
            await Engine(host, concurrency=1).start()
        runs = [await dispatcher.trigger(flow) for _ in range(5)]
        assert [await until_ended(host, run_id) for run_id in runs] == ["completed"] * 5
        assert max(most) == bound
        most.clear()
        await engine.stop()


async def test_a_database_without_the_engines_tables(
    database_url: str, tmp_path: Path, host: Environment, shop: Shop
) -> None:
    async with host.database.writing() as session:
        if host.database.sqlite:
            await session.execute(text("UPDATE dbos_migrations SET version = 1"))
        else:
            await session.execute(text("UPDATE khotan_engine.dbos_migrations SET version = 1"))
    with pytest.raises(DatabaseNotMigrated):
        await Engine(host, concurrency=1).start()
    with pytest.raises(DatabaseNotMigrated):
        await asyncio.to_thread(RunQueue(Database(f"sqlite:///{tmp_path / 'none.db'}", tmp_path)).check_migrated)


async def test_a_run_and_its_place_in_the_queue_come_together(host: Environment, shop: Shop, run: Run) -> None:
    @outflow(shop)
    async def flow(ctx: FlowContext) -> None: ...

    host.flows["flow"] = flow  # type: ignore[index]
    dispatcher = Dispatcher(host)
    with pytest.raises(RuntimeError):
        async with host.database.writing() as session:
            await dispatcher._create(session, flow, "run-1", {"variant": "default", "source": "manual"})
            raise RuntimeError  # before the commit
    assert await rows_of(host, "SELECT id FROM khotan_runs") == []
    assert await rows_of(host, f"SELECT workflow_uuid FROM {host.run_queue.table}") == []
