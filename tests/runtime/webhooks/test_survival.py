"""What webhooks survive: kill -9 after the acknowledgement, a database that is away, handlers that fail or hang."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.flows import connection, worker
from tests.support.postgres import running_server, stopped
from tests.support.webhooks import APP, HOOK, order, send, served_app, signed, wait_for, webhook_project

COUNT = 500


def one(url: str, statement: str, *values: Any) -> Any:
    with connection(url) as run:
        return run(statement, *values)


async def burst(url: str, numbers: range) -> list[int]:
    """Send events, sixteen at a time; the status of each."""
    places = asyncio.Semaphore(16)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def post(number: int) -> int:
            async with places:
                body, fields = signed(order(number))
                return (await client.post(HOOK, content=body, headers=fields)).status_code

        return await asyncio.gather(*(post(number) for number in numbers))


@pytest.mark.timeout(150)
async def test_five_hundred_acknowledged_then_killed_are_all_processed_once(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url)
    with served_app(project) as app:
        statuses = await burst(app.url, range(COUNT))
        app.kill()
    assert statuses == [202] * COUNT
    with served_app(project):
        done = "SELECT count(*) FROM khotan_runs WHERE status = 'completed'"
        wait_for(lambda: one(database_url, done) == [(COUNT,)], "500 completed runs", 240)
    found = one(database_url, "SELECT count(*), count(DISTINCT id), sum(amount) FROM seen")
    assert found == [(COUNT, COUNT, sum(range(COUNT)))]
    assert one(database_url, "SELECT count(*) FROM khotan_runs WHERE status <> 'completed'") == [(0,)]


STEPS = """
@step()
async def once(ctx: FlowContext, key: str) -> str:
    async with ctx.session() as session:
        await session.execute(text("INSERT INTO seen (id, amount) VALUES (:id, -1)"), {"id": key})
    return key


@wire.catch("stepped")
async def stepped(event: Event[Any]) -> None:
    await once(event.ctx, event.remote_id)
    if event.attempt < 3:
        raise ValueError("not yet")

"""


@pytest.mark.timeout(120)
async def test_a_database_that_is_away_means_503_and_never_202(tmp_path: Path) -> None:
    name = f"hooks-{uuid.uuid4().hex[:8]}"
    with running_server(name) as server:
        url = f"{server.url}/postgres"
        project = webhook_project(tmp_path, url)
        with served_app(project) as app:
            assert send(app.url, order(1)).status_code == 202
            with stopped(server, name):
                answers = [send(app.url, order(number)) for number in range(2, 6)]
            assert [a.status_code for a in answers] == [503] * 4
            assert all(int(a.headers["Retry-After"]) > 0 for a in answers)
            assert {a.json()["error"] for a in answers} == {"unavailable"}, "where the database is, is not told"
            assert "database_unreachable" in app.output
            wait_for(lambda: send(app.url, order(2)).status_code == 202, "the database to be back")
            wait_for(lambda: one(url, "SELECT count(*) FROM seen") == [(2,)], "both events processed")


IMPATIENT = """
from khotan_cli.runtime.worker import execution
from khotan_cli.runtime.runs import steps as recorder
from khotan_cli.runtime.webhooks.handling import worker as deliver

for module in (deliver, execution, recorder):
    module.OUTAGE_SECONDS = 0.5
"""
WAITING = """
from pathlib import Path


@wire.catch("waits")
async def waits(event: Event[Any]) -> None:
    Path(f"begun-{event.ctx.recorder.epoch}").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
"""


@pytest.mark.timeout(120)
async def test_a_run_whose_end_could_not_be_stored_is_run_again(tmp_path: Path) -> None:
    name = f"hooks-{uuid.uuid4().hex[:8]}"
    with running_server(name) as server:
        url = f"{server.url}/postgres"
        project = webhook_project(tmp_path, url, wire=WAITING, app=IMPATIENT + APP)
        with served_app(project) as app:
            assert send(app.url, {"id": "w", "type": "waits"}).status_code == 202
            wait_for((tmp_path / "begun-1").exists, "the handler")
            with stopped(server, name):
                (tmp_path / "go").touch()
                wait_for(lambda: "could not be stored" in app.output, "the run to give up")
            ended = "SELECT status, epoch FROM khotan_runs"
            wait_for(lambda: one(url, ended) == [("completed", 2)], "the run to be done again")


FAILING = (
    STEPS
    + """
@wire.catch("order.*", retry=Retry(attempts=3, backoff=0.05))
async def fails(event: Event[Any]) -> None:
    raise ValueError(f"attempt {event.attempt}")


@wire.catch("order.*", retry=Retry(attempts=2, backoff=0.05), timeout=0.3)
async def hangs(event: Event[Any]) -> None:
    await asyncio.sleep(60)


@wire.catch("blocks", retry=Retry(attempts=1), timeout=0.2)
async def blocks(event: Event[Any]) -> None:
    time.sleep(8)
"""
)


@pytest.mark.timeout(120)
def test_one_that_fails_holds_up_no_other(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=FAILING)
    with served_app(project) as app:
        send(app.url, {"id": "b", "type": "blocks"})
        send(app.url, order(1))
        wait_for(lambda: one(database_url, "SELECT amount FROM seen WHERE id = 'evt_1'"), "the handler that works")
        ended = "SELECT flow, status, failures, error FROM khotan_runs WHERE status NOT IN ('pending', 'running') ORDER BY flow"
        wait_for(lambda: len(one(database_url, ended)) == 4, "four ends")
    found = {flow: (status, failures, document(error)) for flow, status, failures, error in one(database_url, ended)}
    assert found["shop.record"][:2] == ("completed", 0)
    assert found["shop.fails"][:2] == ("failed", 2)
    assert "attempt 3" in found["shop.fails"][2]["message"]
    assert found["shop.fails"][2]["hint"] == "Correct the handler's code, then replay the event."
    assert found["shop.fails"][2]["next"] == ["khotan wire replay 2 --handler shop.fails"]
    assert found["shop.hangs"][2]["error"] == "flow_timeout"
    assert not any("retry" in error.get("hint", "") for _, _, error in found.values())
    assert found["shop.blocks"][0] == "failed" and "blocked its thread" in found["shop.blocks"][2]["message"]


ODD = """
@wire.catch("odd", retry=Retry(attempts=2, backoff=0.05))
async def odd(event: Event[Any]) -> None:
    await event.ctx.log(event.data["text"])
    raise ValueError(event.data["text"] + "\\ud800")
"""


def test_what_a_handler_raises_can_always_be_stored(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=ODD)
    with served_app(project) as app:
        send(app.url, {"id": "o", "type": "odd", "text": "a\x00b"})
        failed = "SELECT error FROM khotan_runs WHERE status = 'failed'"
        ((error,),) = wait_for(lambda: one(database_url, failed), "the end of the run")
    assert document(error)["message"] == "ValueError: a\ufffdb\ufffd"
    assert one(database_url, "SELECT DISTINCT message FROM khotan_run_updates") == [("a\ufffdb",)]


def document(error: Any) -> dict[str, Any]:
    return dict(json.loads(error) if isinstance(error, str) else error or {})


def test_a_step_of_a_handler_is_not_done_again(database_url: str, tmp_path: Path) -> None:
    stepped = STEPS.replace('@wire.catch("stepped")', '@wire.catch("stepped", retry=Retry(attempts=4, backoff=0.05))')
    project = webhook_project(tmp_path, database_url, wire=stepped)
    with served_app(project) as app:
        send(app.url, {"id": "s1", "type": "stepped"})
        done = "SELECT status, failures, epoch FROM khotan_runs WHERE flow = 'shop.stepped'"
        wait_for(lambda: one(database_url, done)[0][0] == "completed", "the third try")
    assert one(database_url, done) == [("completed", 2, 3)]
    assert one(database_url, "SELECT count(*) FROM seen WHERE id = 's1'") == [(1,)]


ORDERED = """
@wire.catch("moved", ordered_by="customer", retry=Retry(attempts=3, backoff=0.05))
async def moved(event: Event[Any]) -> None:
    if event.data["n"] % 5 == 0 and event.attempt == 1:
        raise ValueError("later")
    await asyncio.sleep(0.01)
    async with event.ctx.session() as session:
        values = {"id": event.data["customer"], "n": event.data["n"]}
        await session.execute(text("INSERT INTO seen (id, amount) VALUES (:id, :n)"), values)
"""


@pytest.mark.timeout(120)
def test_events_of_one_key_are_processed_in_their_order(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=ORDERED)
    with served_app(project, KHOTAN_ENGINE="off") as app:
        for number in range(30):
            assert send(
                app.url, {"id": f"m{number}", "type": "moved", "customer": f"c{number % 3}", "n": number}
            ).is_success
        with connection(database_url) as run:
            run(
                "ALTER TABLE seen ADD COLUMN at INTEGER"
                if "sqlite" in database_url
                else "ALTER TABLE seen ADD COLUMN at SERIAL"
            )
        with worker(project) as running:
            wait_for(lambda: one(database_url, "SELECT count(*) FROM seen") == [(30,)], "30 rows")
            running.stop()
    order_of = "rowid" if "sqlite" in database_url else "at"
    for customer in range(3):
        found = one(database_url, f"SELECT amount FROM seen WHERE id = 'c{customer}' ORDER BY {order_of}")
        assert [n for (n,) in found] == list(range(customer, 30, 3))


@pytest.mark.timeout(120)
def test_a_killed_workers_handlers_are_adopted(postgres_url: str, tmp_path: Path) -> None:
    slow = """
@wire.catch("slow")
async def slow(event: Event[Any]) -> None:
    if event.data["wait"] and event.ctx.recorder.epoch == 1:
        await asyncio.sleep(60)
    async with event.ctx.session() as session:
        await session.execute(text("INSERT INTO seen (id, amount) VALUES (:id, 1)"), {"id": event.remote_id})
"""
    project = webhook_project(tmp_path, postgres_url, wire=slow)
    with served_app(project, KHOTAN_ENGINE="off") as app, worker(project) as first:
        for number in range(4):
            send(app.url, {"id": f"w{number}", "type": "slow", "wait": True})
        running = "SELECT count(*) FROM khotan_runs WHERE status = 'running'"
        wait_for(lambda: one(postgres_url, running) == [(4,)], "four handlers that run")
        with worker(project) as second:
            first.kill()
            wait_for(lambda: one(postgres_url, "SELECT count(*) FROM seen") == [(4,)], "four adopted")
            second.stop()
    assert one(postgres_url, "SELECT DISTINCT epoch FROM khotan_runs") == [(2,)]


BESIDE = """
beside = Wire(chat, verify=signatures.unsigned())


@beside.catch()
async def passed_by(event: Event[Any]) -> None: ...
"""


def test_while_disabled_events_are_stored_and_then_run(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=BESIDE)
    with served_app(project) as app:
        for name in ("shop", "shop.record"):
            assert project.khotan("wire", "disable", name).code == 0
            number = 1 if name == "shop" else 2
            assert send(app.url, order(number)).status_code == 202
            assert send(app.url, order(number), "/api/khotan/webhook/chat").status_code == 202
            done = "SELECT count(*) FROM khotan_runs WHERE flow = 'chat.passed_by' AND status = 'completed'"
            later = [(number,)]
            wait_for(lambda: one(database_url, done) == later, "what came later to be done")  # noqa: B023 - called at once
            assert one(database_url, "SELECT flow FROM khotan_runs WHERE status = 'pending'") == [("shop.record",)]
            assert project.khotan("wire", "enable", name).code == 0
            seen = "SELECT count(*) FROM seen"
            wait_for(lambda: one(database_url, seen) == later, "what had waited")  # noqa: B023 - called at once
