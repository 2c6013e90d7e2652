"""A connection pooler between khotan and PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.database.database import Database
from tests.support.flows import Source, connection, flows_project, some_items, trigger, wait_until_ended, worker
from tests.support.loopback import threaded_loopback
from tests.support.pgbouncer import pgbouncer
from tests.support.webhooks import order, send, served_app, wait_for, webhook_project


async def detect(url: str, folder: Path) -> bool:
    database = Database(url, folder)
    try:
        return await database.detect_pooler()
    finally:
        await database.dispose()


@pytest.mark.parametrize(
    ("mode", "pool_size", "found"),
    [("transaction", 4, True), ("transaction", 1, True), ("session", 4, False), ("session", 1, False)],
)
async def test_only_a_pool_in_transaction_mode_is_detected(
    postgres_url: str, tmp_path: Path, mode: str, pool_size: int, found: bool
) -> None:
    with pgbouncer(postgres_url, mode, pool_size=pool_size) as pooled:
        assert await detect(pooled, tmp_path) is found


async def test_a_busy_pool_is_detected(postgres_url: str, tmp_path: Path) -> None:
    with pgbouncer(postgres_url, "transaction") as pooled:
        others = [Database(f"{pooled}?pgbouncer=true", tmp_path) for _ in range(2)]

        async def busy(database: Database) -> None:
            while True:
                async with database.session() as session:
                    await session.execute(text("SELECT pg_sleep(0.002)"))

        tasks = [asyncio.create_task(busy(database)) for database in others]
        try:
            assert await detect(pooled, tmp_path)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for database in others:
                await database.dispose()


async def test_a_database_without_a_pooler(database_url: str, tmp_path: Path) -> None:
    assert not await detect(database_url, tmp_path)


@pytest.mark.parametrize(("word", "found"), [("true", True), ("1", True), ("false", False), ("off", False)])
async def test_the_url_spares_the_question(postgres_url: str, tmp_path: Path, word: str, found: bool) -> None:
    database = Database(f"{postgres_url}?pgbouncer={word}", tmp_path)
    assert await database.detect_pooler() is found
    assert ("prepare_threshold" in database.driver_arguments()) is found
    async with database.session() as session:
        for _ in range(12):
            await session.execute(text("SELECT 1"))
        prepared = (await session.execute(text("SELECT count(*) FROM pg_prepared_statements"))).scalar()
    await database.dispose()
    assert bool(prepared) is not found


def test_the_option_takes_truth_values_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="invalid pgbouncer='maybe'"):
        Database("postgresql://u:p@localhost/db?pgbouncer=maybe", tmp_path)


@pytest.mark.timeout(180)
def test_a_project_behind_a_pooler(postgres_url: str, tmp_path: Path) -> None:
    with pgbouncer(postgres_url, "transaction") as pooled, threaded_loopback(Source(some_items(30))) as served:
        project = flows_project(tmp_path, served.url, pooled)
        refused = project.khotan("worker")
        assert (refused.code, refused.json["error"]) == (2, "pooled_database")
        assert "KHOTAN_WORKER_DATABASE_URL" in refused.json["hint"]
        assert check_of_pooler(project.khotan("doctor").json)["outcome"] == "warning"
        direct = {"KHOTAN_WORKER_DATABASE_URL": postgres_url}
        assert check_of_pooler(project.khotan("doctor", env=direct).json)["outcome"] == "ok"
        assert check_of_pooler(project.khotan("doctor", env={"KHOTAN_WORKER_DATABASE_URL": pooled}).json)[
            "outcome"
        ] == ("warning")
        with worker(project, **direct) as running:
            rows = [wait_until_ended(postgres_url, trigger(project, "items")) for _ in range(3)]
            waited = project.khotan("flows", "trigger", "items", "--wait").json
            listed = project.khotan("flows", "runs").json
            running.stop()
        alone = project.khotan("flows", "trigger", "items", "--wait")
        alone_past_it = project.khotan("flows", "trigger", "items", "--wait", env=direct)
        dry = project.khotan("flows", "trigger", "items", "--dry-run").json
    assert [row["status"] for row in rows] == ["completed"] * 3
    assert (alone.code, alone.json["error"]) == (2, "pooled_database"), "no worker is there, and none can be here"
    assert alone_past_it.json["status"] == "completed"
    assert (waited["status"], listed["total"], dry["counts"]["extracted"]) == ("completed", 4, 30)


@pytest.mark.timeout(120)
def test_a_served_app_behind_a_pooler_takes_webhooks_and_leaves_handlers_to_a_worker(
    postgres_url: str, tmp_path: Path
) -> None:
    with pgbouncer(postgres_url, "transaction", pool_size=2) as pooled:
        project = webhook_project(tmp_path, pooled)
        with served_app(project) as served:
            statuses = {send(served.url, order(number)).status_code for number in range(30)}
            listed = httpx.get(f"{served.url}/api/khotan/runs", timeout=30)
            with worker(project, KHOTAN_WORKER_DATABASE_URL=postgres_url) as running, connection(postgres_url) as run:
                wait_for(lambda: run("SELECT count(DISTINCT id) FROM seen") == [(30,)], "30 handled events")
                running.stop()
            served.stop()
            said = served.output
    assert statuses == {202}
    assert listed.json()["total"] == 30
    assert "Flows do not run here" in said and "KHOTAN_WORKER_DATABASE_URL" in said


def check_of_pooler(document: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return next(check for check in document["checks"] if check["name"] == "pooler")
