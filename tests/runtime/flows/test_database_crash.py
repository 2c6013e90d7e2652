"""A database server that crashes under a run: what it lost is done again, and nothing is taken for deleted."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import psycopg
import pytest

from khotan_cli.runtime import FlowContext, inflow, step
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.execution import execute
from tests.runtime.flows.conftest import ItemRow, Shop, host_at, rows_of
from tests.support.flows import Source, some_items
from tests.support.loopback import Answer, Asked, Loopback
from tests.support.postgres import PostgresServer, running_server, stopped


@pytest.mark.timeout(180)
async def test_pages_that_a_crash_of_the_server_took_are_done_again(
    postgres_server: PostgresServer, tmp_path: Path, shop: Shop, service: Loopback, source: Source
) -> None:
    source.items = some_items(100)
    own = f"own-{uuid.uuid4().hex[:8]}"
    with running_server(own, durable=True) as server:
        with psycopg.connect(f"{server.url}/postgres", autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")  # so long a commit may be off the disk
            admin.execute("SELECT pg_reload_conf()")
        crashes = 1

        def crash() -> None:
            with stopped(server, own, crash=True):
                pass

        async def handler(asked: Asked) -> Answer:
            nonlocal crashes
            if asked.query.get("offset") == "60" and crashes:
                crashes -= 1
                await asyncio.to_thread(crash)
            return await source(asked)

        service.handler = handler
        async with host_at(f"{server.url}/postgres", tmp_path, shop) as host:

            @inflow(shop)
            async def items(ctx: FlowContext) -> None:
                await ctx.sync(shop.list_items, into=ItemRow, key="id", delete_missing=True, prefetch=False)

            host.flows["items"] = items  # type: ignore[index]
            run_id = await Dispatcher(host).trigger("items")
            await execute(host, run_id)
            row = await host.runs.get(run_id)
            assert row is not None and (row.status, row.error) == ("completed", None)
            assert row.epoch > 1, "the crash lost no page: the test shows nothing"
            assert (row.extracted, row.created, row.skipped, row.deleted) == (100, 100, 0, 0)
            assert await rows_of(host, "SELECT count(*), sum(id) FROM items") == [(100, sum(range(100)))]


@pytest.mark.timeout(180)
async def test_reads_wait_for_a_database_that_is_away_as_writes_do(
    postgres_server: PostgresServer, tmp_path: Path, shop: Shop
) -> None:
    own = f"own-{uuid.uuid4().hex[:8]}"
    with running_server(own, durable=True) as server:
        async with host_at(f"{server.url}/postgres", tmp_path, shop) as host:
            down = asyncio.Event()

            @step()
            async def look(ctx: FlowContext) -> None:
                async with ctx.session() as session:
                    assert session is not None

            @inflow(shop, resource="goods")
            async def items(ctx: FlowContext) -> None:
                for read in (
                    ctx.vars,
                    lambda: ctx.cursor("since").get(),
                    lambda: ctx.mapping("goods").lookup("x"),
                    lambda: ctx.cache("things").get("x"),
                    lambda: look(ctx),
                ):
                    down.clear()
                    stop = stopped(server, own)
                    await asyncio.to_thread(stop.__enter__)
                    reading = asyncio.ensure_future(read())
                    await asyncio.sleep(0)
                    await asyncio.to_thread(stop.__exit__, None, None, None)
                    await reading

            host.flows["items"] = items  # type: ignore[index]
            run_id = await Dispatcher(host).trigger("items")
            await execute(host, run_id)
            row = await host.runs.get(run_id)
            assert row is not None and (row.status, row.error) == ("completed", None)
