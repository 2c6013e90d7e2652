"""The queue of handlers' runs: whose turn it is, who gets the places, who waits, and what is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.store.events import EventStore
from khotan_cli.runtime.store.handler_queue import ORDERED_LOCK, HandlerQueue
from khotan_cli.runtime.store.incoming import HandlerRun, Incoming
from khotan_cli.runtime.store.runs import RunStore
from khotan_cli.runtime.webhooks.handling.fair_share import select_runs
from tests.support import migrated
from tests.support.flows import connection, worker
from tests.support.webhooks import order, send, served_app, wait_for, webhook_project


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    migrated.upgrade(database_url, tmp_path)
    database = Database(database_url, tmp_path)
    yield database
    await database.dispose()


async def store(database: Database, *handler_runs: HandlerRun, first: int = 1) -> None:
    """An event for each."""
    await EventStore(database).store(
        [
            Incoming("shop", f"evt_{number}", "t", "POST", {}, "", b"{}", [delivery])
            for number, delivery in enumerate(handler_runs, first)
        ]
    )


async def claimed(database: Database, *handlers: str) -> list[Any]:
    return sorted(await HandlerQueue(database).claim("w", handlers, 8), key=lambda row: row.event_id)


def keyed(key: str, handler: str = "shop.moved") -> HandlerRun:
    return HandlerRun(handler, "catch", f"{handler}|{key}")


async def test_a_replay_waits_for_the_run_of_its_key_that_runs(database: Database) -> None:
    runs, events = RunStore(database), EventStore(database)
    await store(database, keyed("K"), keyed("K"), keyed("L"))
    first, other = await claimed(database, "shop.moved")
    assert (first.event_id, other.event_id) == (1, 3)
    await runs.finish(first.id, first.epoch, "completed")
    (second,) = await claimed(database, "shop.moved")
    assert second.event_id == 2
    await events.again({1: [keyed("K")]})
    assert await claimed(database, "shop.moved") == [], "the second event's run runs"
    await runs.finish(second.id, second.epoch, "completed")
    (again,) = await claimed(database, "shop.moved")
    assert again.event_id == 1


async def test_of_several_runs_of_one_event_and_key_one_runs_at_a_time(database: Database) -> None:
    runs, events = RunStore(database), EventStore(database)
    await store(database, keyed("K"))
    began = await claimed(database, "shop.moved")
    made = [*await events.again({1: [keyed("K")]})]
    await runs.finish(began[0].id, began[0].epoch, "completed")
    began = await claimed(database, "shop.moved")
    assert [row.id for row in began] == made
    for _ in range(2):  # while that one runs
        made += await events.again({1: [keyed("K")]})
    assert len(set(made)) == 2 and await claimed(database, "shop.moved") == []


async def test_many_workers_begin_one_run_of_a_key_at_a_time(postgres_url: str, tmp_path: Path) -> None:
    migrated.upgrade(postgres_url, tmp_path)
    database = Database(postgres_url, tmp_path)
    runs, queue, active = RunStore(database), HandlerQueue(database), set[str]()
    await store(database, *[keyed("K")] * 12)
    done = list[int]()

    async def work(name: str) -> None:
        while len(done) < 18:
            for row in await queue.claim(name, ["shop.moved"], 4):
                assert not active, "two runs of one key at once"
                active.add(row.id)
                if len(done) < 6:  # an older event comes again as a newer one is next
                    await EventStore(database).again({1: [keyed("K")]})
                done.append(row.event_id)
                active.remove(row.id)
                await runs.finish(row.id, row.epoch, "completed")

    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(work(f"w{number}") for number in range(4)))
    finally:
        await database.dispose()


async def test_what_another_worker_is_about_to_begin_counts_as_running(postgres_url: str, tmp_path: Path) -> None:
    migrated.upgrade(postgres_url, tmp_path)
    database = Database(postgres_url, tmp_path)
    await store(database, keyed("K"), keyed("K"))
    with psycopg.connect(postgres_url) as other, connection(postgres_url) as run:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (ORDERED_LOCK,))
        other.execute("UPDATE khotan_runs SET status = 'running' WHERE event_id = 2")
        claim = asyncio.create_task(claimed(database, "shop.moved"))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        async with asyncio.timeout(30):
            while not claim.done() and run(waits) == [(0,)]:
                await asyncio.sleep(0.01)  # another process's lock
        other.commit()
        assert await claim == []
    await database.dispose()


async def test_only_runs_of_the_apps_own_handlers_are_taken_and_others_are_given_up_after_long(
    database: Database, database_url: str
) -> None:
    queue = HandlerQueue(database)
    await store(
        database, HandlerRun("shop.new", "catch"), HandlerRun("shop.off", "catch"), HandlerRun("shop.old", "catch")
    )
    assert [row.flow for row in await claimed(database, "shop.old")] == ["shop.old"]
    assert await queue.end_unknown(["shop.old"], utc_now() - timedelta(days=1)) == []
    with connection(database_url) as run:
        run("INSERT INTO khotan_webhook_handlers (name, enabled, updated_at) VALUES ('shop.off', false, '2026-01-01')")
    assert await queue.end_unknown(["shop.old"], utc_now() + timedelta(seconds=1)) == ["shop.new"]
    with connection(database_url) as run:
        found = run("SELECT flow, status FROM khotan_runs ORDER BY flow")
        (told,) = run("SELECT error FROM khotan_runs WHERE status = 'failed'")[0]
    assert found == [("shop.new", "failed"), ("shop.off", "pending"), ("shop.old", "running")]
    assert "unknown_handler" in str(told)


async def test_a_backlog_of_more_handlers_than_one_statement_looks_at(database: Database) -> None:
    names = [f"shop.h{number}" for number in range(230)]
    await store(database, *(HandlerRun(name, "catch") for name in names[::50]))
    assert [row.flow for row in await claimed(database, *names)] == names[::50]


def waiting(*flows: str, lost: int = 0) -> list[Any]:
    return [SimpleNamespace(id=f"{n}", flow=flow, event_id=n, lost=lost) for n, flow in enumerate(flows)]


def running(*flows: str, epoch: int = 1) -> list[Any]:
    return [SimpleNamespace(flow=flow, epoch=epoch, failures=0) for flow in flows]


def taken(rows: Sequence[Any], busy: Sequence[Any], handlers: str, concurrency: int = 8) -> str:
    ids = select_runs(rows, busy, list(handlers), concurrency)
    return "".join(next(row.flow for row in rows if row.id == run) for run in ids)


def test_places_are_shared() -> None:
    assert taken(waiting(*"aaaaaaaaaa"), [], "a") == "aaaaaaaa", "who is alone has them all"
    assert taken(waiting(*"aaaaaaaaaa"), [], "ab") == "aaaaaa"
    assert taken(waiting(*"aaaaaaaaabbb"), [], "ab") == "abababaa"
    assert taken(waiting(*"bbb"), running(*"aaaaaa"), "abc") == "b", "the last one is for c"
    assert taken(waiting(*"bbc"), running(*"aaaaaa"), "abc") == "bc"
    assert taken(waiting(*"bbb"), running(*"aaaaaa"), "ab") == "bb"
    assert taken(waiting(*"aab"), [], "ab", 2) == "ab"
    assert taken(waiting(*"aab"), [], "ab", 1) == "a"
    assert taken(waiting(*"aab"), running(*"a"), "ab", 1) == ""


def test_of_runs_that_may_bring_the_process_down_one_runs_at_a_time() -> None:
    assert taken(waiting(*"aaaa", lost=3), [], "ab") == "a"
    assert taken(waiting(*"aaaa", lost=3), running("b", epoch=4), "ab") == ""
    assert taken(waiting(*"aaaa", lost=2), running("b", epoch=4), "ab") == "aaaa"


HANGS = """
from pathlib import Path

slow = Wire(shop, name="slow", verify=signatures.unsigned())


@slow.catch()
async def hangs(event: Event[Any]) -> None:
    while not Path("go").exists():
        await asyncio.sleep(0.02)
"""


@pytest.mark.timeout(120)
def test_one_that_hangs_on_many_events_holds_up_no_other(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=HANGS)
    with served_app(project, KHOTAN_CONCURRENCY="4") as app, connection(database_url) as run:
        for number in range(6):
            assert send(app.url, order(number), "/api/khotan/webhook/shop/slow").status_code == 202
        wait_for(lambda: run("SELECT count(*) FROM khotan_runs WHERE status = 'running'") == [(3,)], "three that hang")
        assert send(app.url, order(9)).status_code == 202
        wait_for(lambda: run("SELECT id FROM seen") == [("evt_9",)], "the handler that works")
        (tmp_path / "go").touch()
        ended = "SELECT count(*) FROM khotan_runs WHERE status = 'completed'"
        wait_for(lambda: run(ended) == [(7,)], "all of them")


DEADLY = """
import os


@wire.catch("poison", retry=Retry(attempts=2, backoff=0.05))
async def deadly(event: Event[Any]) -> None:
    os._exit(9)
"""


@pytest.mark.timeout(120)
def test_an_event_that_kills_the_process_is_given_up(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=DEADLY)
    with served_app(project) as app:
        send(app.url, {"id": "p", "type": "poison"})
        app.process.join(120)
    with connection(database_url) as run:
        assert run("SELECT status, epoch FROM khotan_runs") == [("running", 1)]
        run("UPDATE khotan_runs SET epoch = 20")  # it was begun again and again
    with served_app(project) as app:
        shown = wait_for(
            lambda: (found := project.khotan("wire", "show", "1").json)["status"] == "failed" and found, "the end"
        )
        assert app.process.is_alive()
    (run_,) = shown["runs"]
    assert run_["error"]["error"] == "handler_deadly" and "crashed the process" in run_["error"]["message"]
    assert run_["error"]["next"] == ["khotan wire replay 1 --handler shop.deadly"]


LATER = """
@wire.catch("order.*")
async def later(event: Event[Any]) -> None: ...
"""


@pytest.mark.timeout(120)
def test_runs_of_a_handler_that_a_worker_lacks_wait_for_one_that_has_it(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=LATER)
    with served_app(project, KHOTAN_ENGINE="off") as app:
        assert send(app.url, order(1)).status_code == 202
    source = tmp_path / "khotan" / "wires" / "shop.py"
    new = source.read_text()
    source.write_text(new.replace(LATER, ""))
    states = "SELECT flow, status FROM khotan_runs ORDER BY flow"
    with connection(database_url) as run:
        with worker(project) as old:
            wait_for(lambda: ("shop.record", "completed") in run(states), "what the old worker has")
            old.stop()
        assert run(states) == [("shop.later", "pending"), ("shop.record", "completed")]
        assert project.khotan("wire", "show", "1").json["status"] == "pending"
        source.write_text(new)
        with worker(project) as young:
            wait_for(lambda: ("shop.later", "completed") in run(states), "what only the new one has")
            young.stop()


PASSES = """
@wire.pass_to(chat, "order.paid")
async def notify(event: Event[Any]) -> None:
    async with event.ctx.session() as session:
        await session.execute(text("INSERT INTO seen (id, amount) VALUES ('sent', 1)"))
"""


def test_while_a_plug_is_disabled_its_handlers_wait(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=PASSES)
    states = "SELECT flow, status FROM khotan_runs ORDER BY flow"
    with served_app(project) as app, connection(database_url) as run:
        assert project.khotan("plug", "chat", "--disable").code == 0
        assert send(app.url, order(1)).status_code == 202
        waits = [("shop.notify", "pending"), ("shop.record", "completed")]
        wait_for(lambda: run(states) == waits, "the handler of another plug alone")
        assert project.khotan("plug", "chat", "--enable").code == 0
        wait_for(lambda: ("shop.notify", "completed") in run(states), "what has waited")
