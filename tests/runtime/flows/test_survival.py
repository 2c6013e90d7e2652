"""What a run survives: its process killed, its database stopped, its code edited, its source misbehaving."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.runs.steps import retry_while_database_down
from tests.support.flows import (
    Source,
    connection,
    flows_project,
    run_row,
    some_items,
    trigger,
    wait_until_ended,
    worker,
)
from tests.support.loopback import Answer, as_json, threaded_loopback
from tests.support.postgres import PostgresServer, running_server, stopped

PAGES, SIZE, KILLS = 100, 10, 20


@pytest.mark.timeout(600)
def test_twenty_kills_lose_and_repeat_nothing(database_url: str, tmp_path: Path) -> None:
    source = Source(some_items(PAGES * SIZE), delay=0.004)
    dice = random.Random(57)
    kills = 0
    with threaded_loopback(source) as served:
        project = flows_project(tmp_path, served.url, database_url, size=SIZE)
        run_id = trigger(project, "items")
        finished: set[int] = set()
        while kills < KILLS:
            before = len(source.asked)
            with worker(project) as running:
                source.wait_for(before + dice.randint(1, 4))
                time.sleep(dice.uniform(0, 0.02))  # a random moment
                running.kill()
            kills += 1
            again = finished & set(source.asked[before:])
            assert not again, f"finished pages were fetched again: {sorted(again)}"
            finished = finished_pages(database_url, run_id)
        with worker(project) as running:
            row = wait_until_ended(database_url, run_id)
            running.stop()
    assert (row["status"], row["error"]) == ("completed", None)
    assert kills == KILLS
    assert row["epoch"] > KILLS / 2
    counts = {name: row[name] for name in ("extracted", "created", "updated", "skipped", "failed")}
    assert counts == {"extracted": PAGES * SIZE, "created": PAGES * SIZE, "updated": 0, "skipped": 0, "failed": 0}
    with connection(database_url) as run:
        assert run("SELECT count(*), count(DISTINCT id), sum(id) FROM items") == [
            (PAGES * SIZE, PAGES * SIZE, sum(range(PAGES * SIZE)))
        ]
        assert run("SELECT count(*) FROM khotan_run_steps WHERE run_id = $", run_id) == [(PAGES,)]
    assert run_row(database_url, run_id)["status"] == "completed"


def finished_pages(database_url: str, run_id: str) -> set[int]:
    """Offsets of the pages whose step is stored."""
    with connection(database_url) as run:
        rows = run("SELECT name FROM khotan_run_steps WHERE run_id = $", run_id)
    return {(int(name.rpartition(" ")[2]) - 1) * SIZE for (name,) in rows}


@pytest.mark.timeout(180)
def test_a_database_that_stops_and_starts_again(postgres_server: PostgresServer, tmp_path: Path) -> None:
    source = Source(some_items(600), delay=0.01)
    own = f"own-{uuid.uuid4().hex[:8]}"
    with running_server(own) as server, threaded_loopback(source) as served:
        url = f"{server.url}/postgres"
        project = flows_project(tmp_path, served.url, url)
        run_id = trigger(project, "items")
        with worker(project) as running:
            source.wait_for(15)
            with stopped(server, own):
                pass
            row = wait_until_ended(url, run_id, 90)
            running.stop()
    assert (row["status"], row["error"]) == ("completed", None)
    assert (row["extracted"], row["created"], row["skipped"]) == (600, 600, 0)


MANY = """
@inflow(shop, concurrency=12)
async def many(ctx: FlowContext) -> None:
    await ctx.sync(shop.list_items, into=ItemRow, key="id")
"""


@pytest.mark.timeout(120)
def test_a_killed_workers_runs_are_adopted(postgres_url: str, tmp_path: Path) -> None:
    source = Source(some_items(100), delay=0.1)
    with threaded_loopback(source) as served:
        project = flows_project(tmp_path, served.url, postgres_url, flows=MANY)
        runs = [trigger(project, "many") for _ in range(12)]
        with worker(project, KHOTAN_CONCURRENCY="6") as one, worker(project, KHOTAN_CONCURRENCY="6") as two:
            source.wait_for(60)  # more than one worker's six runs could have asked for by its fifth page
            one.kill()
            rows = [wait_until_ended(postgres_url, run_id) for run_id in runs]
            two.stop()
    assert [row["status"] for row in rows] == ["completed"] * 12
    assert all(row["extracted"] == 100 for row in rows)
    assert sum(row["epoch"] > 1 for row in rows) >= 1, "no run was adopted"


BAD = """
@step(attempts=2, backoff=0.01)
async def explode(ctx: FlowContext) -> None:
    raise ValueError("no luck with sk_live_0123456789")

@inflow(shop)
async def raises(ctx: FlowContext) -> None:
    await explode(ctx)

@inflow(shop, timeout=0.3)
async def late(ctx: FlowContext) -> None:
    await asyncio.sleep(60)

@inflow(shop)
async def nonsense(ctx: FlowContext) -> Any:
    return {"ok": True}

@step()
async def odd(ctx: FlowContext) -> Any:
    return object()

@inflow(shop)
async def unkeepable(ctx: FlowContext) -> None:
    await odd(ctx)

@inflow(shop, timeout=0.3)
async def blocks(ctx: FlowContext) -> None:
    time.sleep(60)
"""


@pytest.mark.timeout(120)
def test_flows_that_go_wrong_hold_up_nobody(database_url: str, tmp_path: Path) -> None:
    source = Source(some_items(20))
    names = ["blocks", "raises", "late", "nonsense", "unkeepable", "items"]
    with threaded_loopback(source) as served:
        project = flows_project(tmp_path, served.url, database_url, flows=BAD)
        runs = {name: trigger(project, name) for name in names}
        with worker(project) as running:
            rows = {name: wait_until_ended(database_url, run_id) for name, run_id in runs.items()}
            running.kill()
    assert rows.pop("items")["status"] == "completed"
    assert {row["status"] for row in rows.values()} == {"failed"}
    errors = {name: _error(row) for name, row in rows.items()}
    assert {name: error["error"] for name, error in errors.items()} == {
        "blocks": "flow_timeout",
        "raises": "flow_failed",
        "late": "flow_timeout",
        "nonsense": "flow_failed",
        "unkeepable": "step_failed",
    }
    assert "blocked its thread" in errors["blocks"]["message"]
    assert errors["raises"]["message"].startswith("ValueError")
    assert "items.py:" in errors["raises"]["place"]
    assert "dict" in errors["nonsense"]["message"]
    assert "Traceback" not in running.output


def _error(row: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(row["error"]) if isinstance(row["error"], str) else row["error"]
    return error


SKIPPING = """
@inflow(shop)
async def lenient(ctx: FlowContext) -> None:
    await ctx.sync(shop.list_items, into=ItemRow, key="id", on_invalid="skip", delete_missing=True)
"""


@pytest.mark.timeout(120)
def test_a_source_that_misbehaves(database_url: str, tmp_path: Path) -> None:
    source = Source(some_items(60))
    broken = [{"id": 20, "name": "fine", "price": 1}, {"id": "x", "name": None, "price": 1}, {"id": 21, "title": "?"}]
    with threaded_loopback(source) as served:
        project = flows_project(tmp_path, served.url, database_url, flows=SKIPPING)
        with worker(project) as running:
            drops = iter(
                [
                    Answer(drop=True),
                    Answer(raw=b"HTTP/1.1 garbage"),
                    as_json({"data": source.items[10:20], "total": 60}),
                ]
            )
            source.answers = {10: lambda: next(drops)}
            dropped = wait_until_ended(database_url, trigger(project, "items"))
            source.answers = {30: lambda: as_json({"data": source.items[20:30], "total": 60})}
            repeated = wait_until_ended(database_url, trigger(project, "items"))
            source.answers = {20: lambda: as_json({"data": broken, "total": 60})}
            changed = wait_until_ended(database_url, trigger(project, "items"))
            skipped_id = trigger(project, "lenient")
            skipped = wait_until_ended(database_url, skipped_id)
            rejects = project.khotan("flows", "rejects", skipped_id).json["items"]
            running.stop()
    assert (dropped["status"], dropped["created"]) == ("completed", 60)
    assert (repeated["status"], _error(repeated)["error"]) == ("failed", "pagination_failed")
    assert (changed["status"], _error(changed)["error"]) == ("failed", "response_invalid")
    assert changed["extracted"] == 20, "the pages before the change are kept"
    assert (skipped["status"], skipped["failed"], skipped["deleted"]) == ("partial", 2, 0)
    assert [reject["record"] for reject in rejects] == broken[1:]
    assert all("input_value" not in reject["reason"] for reject in rejects)


STEPS = """
@step()
async def first(ctx: FlowContext) -> int:
    await shop.post("/search", body={"step": "first"})
    return 41

@step()
async def second(ctx: FlowContext, number: int) -> int:
    await shop.get("/items?offset=0")
    await asyncio.sleep(60)
    return number + 1

@inflow(shop)
async def stepwise(ctx: FlowContext) -> RunResult:
    number = await first(ctx)
    return RunResult(message=str(await second(ctx, number)))
"""
EDITED = """
@step()
async def newcomer(ctx: FlowContext) -> int:
    return 100

@inflow(shop)
async def stepwise(ctx: FlowContext) -> RunResult:
    extra = await newcomer(ctx)
    return RunResult(message=str(await first(ctx) + extra))
"""


@pytest.mark.timeout(120)
def test_a_flow_edited_while_its_run_is_pending(database_url: str, tmp_path: Path) -> None:
    source = Source(some_items(5))
    module = tmp_path / "khotan" / "flows" / "items.py"
    with threaded_loopback(source) as served:
        project = flows_project(tmp_path, served.url, database_url, flows=STEPS)
        run_id = trigger(project, "stepwise")
        with worker(project, KHOTAN_CONCURRENCY="1") as running:
            source.wait_for(1)  # first is done, second is under way
            doomed = trigger(project, "items")
            running.kill()
        before = [asked for asked in served.asked if asked.path == "/search"]
        text = module.read_text().replace("async def items(", "async def renamed(")
        kept, _, _ = text.partition("@inflow(shop)\nasync def stepwise")
        module.write_text(kept + EDITED)
        with worker(project) as running:
            row = wait_until_ended(database_url, run_id)
            running.stop()
        waiting = run_row(database_url, doomed)
        after = [asked for asked in served.asked if asked.path == "/search"]
    assert (row["status"], row["message"]) == ("completed", "141")
    assert len(before) == len(after) == 1, "a finished step was done again"
    assert (waiting["status"], waiting["error"]) == ("pending", None), "it waits for a worker that has its flow"


def test_one_worker_at_an_sqlite_database(sqlite_url: str, tmp_path: Path) -> None:
    with threaded_loopback(Source([])) as served:
        project = flows_project(tmp_path, served.url, sqlite_url)
        run_id = trigger(project, "items")
        with worker(project) as running:
            wait_until_ended(sqlite_url, run_id)
            second = project.khotan("worker")
            running.stop()
        assert (second.code, second.json["error"]) == (4, "engine_busy")


async def test_transactions_in_each_others_way_are_repeated(postgres_url: str, tmp_path: Path) -> None:
    database = Database(postgres_url, tmp_path)
    async with database.session() as session:
        await session.execute(text("CREATE TABLE pair AS SELECT n AS id, 0 AS value FROM generate_series(1, 2) AS n"))
    both_hold_one, tries = asyncio.Barrier(2), 0

    async def add(first: int, second: int) -> None:
        nonlocal tries
        tries += 1
        meet = tries <= 2
        async with database.writing() as session:
            for number in (first, second):
                await session.execute(text("UPDATE pair SET value = value + 1 WHERE id = :id"), {"id": number})
                if meet and number == first:
                    await both_hold_one.wait()  # each now waits for the other: PostgreSQL gives up one of them

    await asyncio.gather(retry_while_database_down(lambda: add(1, 2)), retry_while_database_down(lambda: add(2, 1)))
    async with database.session() as session:
        values = (await session.execute(text("SELECT value FROM pair"))).scalars().all()
    await database.dispose()
    assert (tries, list(values)) == (3, [2, 2])
