"""A body with several events: one event per item, each with its own id, type, ordering key and data."""

# ruff: noqa: E501

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from khotan_cli.errors import ConfigError
from khotan_cli.runtime import Event, Plug, Rule, Wire
from khotan_cli.runtime.webhooks.inbound.identify import events_of
from khotan_cli.runtime.webhooks.items import Item, split_items
from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest
from khotan_cli.runtime.webhooks.verify import signatures
from khotan_cli.runtime.webhooks.verify.locator import joined
from tests.support.flows import connection
from tests.support.project import Project
from tests.support.webhooks import Served, served_app, wait_for, webhook_project

KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"


class Shop(Plug):
    base_url = "http://shop.invalid"


def asked(document: Any, **fields: str) -> WebhookRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {name.replace("_", "-"): value for name, value in {"Content-Type": "application/json", **fields}.items()}
    return WebhookRequest("POST", "https://h.test/in", Headers(headers), body)


@pytest.mark.parametrize(
    ("text", "path", "items"),
    [
        ('{"events": [ {"a": 1.50} , {"a":1e400}], "n": 1}', "events", ['{"a": 1.50}', '{"a":1e400}']),
        ('{"events":[1,"x",null]}', "events.*", ["1", '"x"', "null"]),
        (' [ [] , {} ] ', "*", ["[]", "{}"]),
        ('{"a":[{"b":{"c":1}},{"b":{"c":2}}]}', "a.*.b", ['{"c":1}', '{"c":2}']),
        ('{"a":[{"b":[1,2]},{"b":[]},{"b":[3]}]}', "a.*.b", ["1", "2", "3"]),
        ('{"a":{"b":[7]}}', "a.b", ["7"]),
        ('{"a":[1],"a":[2]}', "a", ["2"]),
        ('{"a":[{"t":"],}\\"["}]}', "a", ['{"t":"],}\\"["}']),
        ('{"a":[' + "9" * 5000 + "]}", "a", ["9" * 5000]),
        ('{"a":{"b":1}}', "a", ['{"b":1}']),
        ('{"a":[]}', "a", []),
        ("[]", "*", []),
        ('{"é":["ü"]}', "é", ['"ü"']),
    ],
)  # fmt: skip
def test_items_are_taken_as_they_are_written(text: str, path: str, items: list[str]) -> None:
    assert split_items(text.encode(), path) == [Item(item) for item in items]


@pytest.mark.parametrize(
    ("text", "path"), [("{}", "a"), ("[1]", "a"), ('{"a":1}', "*"), ('{"a":1}', "a.b"), ('{"a":{}}', "a.*")]
)
def test_a_document_without_the_list_has_no_items(text: str, path: str) -> None:
    assert split_items(text.encode(), path) is None


def test_an_element_that_lacks_the_rest_of_the_path_is_an_item_with_a_problem() -> None:
    found = split_items(b'{"a":[{"b":[1]},{"c":2},7]}', "a.*.b")
    problem = "The item has no value at b"
    assert found == [Item("1"), Item('{"c":2}', problem), Item("7", problem)]


@pytest.mark.parametrize("path", ["a..b", ".a", "a.", 5, ["events"]])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ConfigError, match="expected a path to a list"):
        Wire(Shop(), verify=signatures.unsigned(), items=path)


@pytest.mark.parametrize("seconds", ["5", True, -1, float("nan"), float("inf")])
def test_what_is_no_number_of_seconds_is_refused(seconds: Any) -> None:
    with pytest.raises(ConfigError, match="expected a number of seconds"):
        Wire(Shop(), verify=signatures.unsigned(), duplicates_within=seconds)


def adyen(*references: str) -> Any:
    items = [
        {"NotificationRequestItem": {"pspReference": one, "eventCode": code, "success": "true"}}
        for one, code in zip(references, ["AUTHORISATION", "REFUND", "CAPTURE"], strict=False)
    ]
    return signatures.adyen().signed({"live": "false", "notificationItems": items}, KEY)


@pytest.mark.parametrize(
    ("wire", "document", "found"),
    [
        (Wire(Shop(), verify=signatures.adyen()), adyen("a", "b"), [("AUTHORISATION", "a:AUTHORISATION:true"), ("REFUND", "b:REFUND:true")]),
        (Wire(Shop(), verify=signatures.sendgrid()), [{"event": "open", "sg_event_id": "1"}, {"event": "click", "sg_event_id": "2"}], [("open", "1"), ("click", "2")]),
        (Wire(Shop(), verify=signatures.hubspot()), [{"eventId": 1, "subscriptionId": 2, "objectId": 3, "occurredAt": 4, "subscriptionType": "deal.creation", "attemptNumber": n} for n in (0, 1)], [("deal.creation", "1:2:3:4")] * 2),
        (Wire(Shop(), verify=signatures.hubspot(version="v1")), [{"eventId": 1, "subscriptionType": "a.b"}], [("a.b", "1")]),
        (Wire(Shop(), verify=signatures.line()), {"destination": "U", "events": [{"type": "message", "webhookEventId": "A"}, {"type": "follow", "webhookEventId": "B"}]}, [("message", "A"), ("follow", "B")]),
        (Wire(Shop(), verify=signatures.unsigned(), items="entry.*.changes", event_type="field", event_id="id"), {"entry": [{"changes": [{"field": "feed", "id": 1}]}, {"changes": [{"field": "photo", "id": 2}]}]}, [("feed", "1"), ("photo", "2")]),
        (Wire(Shop(), verify=signatures.unsigned(), items="*", event_type="event", event_id=joined("_id", "ts", separator=":")), [{"event": "send", "_id": "m", "ts": 1}, {"event": "open", "_id": "m", "ts": 2}], [("send", "m:1"), ("open", "m:2")]),
        (Wire(Shop(), verify=signatures.unsigned(), items="d", event_id=Rule(header="X-Id")), {"d": [1, 1]}, [("", "h#1"), ("", "h#2")]),
    ],
)  # fmt: skip
def test_each_item_has_its_own_type_and_id(wire: Wire, document: Any, found: list[tuple[str, str]]) -> None:
    events = events_of(wire, asked(document, X_Id="h"))
    assert [(event.type, event.remote_id) for event in events] == found
    assert [event.problem for event in events] == [None] * len(found)


def test_equal_items_without_an_id_are_events_of_their_own_and_their_repeat_is_not() -> None:
    wire = Wire(Shop(), verify=signatures.unsigned(), items="*")
    first, again = ([event.remote_id for event in events_of(wire, asked([{"a": 1}, {"a": 1}]))] for _ in range(2))
    assert len(set(first)) == 2 and first == again
    free = Wire(Shop(), verify=signatures.unsigned(), items="*", duplicates_within=0)
    assert len({event.remote_id for _ in range(2) for event in events_of(free, asked([1, 1]))}) == 4


def test_a_compressed_body_is_taken_apart_and_the_items_are_plain() -> None:
    wire = Wire(Shop(), verify=signatures.unsigned(), items="e", event_type="t")

    @wire.catch("b", ordered_by="k")
    async def on_b(event: Event[Any]) -> None: ...

    body = gzip.compress('{"e":[{"t":"a"},{"t":"b","k":"ü"}]}'.encode("utf-16"))
    request = asked(body, Content_Type="application/json; charset=utf-16", Content_Encoding="gzip")
    first, second = events_of(wire, request)
    assert (first.body, second.body) == (b'{"t":"a"}', '{"t":"b","k":"ü"}'.encode())
    assert "content-encoding" not in second.headers and second.content_type == "application/json"
    assert not first.handler_runs
    assert [one.order_key for one in second.handler_runs] == ["shop.on_b|ü"]


def test_a_list_in_the_field_of_a_form_is_taken_apart() -> None:
    """As Mandrill sends its events (mailchimp.com/developer/transactional, Webhooks): `mandrill_events` holds a list."""
    wire = Wire(
        Shop(), verify=signatures.unsigned(), envelope="mandrill_events", items="*", event_type="event", event_id="_id"
    )
    listed = json.dumps([{"event": "send", "_id": "a", "n": 1.50}, {"event": "open", "_id": "ü&"}], ensure_ascii=False)
    body = urlencode({"other": "1", "mandrill_events": listed}).encode()
    request = replace(asked(body, Content_Type="application/x-www-form-urlencoded"), envelope=wire.envelope)
    events = events_of(wire, request)
    assert [(event.type, event.remote_id, event.problem) for event in events] == [
        ("send", "a", None),
        ("open", "ü&", None),
    ]
    broken = replace(
        asked(b"mandrill_events=%5B", Content_Type="application/x-www-form-urlencoded"), envelope=wire.envelope
    )
    assert [event.problem for event in events_of(wire, broken)] == [
        "The form field 'mandrill_events' is not valid JSON, or is nested too deep"
    ]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"other":[]}', "The body has nothing at items='e'"),
        (b'{"e":', "The body is not valid JSON, or is nested too deep"),
        (b'{"e":[]}', None),
        (b"[" * 100_000, "The body is not valid JSON, or is nested too deep"),
    ],
)
def test_a_body_without_items_is_kept_whole(body: bytes, problem: str | None) -> None:
    wire = Wire(Shop(), verify=signatures.unsigned(), items="e")

    @wire.catch()
    async def on_any(event: Event[Any]) -> None: ...

    [event] = events_of(wire, asked(body))
    assert (event.body, event.problem) == (body, problem)
    assert bool(event.handler_runs) == (problem is not None), "an empty list is a question, not an event"


WIRES = """
from khotan_cli.runtime import ingest

pay = Wire(shop, name="pay", verify=signatures.adyen())
mail = Wire(shop, name="mail", verify=signatures.unsigned(), items="*", event_type="event", event_id="id")


class Note(BaseModel):
    pspReference: str
    eventCode: str


async def save(event: Event[Any], text_: str) -> None:
    async def work(session: Any) -> None:
        values = {"id": text_, "amount": 1}
        await session.execute(text("INSERT INTO seen (id, amount) VALUES (:id, :amount)"), values)

    await event.ctx.write("save", work)


@pay.catch("REFUND", model=Note, ordered_by="pspReference")
async def refunded(event: Event[Note]) -> None:
    await save(event, f"{event.type} {event.data.pspReference} {event.data.eventCode}")


@mail.catch("open")
async def opened(event: Event[Any]) -> None:
    await save(event, f"open {event.data['id']}")
"""
PAY, MAIL = "/api/khotan/webhook/shop/pay", "/api/khotan/webhook/shop/mail"
Target = tuple[Served, Project, str]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("items")
    with ExitStack() as stack:
        url = f"sqlite:///{folder}/khotan.db"
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("postgres_server").database())
        project = webhook_project(folder, url, wire=WIRES)
        project.env["SHOP_PAY_WEBHOOK_SECRET"] = KEY
        app = stack.enter_context(served_app(project))
        yield app, project, url


def test_items_are_stored_shown_handled_and_replayed_one_by_one(target: Target) -> None:
    app, project, url = target
    answer = httpx.post(app.url + PAY, json=adyen("p1", "p2"))
    assert answer.status_code == 202 and answer.json()["duplicate"] is False
    listed = project.khotan("wire", "events", "shop/pay").json["items"]
    assert [(one["type"], one["remoteId"]) for one in reversed(listed)] == [
        ("AUTHORISATION", "p1:AUTHORISATION:true"),
        ("REFUND", "p2:REFUND:true"),
    ]
    assert answer.json()["id"] == listed[-1]["id"]
    with connection(url) as run:
        seen = "SELECT id FROM seen WHERE substr(id, 1, 6) = 'REFUND'"
        assert wait_for(lambda: run(seen), "the refund") == [("REFUND p2 REFUND",)]
        keys = run("SELECT order_key FROM khotan_runs WHERE flow = 'shop/pay.refunded'")
        assert keys == [("shop/pay.refunded|p2",)]
        project.khotan("wire", "replay", listed[0]["id"], "--wait")
        wait_for(lambda: len(run(seen)) == 2, "the replay")
        assert run("SELECT count(*) FROM khotan_runs WHERE order_key = 'shop/pay.refunded|p2'") == [(2,)]
    shown = project.khotan("wire", "show", listed[0]["id"]).json
    assert shown["json"]["pspReference"] == "p2" and "notificationItems" not in json.dumps(shown)


def test_duplicates_are_judged_per_item(target: Target) -> None:
    app, _, url = target

    def post(*ids: str) -> dict[str, Any]:
        answer = httpx.post(app.url + MAIL, json=[{"event": "open", "id": one} for one in ids])
        assert answer.status_code == 202
        found: dict[str, Any] = answer.json()
        return found

    assert [post("1", "2")["duplicate"], post("2", "3")["duplicate"], post("3", "1")["duplicate"]] == [
        False,
        False,
        True,
    ]
    with connection(url) as run:
        rows = run("SELECT remote_id, repeats FROM khotan_webhook_events WHERE wire = 'shop/mail' ORDER BY id")
        assert rows == [("1", 1), ("2", 1), ("3", 1)]
        done = "SELECT id FROM seen WHERE substr(id, 1, 5) = 'open ' ORDER BY id"
        assert wait_for(lambda: run(done) if len(run(done)) == 3 else None, "three handlers") == [
            ("open 1",), ("open 2",), ("open 3",)
        ]  # fmt: skip


def test_a_forged_item_lets_none_of_them_in(target: Target) -> None:
    app, _, url = target
    document = adyen("x1", "x2", "x3")
    document["notificationItems"][2]["NotificationRequestItem"]["eventCode"] = "REFUND"
    assert httpx.post(app.url + PAY, json=document).status_code == 401
    with connection(url) as run:
        assert run("SELECT count(*) FROM khotan_webhook_events WHERE substr(remote_id, 1, 1) = 'x'") == [(0,)]


def test_items_are_stored_all_or_none(target: Target) -> None:
    """The database refuses the third item: neither of its neighbours is stored, and the sender is told to come again."""
    app, _, url = target
    with connection(url) as run:
        if url.startswith("sqlite"):
            run(
                "CREATE TRIGGER refuse BEFORE INSERT ON khotan_webhook_events WHEN NEW.remote_id = 'bad' "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
        else:
            run("ALTER TABLE khotan_webhook_events ADD CONSTRAINT refuse CHECK (remote_id <> 'bad')")
    try:
        answer = httpx.post(app.url + MAIL, json=[{"event": "open", "id": one} for one in ("n1", "n2", "bad")])
        assert answer.status_code >= 500
        with connection(url) as run:
            assert run("SELECT count(*) FROM khotan_webhook_events WHERE remote_id IN ('n1', 'n2', 'bad')") == [(0,)]
    finally:
        with connection(url) as run:
            if url.startswith("sqlite"):
                run("DROP TRIGGER refuse")
            else:
                run("ALTER TABLE khotan_webhook_events DROP CONSTRAINT refuse")


def test_more_items_than_a_batch_are_one_transaction(target: Target) -> None:
    app, _, url = target
    answer = httpx.post(app.url + MAIL, json=[{"event": "sent", "id": f"many-{n}"} for n in range(200)], timeout=90)
    assert answer.status_code == 202
    with connection(url) as run:
        found = "SELECT count(*), count(DISTINCT received_at) FROM khotan_webhook_events WHERE type = 'sent'"
        assert run(found) == [(200, 1)]


@pytest.mark.parametrize("body", ['{"pspReference":"s1","success":"true"}', None])
def test_a_sample_is_an_item(target: Target, body: str | None) -> None:
    _, project, _ = target
    made = project.khotan("wire", "send", "shop/pay", "REFUND", *(["--body", body] if body else []))
    assert made.code == 0, made.stderr
    newest = project.khotan("wire", "events", "shop/pay").json["items"][0]
    assert newest["type"] == "REFUND"
    if body:
        assert newest["remoteId"] == "s1:REFUND:true"
