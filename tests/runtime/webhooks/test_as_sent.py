"""A served app and what senders really send: below the wire's path, equal bodies, keys of several organisations."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest
from khotan_cli.runtime.webhooks.verify import signatures
from tests.support.flows import connection
from tests.support.project import Project
from tests.support.webhooks import HOOK, SIGNING_SECRET, Served, served_app, signed, wait_for, webhook_project

WIRES = """
from khotan_cli.runtime import Rule, ingest, joined

rooms = Wire(
    shop, name="rooms", verify=signatures.unsigned(), methods=["PUT"], below="transactions/{id}", event_id=Rule(path="id"),
    event_type=joined("entity", "action"),
)
free = Wire(shop, name="free", verify=signatures.unsigned(), duplicates_within=0)
soon = Wire(shop, name="soon", verify=signatures.unsigned(), duplicates_within=3600)
ping = Wire(shop, name="ping", verify=signatures.zoom())


@rooms.catch("room.*")
async def entered(event: Event[Any]) -> None:
    async def save(session: Any) -> None:
        values = {"id": f"{event.type} {event.path['id']}", "amount": 1}
        await session.execute(text("INSERT INTO seen (id, amount) VALUES (:id, :amount)"), values)

    await event.ctx.write("save", save)


@wire.catch("leak", retry=Retry(attempts=1))
async def leak(event: Event[Any]) -> None:
    await event.ctx.log("logged SECRET")
    raise RuntimeError("failed with SECRET")


async def of(event: Event[Order]) -> str | None:
    # What the header says; X-Late is what only the run can say.
    late = event.headers.get("x-late")
    if late and event.id == "":
        raise RuntimeError("the directory is away")
    return late or event.headers.get("x-org")


@ingest("/orders", model=Order, verify=signatures.unsigned(), organisation=of)
async def orders(event: Event[Order]) -> None:
    return None
""".replace("SECRET", SIGNING_SECRET)
ORDERS = "/api/khotan/ingest/orders"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Project, str]]:
    folder = tmp_path_factory.mktemp("as_sent")
    with ExitStack() as stack:
        url = f"sqlite:///{folder}/khotan.db"
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("postgres_server").database())
        project = webhook_project(folder, url, wire=WIRES)
        app = stack.enter_context(served_app(project, SHOP_PING_WEBHOOK_SECRET="zooms"))
        yield app, project, url


def test_a_wire_receives_below_its_path(target: tuple[Served, Project, str]) -> None:
    app, project, url = target
    body = json.dumps({"entity": "room", "action": "entered"})
    base = f"{app.url}{HOOK}/rooms"
    first, again = (httpx.put(f"{base}/transactions/a%2F1", content=body) for _ in range(2))
    other = httpx.put(f"{base}/transactions/2", content=body)
    assert [a.status_code for a in (first, again, other)] == [202] * 3
    assert [a.json()["duplicate"] for a in (first, again, other)] == [False, True, False]
    for wrong in ("", "/transactions", "/transactions/1/2", "/other/1"):
        assert httpx.put(base + wrong, content=body).json()["error"] == "unknown_wire"
    project.khotan("wire", "replay", first.json()["id"], "--wait")
    with connection(url) as run:
        wait_for(lambda: ("room.entered a/1",) in run("SELECT id FROM seen"), "the handler's row")
    shown = project.khotan("wire", "show", first.json()["id"]).json
    assert (shown["path"], shown["remoteId"]) == ({"id": "a/1"}, "a/1")


def test_equal_bodies_within_a_window_only(target: tuple[Served, Project, str]) -> None:
    app, _, url = target

    def sent(name: str) -> bool:
        return bool(httpx.post(f"{app.url}{HOOK}/{name}", content=b'{"n":1}').json()["duplicate"])

    assert [sent("free") for _ in range(3)] == [False] * 3
    assert [sent("soon") for _ in range(3)] == [False, True, True]
    with connection(url) as run:
        run("UPDATE khotan_webhook_events SET received_at = '2020-01-01 00:00:00.000000' WHERE wire = 'shop/soon'")
    assert [sent("soon") for _ in range(2)] == [False, True]


def test_a_key_of_two_organisations_is_two_records(target: tuple[Served, Project, str]) -> None:
    app, _, url = target

    def post(organisation: str | None, amount: int = 1) -> httpx.Response:
        fields = {"Idempotency-Key": "k"} | ({"X-Org": organisation} if organisation else {})
        return httpx.post(f"{app.url}{ORDERS}", json={"id": "1", "type": "t", "amount": amount}, headers=fields)

    answers = [post("acme"), post("corner"), post("acme"), post("corner", 2), post(None), post("late")]
    assert [a.status_code for a in answers] == [202, 202, 202, 422, 202, 202]
    # What came while nobody could say whose it was, is then the first organisation's that sends the same record.
    assert [a.json().get("duplicate") for a in answers] == [False, False, True, None, False, True]
    with connection(url) as run:
        found = run("SELECT tenant, remote_id FROM khotan_webhook_events WHERE remote_id = 'k' ORDER BY id")
    assert found == [("acme", "k"), ("corner", "k"), ("late", "k")]


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("early", [True, False])
def test_a_used_key_is_judged_in_the_run_as_it_is_at_the_door(
    target: tuple[Served, Project, str], same: bool, early: bool
) -> None:
    """early: whose the first record is was known when it came, else its run found it out."""
    app, project, url = target
    key = f"late-{same}-{early}"

    def post(amount: int, **fields: str) -> httpx.Response:
        headers = {"Idempotency-Key": key, **{name.replace("_", "-"): value for name, value in fields.items()}}
        return httpx.post(f"{app.url}{ORDERS}", json={"id": "1", "type": "t", "amount": amount}, headers=headers)

    def ended(event: str) -> tuple[str, object]:
        asked = (
            "SELECT status, error, message FROM khotan_runs WHERE event_id = $ AND status IN ('completed', 'failed')"
        )
        with connection(url) as run:
            status, error, message = wait_for(lambda: run(asked, int(event)), "the end of the run")[0]
        document = json.loads(error) if isinstance(error, str) else error
        return status, document["error"] if document else message

    first = post(1, **{"X_Org" if early else "X_Late": "acme"})
    assert first.status_code == 202
    assert ended(first.json()["id"]) == ("completed", None)
    other = post(1 if same else 2, X_Late="acme")
    assert (other.status_code, other.json()["duplicate"]) == (202, False), "nobody could say yet whose it is"
    status, said = ended(other.json()["id"])
    if same:
        assert status == "completed" and str(said).startswith("Duplicate: organisation acme already sent this key")
    else:
        assert (status, said) == ("failed", "idempotency_key_reused")
    # At the door, once that can be said, the same rule.
    known = post(1 if same else 2, X_Org="acme")
    assert known.status_code == (202 if same else 422)
    corner = post(2, X_Org="corner")
    assert (corner.status_code, corner.json()["duplicate"]) == (202, False), "another organisation's key is another one"
    again = project.khotan("wire", "replay", other.json()["id"], "--wait")
    assert (again.code == 0) == same, "a replay is judged by the same rule"
    refused = project.khotan("wire", "replay", other.json()["id"], "--organisation", "corner")
    assert (refused.code != 0, refused.json["error"]) == (True, "idempotency_key_reused")
    with connection(url) as run:
        amounts = "SELECT organisation, count(*) FROM khotan_webhook_events WHERE remote_id = $ GROUP BY 1 ORDER BY 1"
        assert run(amounts, key) == [("acme", 2), ("corner", 1)]


def test_two_organisations_may_use_one_key_while_nobody_can_say_whose_it_is(
    target: tuple[Served, Project, str],
) -> None:
    app, _, url = target
    ids = []
    for number, name in enumerate(("north", "south")):
        fields = {"Idempotency-Key": "shared", "X-Late": name}
        body = {"id": "1", "type": "t", "amount": number}
        answer = httpx.post(f"{app.url}{ORDERS}", json=body, headers=fields)
        assert (answer.status_code, answer.json()["duplicate"]) == (202, False)
        ids.append(int(answer.json()["id"]))
    with connection(url) as run:
        done = "SELECT organisation, tenant FROM khotan_webhook_events WHERE remote_id = 'shared' ORDER BY id"
        wanted = [("north", "north"), ("south", "south")]
        wait_for(lambda: run(done) == wanted, "both are settled")


def test_an_organisation_that_is_said_by_hand_belongs_to_the_identity(target: tuple[Served, Project, str]) -> None:
    app, project, url = target

    def post(**fields: str) -> httpx.Response:
        body = {"id": "1", "type": "t", "amount": 5}
        return httpx.post(f"{app.url}{ORDERS}", json=body, headers={"Idempotency-Key": "by-hand", **fields})

    event = post().json()["id"]
    with connection(url) as run:
        parked = "SELECT parked FROM khotan_webhook_events WHERE id = $ AND parked IS NOT NULL"
        wait_for(lambda: run(parked, int(event)), "it is parked")
    assert project.khotan("wire", "replay", event, "--organisation", "hand").code == 0
    assert post(**{"X-Org": "hand"}).json() == {"ok": True, "id": event, "duplicate": True}


def test_a_body_that_cannot_be_decoded_is_shown_and_a_compressed_one_is_read(
    target: tuple[Served, Project, str],
) -> None:
    app, project, _ = target
    ids = []
    for body in (b"garbage", gzip.compress(b'{"id":"g1","type":"order.paid","amount":3}')):
        _, fields = signed(body)
        answer = httpx.post(f"{app.url}{HOOK}", content=body, headers={**fields, "Content-Encoding": "gzip"})
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["id"])
    bad, good = (project.khotan("wire", "show", one).json for one in ids)
    assert (bad["problem"], good["problem"]) == ("The body is not valid gzip data", None)
    assert (good["type"], good["remoteId"], good["json"]["amount"]) == ("order.paid", "g1", 3)
    broken = httpx.post(
        f"{app.url}{ORDERS}", content=b"x", headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}
    )
    assert (broken.status_code, broken.json()["error"]) == (400, "body_invalid")


def test_zooms_question_is_answered(target: tuple[Served, Project, str]) -> None:
    app, _, url = target

    body = b'{"event":"endpoint.url_validation","payload":{"plainToken":"p"}}'
    fields = signatures.zoom().sign(WebhookRequest("POST", "", Headers({}), body), "zooms", time.time(), "")
    answer = httpx.post(f"{app.url}{HOOK}/ping", content=body, headers=dict(fields))
    assert answer.status_code == 200 and answer.json()["plainToken"] == "p"
    with connection(url) as run:
        assert run("SELECT count(*) FROM khotan_webhook_events WHERE wire = 'shop/ping'") == [(0,)]


def test_wires_secrets_are_masked_in_what_handlers_say(target: tuple[Served, Project, str]) -> None:
    app, project, url = target
    body, fields = signed({"id": "leak", "type": "leak"})
    event = httpx.post(f"{app.url}{HOOK}", content=body, headers=fields).json()["id"]
    project.khotan("wire", "replay", event, "--wait")
    with connection(url) as run:
        failed = "SELECT error FROM khotan_runs WHERE flow = 'shop.leak' AND error IS NOT NULL"
        said = str(wait_for(lambda: run(failed), "the failure"))
    assert "failed with ••••" in said or "failed with \\\\u2022" in said
    shown = project.khotan("wire", "show", event)
    assert SIGNING_SECRET not in said + shown.stdout + app.output


def test_the_span_of_retries_is_shown(target: tuple[Served, Project, str]) -> None:
    _, project, _ = target
    handlers = {one["name"]: one for one in project.khotan("wire", "status", "shop").json["handlers"]}
    assert handlers["shop.record"]["retrySpan"] >= 24 * 3600
    assert (handlers["shop.leak"]["attempts"], handlers["shop.leak"]["retrySpan"]) == (1, 0)
