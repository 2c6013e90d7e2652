"""Runs of handlers beside those of flows: listed, cancelled, not retried but replayed, told of, swept."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.store.events import EventStore
from khotan_cli.runtime.store.incoming import HandlerRun, Incoming
from khotan_cli.runtime.webhooks.inbound.group_commit import GroupCommit
from tests.support.flows import connection
from tests.support.webhooks import order, send, served_app, wait_for, webhook_project

HOOKED = '''
import asyncio
from pathlib import Path
from khotan_cli.runtime import Hooks, Khotan


async def note(event):
    """One line for each event."""
    if event.type == "hang":
        await asyncio.Event().wait()
    with Path("told").open("a") as file:
        file.write(f"{event.wire} {event.type} {event.remote_id} {','.join(event.handlers)}\\n")
    raise RuntimeError("a hook that raises changes nothing")


khotan = Khotan(__package__, authorize=False, hooks=Hooks(on_webhook_received=note))
app = khotan.asgi()
'''


def test_a_handlers_runs_are_listed_cancelled_and_replayed_rather_than_retried(
    database_url: str, tmp_path: Path
) -> None:
    project = webhook_project(tmp_path, database_url)
    with served_app(project) as app:
        assert send(app.url, order(1)).status_code == 202
        wait_for(lambda: project.khotan("wire", "show", "1").json["status"] == "completed", "the first run")
        project.khotan("wire", "disable", "shop")
        assert send(app.url, order(2)).status_code == 202
    listed = project.khotan("flows", "runs", "shop.record").json["items"]
    assert [(run["status"], run["source"]) for run in listed] == [("pending", "webhook"), ("completed", "webhook")]
    waiting, ended = (run["id"] for run in listed)
    assert project.khotan("flows", "cancel", waiting).json["ok"] is True
    assert project.khotan("wire", "show", "2").json["status"] == "cancelled"
    retried = project.khotan("flows", "retry", ended)
    assert (retried.code, retried.json["error"]) == (1, "run_of_event")
    assert retried.json["next"] == ["khotan wire replay 1 --handler shop.record"]
    project.khotan("wire", "enable", "shop")
    replayed = project.khotan("wire", "replay", "1", "--handler", "shop.record", "--wait")
    assert [run["status"] for run in replayed.json["ended"]] == ["completed"]
    unknown = project.khotan("flows", "runs", "shop.recrd")
    assert unknown.code == 2 and "shop.record" in unknown.json["hint"]


FAILS = """
@wire.catch("slow.*", retry=Retry(attempts=3, backoff=1000.0, max_backoff=1000.0))
async def slow(event: Event[Any]) -> None:
    if event.attempt == 1:
        raise ValueError("not yet")
"""


def test_a_replay_hastens_a_run_that_waits_for_its_next_try(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=FAILS)
    with served_app(project) as app:
        assert send(app.url, {"id": "evt_1", "type": "slow.order"}).status_code == 202
        wait_for(lambda: project.khotan("wire", "show", "1").json["runs"][0]["failures"] == 1, "the first failure")
        replayed = project.khotan("wire", "replay", "1").json["runs"]
        runs = wait_for(
            lambda: [run for run in project.khotan("wire", "show", "1").json["runs"] if run["status"] == "completed"],
            "the second try",
        )
    assert [run["id"] for run in runs] == replayed and len(replayed) == 1


TWO = """
@wire.catch("bulk")
async def one(event: Event[Any]) -> None: ...


@wire.catch("bulk")
async def two(event: Event[Any]) -> None: ...
"""


async def test_all_that_failed_is_replayed_once(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=TWO)
    database = Database(database_url, tmp_path)
    handlers = [HandlerRun("shop.one", "catch"), HandlerRun("shop.two", "catch"), HandlerRun("shop.gone", "catch")]
    await EventStore(database).store(
        [Incoming("shop", f"evt_{n}", "bulk", "POST", {}, "application/json", b"{}", handlers) for n in range(120)]
    )
    await database.dispose()
    with connection(database_url) as run:
        run("UPDATE khotan_runs SET status = 'failed'")
        run("UPDATE khotan_runs SET status = 'completed' WHERE flow = 'shop.two' AND event_id = 1")
    made = project.khotan("wire", "replay", "--failed").json["runs"]
    assert len(made) == len(set(made)) == 239
    with connection(database_url) as run:
        found = run("SELECT flow, count(*) FROM khotan_runs WHERE status = 'pending' GROUP BY flow ORDER BY flow")
    assert found == [("shop.one", 120), ("shop.two", 119)]
    assert project.khotan("wire", "replay", "--failed").json["runs"] == []
    assert len(project.khotan("wire", "replay", "1").json["runs"]) == 2, "one waits, one is new"


def test_the_app_is_told_of_each_new_event_once(tmp_path: Path) -> None:
    project = webhook_project(tmp_path, f"sqlite:///{tmp_path}/khotan.db", app=HOOKED)
    with served_app(project) as app:
        answers = [send(app.url, order(number)) for number in (1, 1, 2)]
        answers.append(send(app.url, {"id": "evt_3", "type": "hang"}))  # its sender need not wait for ever
    assert [answer.status_code for answer in answers] == [202] * 4
    told = (tmp_path / "told").read_text().splitlines()
    assert told == [f"shop order.paid evt_{number} shop.record" for number in (1, 2)]


async def test_an_event_that_comes_as_another_is_committed_is_committed_too(database_url: str, tmp_path: Path) -> None:
    webhook_project(tmp_path, database_url)
    database = Database(database_url, tmp_path)
    inbox = GroupCommit(EventStore(database), lambda: None)
    for number in range(5):  # each at the very moment the one before is done
        event = Incoming("shop", f"evt_{number}", "order.paid", "POST", {}, "", b"{}")
        async with asyncio.timeout(90):
            assert (await inbox.put(event)).new
    await database.dispose()


async def test_retention_sweeps_events_that_are_done_with_their_runs(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url)
    with served_app(project) as app:
        send(app.url, order(1))
        wait_for(lambda: project.khotan("wire", "show", "1").json["status"] == "completed", "the run")
        project.khotan("wire", "disable", "shop")
        send(app.url, order(2))
        send(app.url, order(3))
    with connection(database_url) as run:
        run("UPDATE khotan_webhook_events SET parked = 'nobody' WHERE remote_id = 'evt_3'")
    database = Database(database_url, tmp_path)
    try:
        store = EventStore(database)
        assert await store.sweep(utc_now() - timedelta(hours=1)) == 0
        assert await store.sweep(utc_now() + timedelta(seconds=1)) == 1
    finally:
        await database.dispose()
    with connection(database_url) as run:
        assert run("SELECT remote_id FROM khotan_webhook_events ORDER BY id") == [("evt_2",), ("evt_3",)]
        assert run("SELECT count(*) FROM khotan_runs") == [(2,)]


ENDS = """
import sys
from pathlib import Path
from khotan_cli.runtime import Hooks


def told(info) -> None:
    with Path("told").open("a") as file:
        file.write(f"{info.flow} {info.status}\\n")


HOOKS = Hooks(on_failure=told, on_end=told)


@wire.catch("exit", retry=Retry(attempts=2, backoff=0.01))
async def exits(event: Event[Any]) -> None:
    sys.exit(3)


@wire.catch("cancel", retry=Retry(attempts=1))
async def cancels(event: Event[Any]) -> None:
    raise asyncio.CancelledError


@wire.catch("block", retry=Retry(attempts=1), timeout=0.1, hooks=HOOKS)
async def blocks(event: Event[Any]) -> None:
    time.sleep(60)


@wire.catch("wait", hooks=HOOKS)
async def waits(event: Event[Any]) -> None: ...
"""


def test_handlers_that_would_end_the_process_fail_alone(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=ENDS)
    with served_app(project, KHOTAN_CONCURRENCY="1") as app:
        for number, kind in enumerate(("exit", "cancel", "order.paid")):
            assert send(app.url, order(number, type=kind)).status_code == 202
        for number, status in ((1, "failed"), (2, "failed"), (3, "completed")):
            wait_for(lambda: project.khotan("wire", "show", str(number)).json["status"] == status, status)  # noqa: B023
    runs = [project.khotan("wire", "show", number).json["runs"][0] for number in ("1", "2")]
    assert [run["error"]["error"] for run in runs] == ["flow_failed"] * 2
    assert "'shop.exits' tried to exit the process with SystemExit(3)" in runs[0]["error"]["message"]
    assert "'shop.cancels' cancelled itself" in runs[1]["error"]["message"]


def test_hooks_are_told_of_handlers_runs_that_are_ended_from_outside(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=ENDS)
    with served_app(project) as app:
        assert send(app.url, order(1, type="block")).status_code == 202
        wait_for(lambda: project.khotan("wire", "show", "1").json["status"] == "failed", "the timeout")
        wait_for(lambda: (tmp_path / "told").read_text().count("\n") == 2, "the hooks")
        project.khotan("wire", "disable", "shop")
        assert send(app.url, order(2, type="wait")).status_code == 202
        waiting = project.khotan("flows", "runs", "shop.waits").json["items"][0]["id"]
        assert project.khotan("flows", "cancel", waiting).json["status"] == "cancelled"
        assert project.khotan("flows", "cancel", waiting).json["error"] == "run_finished"
    told = (tmp_path / "told").read_text().splitlines()
    assert told == ["shop.blocks failed", "shop.blocks failed", "shop.waits cancelled"]


async def test_what_a_later_run_has_put_right_is_not_failed_any_more(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url)
    database = Database(database_url, tmp_path)
    handlers = [HandlerRun("shop.record", "catch"), HandlerRun("shop.gone", "catch")]
    await EventStore(database).store(
        [
            Incoming("shop", f"evt_{number}", "order.paid", "POST", {}, "application/json", b"{}", [handler])
            for number, handler in enumerate(handlers)
        ]
    )
    await database.dispose()
    with connection(database_url) as run:
        run("UPDATE khotan_runs SET status = 'failed'")
        assert project.khotan("wire", "events", "--status", "failed").json["total"] == 2
        assert project.khotan("wire", "list").json["items"][0]["failed"] == 2
        replayed = project.khotan("wire", "replay", "--failed").json
        assert len(replayed["runs"]) == 1 and replayed["gone"] == {"shop.gone": 1}
        run("UPDATE khotan_runs SET status = 'completed' WHERE status = 'pending'")
    failed = project.khotan("wire", "events", "--status", "failed").json
    assert [(item["remoteId"], item["status"]) for item in failed["items"]] == [("evt_1", "failed")]
    assert project.khotan("wire", "events", "--status", "completed").json["total"] == 1
    assert project.khotan("wire", "list").json["items"][0]["failed"] == 1
    told = project.khotan("wire", "replay", "--failed", json_mode=False)
    assert told.code == 0 and "1 failed runs of shop.gone" in told.stdout and "There are no failed" not in told.stdout


OTHER = """
other = Wire(chat, verify=signatures.unsigned())


@other.catch()
async def elsewhere(event: Event[Any]) -> None: ...
"""


def test_a_replay_is_of_the_events_own_wire(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=OTHER)
    with served_app(project, KHOTAN_ENGINE="off") as app:
        assert send(app.url, order(1)).status_code == 202
    foreign = project.khotan("wire", "replay", "1", "--handler", "chat.elsewhere")
    assert (foreign.code, foreign.json["error"]) == (2, "invalid_input") and "'shop'" in foreign.json["message"]
    nobodys = project.khotan("wire", "replay", "1", "--organisation", "acme")
    assert (nobodys.code, nobodys.json["error"]) == (2, "invalid_input") and "organisation" in nobodys.json["message"]
    with connection(database_url) as run:
        assert run("SELECT flow, status FROM khotan_runs") == [("shop.record", "pending")]
        assert run("SELECT organisation FROM khotan_webhook_events") == [(None,)]
