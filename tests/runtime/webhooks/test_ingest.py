"""What other systems post to an ingest: typed, told apart by their keys, of somebody, processed once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from khotan_cli.errors import ConfigError, KhotanError
from khotan_cli.runtime import Plug, ingest, signatures
from khotan_cli.runtime.webhooks.ingest import Ingest
from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest
from tests.support.flows import connection
from tests.support.project import Project
from tests.support.webhooks import Served, served_app, wait_for, webhook_project

INGESTS = '''
import asyncio
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text
from khotan_cli.runtime import Event, Resource, Retry, ingest, signatures
from .plugs.shop import shop

orders_resource = Resource("orders", connect_field="number", plugs={"shop": "id"})


class Order(BaseModel):
    id: str
    number: str
    amount: int
    tenant: str = ""


async def of(event: Event[Order]) -> str | None:
    """The tenant that a table knows, set up while the app runs. That of "slow" is known to nobody, which takes its time."""
    if event.data.tenant == "slow":
        await save(event, f"asked {event.data.number}", 0)
        while not await name_of(event, "gate"):
            await asyncio.sleep(0.02)  # the test opens it, from its own process
        return None
    return await name_of(event, event.data.tenant)


async def name_of(event: Event[Order], code: str) -> str | None:
    async with event.ctx.session() as session:
        found = await session.execute(text("SELECT name FROM tenants WHERE code = :code"), {"code": code})
        return found.scalar()


async def save(event: Event[Any], note: str, amount: int) -> None:
    async def work(session: Any) -> None:
        await session.execute(text("INSERT INTO seen (id, amount) VALUES (:id, :amount)"), {"id": note, "amount": amount})

    await event.ctx.write("save", work)


@ingest("/orders", model=Order, verify=signatures.token(header="X-Token"), plug=shop, resource="orders")
async def orders(event: Event[Order]) -> None:
    """Keeps an order."""
    found = await event.ctx.mapping("orders").lookup_ref("shop", event.data.id)
    await save(event, f"{event.type} {found.key[0] if found else 'unknown'}", event.data.amount)


@ingest("/tenants/orders", model=Order, verify=signatures.unsigned(), organisation=of, key_required=True)
async def of_tenants(event: Event[Order]) -> None:
    await save(event, f"{event.organisation} {event.data.number}", event.data.amount)


@ingest("/many", model=list[Order], verify=signatures.unsigned(), key="0.number")
async def many(event: Event[list[Order]]) -> None:
    await save(event, "many", sum(order.amount for order in event.data))
'''
ORDERS = "/api/khotan/ingest/orders"
TENANTS = "/api/khotan/ingest/tenants/orders"


class Shop(Plug):
    base_url = "http://shop.invalid"


@dataclass
class Target:
    app: Served
    url: str
    project: Project

    def post(self, body: Any, path: str = ORDERS, **fields: str) -> httpx.Response:
        headers = {"Content-Type": "application/json", "X-Token": "let-me-in", **fields}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.app.url + path, content=content, headers=headers, timeout=90)

    def rows(self, statement: str, *values: Any) -> list[Any]:
        with connection(self.url) as run:
            return run(statement, *values)

    def seen(self, note: str) -> Any:
        return wait_for(lambda: self.rows("SELECT amount FROM seen WHERE id = $", note), f"the row {note!r}")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("ingest")
    with ExitStack() as stack:
        url = f"sqlite:///{folder}/khotan.db"
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("postgres_server").database())
        yield from _target(folder, url)


def _target(folder: Path, url: str) -> Iterator[Target]:
    project = webhook_project(folder, url)
    (folder / "khotan" / "ingests.py").write_text(INGESTS)
    with connection(url) as run:
        run("CREATE TABLE tenants (code TEXT, name TEXT)")
        run("INSERT INTO tenants VALUES ('a', 'acme')")
    with served_app(project, INGEST_ORDERS_SECRET="let-me-in") as app:
        yield Target(app, url, project)


def an_order(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"o-{number}", "number": f"N{number}", "amount": number, **more}


def test_a_record_is_stored_acknowledged_mapped_and_processed(target: Target) -> None:
    answer = target.post(an_order(1), **{"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()["duplicate"]) == (202, False)
    assert target.seen("orders N1") == [(1,)]
    assert target.rows("SELECT ref FROM khotan_mapping_refs WHERE plug = 'shop'") == [("o-1",)]


async def test_a_key_names_one_record(target: Target) -> None:
    key = {"Idempotency-Key": "k2"}
    first, again, other = (target.post(an_order(n), **key) for n in (2, 2, 3))
    assert [(a.status_code, a.json().get("duplicate")) for a in (first, again)] == [(202, False), (202, True)]
    assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")
    assert target.rows("SELECT count(*) FROM khotan_runs WHERE event_id = $", int(first.json()["id"])) == [(1,)]
    async with httpx.AsyncClient(base_url=target.app.url, timeout=90) as client:
        fields = {"X-Token": "let-me-in", "Idempotency-Key": "k-many"}
        answers = await asyncio.gather(*(client.post(ORDERS, json=an_order(4), headers=fields) for _ in range(30)))
    assert [a.json()["duplicate"] for a in answers].count(False) == 1
    without = [target.post(an_order(5)).json()["duplicate"] for _ in range(2)]
    assert without == [False, True]  # equal bodies without a key are one


def test_what_is_not_a_record_is_refused_and_not_stored(target: Target) -> None:
    before = target.rows("SELECT count(*) FROM khotan_webhook_events")
    cases = [
        (target.post({"id": "x", "number": 7}), 422, "record_invalid"),
        (target.post(b"{not json"), 422, "record_invalid"),
        (target.post(b'{"id": "\xff"}'), 422, "record_invalid"),
        (target.post(b"[" * 10_000), 422, "record_invalid"),
        (target.post(an_order(6), **{"Content-Type": "text/csv"}), 415, "unsupported_media_type"),
        (target.post(an_order(6), **{"X-Token": "guess"}), 401, "signature_invalid"),
        (target.post(an_order(6), TENANTS), 400, "idempotency_key_missing"),
        (target.post(an_order(6), "/api/khotan/ingest/nowhere"), 404, "unknown_wire"),
        (target.post(an_order(6), "/api/khotan/webhook/ingest/orders"), 404, "unknown_wire"),
        (httpx.get(target.app.url + ORDERS), 405, "method_not_allowed"),
        (target.post(b" " * 1_100_000), 413, "body_too_large"),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    fields = {one["path"]: one["message"] for one in cases[0][0].json()["fields"]}
    assert set(fields) == {"number", "amount"} and "7" not in str(fields)
    assert target.rows("SELECT count(*) FROM khotan_webhook_events") == before


def test_what_is_nobodys_is_parked_until_it_is_replayed(target: Target) -> None:
    accepted = target.post(an_order(10, tenant="a"), TENANTS, **{"Idempotency-Key": "t1"})
    assert accepted.status_code == 202 and target.seen("acme N10") == [(10,)]
    for number, tenant in ((11, "b"), (12, "c")):
        target.post(an_order(number, tenant=tenant), TENANTS, **{"Idempotency-Key": f"t{number}"})
    parked = "SELECT remote_id FROM khotan_webhook_events WHERE parked IS NOT NULL ORDER BY remote_id"
    assert wait_for(lambda: len(found := target.rows(parked)) == 2 and found, "two parked") == [("t11",), ("t12",)]
    listed = target.project.khotan("wire", "events", "--status", "parked").json
    assert [(e["status"], e["parked"]) for e in listed["items"]] == [
        ("parked", "No organisation was found for the record")
    ] * 2
    assert all(run["status"] == "completed" for event in listed["items"] for run in event["runs"])
    # Somebody sets up the tenant: what was parked for want of it is asked about again, the rest stays.
    with connection(target.url) as run:
        run("INSERT INTO tenants VALUES ('b', 'bolt')")
    assert len(target.project.khotan("wire", "replay", "--parked").json["runs"]) == 2
    assert target.seen("bolt N11") == [(11,)]
    assert wait_for(lambda: target.rows(parked) == [("t12",)], "one parked again")
    (left,) = target.project.khotan("wire", "events", "--status", "parked").json["items"]
    target.project.khotan("wire", "replay", left["id"], "--organisation", "corner")
    assert target.seen("corner N12") == [(12,)]
    assert target.project.khotan("wire", "show", left["id"]).json["organisation"] == "corner"


def test_whose_it_is_stays_said_where_an_earlier_run_finds_nobody_afterwards(target: Target) -> None:
    key = {"Idempotency-Key": "t13"}
    event = target.post(an_order(13, tenant="slow"), TENANTS, **key).json()["id"]
    target.seen("asked N13")
    said = target.project.khotan("wire", "replay", event, "--organisation", "corner")
    assert said.code == 0 and target.seen("corner N13") == [(13,)]
    with connection(target.url) as run:
        run("INSERT INTO tenants VALUES ('gate', 'open')")
    ended = "SELECT source, message FROM khotan_runs WHERE event_id = $ AND status = 'completed' ORDER BY source"
    runs = wait_for(lambda: len(found := target.rows(ended, int(event))) == 2 and found, "both runs")
    assert [source for source, _ in runs] == ["manual", "webhook"] and "corner" in runs[1][1]
    shown = target.project.khotan("wire", "show", event).json
    assert (shown["organisation"], shown["parked"], shown["status"]) == ("corner", None, "completed")
    assert target.rows("SELECT count(*) FROM seen WHERE id = $", "corner N13") == [(1,)]


def test_waiting_for_a_record_that_stays_parked_fails(target: Target) -> None:
    target.post(an_order(14, tenant="nobody"), TENANTS, **{"Idempotency-Key": "t14"})
    parked = "SELECT id FROM khotan_webhook_events WHERE remote_id = 't14' AND parked IS NOT NULL"
    event = str(wait_for(lambda: target.rows(parked), "a parked one")[0][0])
    for words in ([event], ["--parked"]):
        done = target.project.khotan("wire", "replay", *words, "--wait")
        assert (done.code, done.json["error"]) == (1, "run_failed"), done.stdout
        assert "parked" in done.json["message"] and done.json["next"]
    done = target.project.khotan("wire", "replay", event, "--organisation", "corner", "--wait")
    assert done.code == 0 and target.seen("corner N14") == [(14,)]


def test_several_records_come_in_one_body(target: Target) -> None:
    answer = target.post([an_order(20), an_order(21)], "/api/khotan/ingest/many")
    assert answer.status_code == 202 and target.seen("many") == [(41,)]
    assert target.rows("SELECT remote_id FROM khotan_webhook_events WHERE id = $", int(answer.json()["id"])) == [
        ("N20",)
    ]


def test_commands_know_an_ingest(target: Target) -> None:
    wires = {wire["id"]: wire for wire in target.project.khotan("wire", "list").json["items"]}
    assert wires["ingest/orders"]["kind"] == "ingest" and wires["ingest/orders"]["path"] == "/ingest/orders"
    assert wires["ingest/many"]["plug"] is None
    refused = target.project.khotan("wire", "create", "ingest/orders")
    assert (refused.code, refused.json["error"]) == (1, "wire_not_managed")
    sent = target.project.khotan(
        "wire", "send", "ingest/tenants/orders", "orders", "--body", json.dumps(an_order(30, tenant="a"))
    )
    assert sent.code == 0, sent.json
    assert target.seen("acme N30") == [(30,)]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"ref": ""}', "record_invalid"),
        ("{}", "record_invalid"),
        ('{"ref": {"id": 1}}', "record_invalid"),
        ('{"ref": 7}', None),
        ('{"at": "k"}', "record_invalid"),
    ],
)
def test_a_key_in_the_body_that_is_required_is_insisted_on(body: str, code: str | None) -> None:
    async def take(event: Any) -> None: ...

    handler = ingest("/refs", model=dict, verify=signatures.unsigned(), key="ref", key_required=True)(take)
    endpoint = handler.wire
    assert isinstance(endpoint, Ingest)
    request = WebhookRequest("POST", "", Headers({"Content-Type": "application/json"}), body.encode())
    if code is None:
        endpoint.check_body(request)
        return
    with pytest.raises(KhotanError, match="ref") as raised:
        endpoint.check_body(request)
    assert (raised.value.code, raised.value.http_status) == (code, 422)
    assert raised.value.details["fields"] == [{"path": "ref", "message": "Field required"}]


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("orders", {}),
        ("/orders/", {}),
        ("/orders", {"resource": "orders"}),
        ("/orders", {"plug": Shop()}),
    ],
)
def test_a_declaration_that_cannot_hold_is_refused(path: str, options: dict[str, Any]) -> None:
    async def take(event: Any) -> None: ...

    with pytest.raises(ConfigError):
        ingest(path, model=dict, verify=signatures.unsigned(), **options)(take)
