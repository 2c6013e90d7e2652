"""What a served app does with what services, and others, send to its wires."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.flows import connection
from tests.support.webhooks import (
    APP,
    HOOK,
    SIGNING_SECRET,
    Served,
    order,
    send,
    served_app,
    signed,
    wait_for,
    webhook_project,
)

UNAVAILABLE = {"ok": False, "error": "unavailable", "message": "Temporarily unavailable", "hint": "Try again later."}
WIRES = """
from ..plugs.shop import Chat

slack = Wire(chat, verify=signatures.slack(), challenge=challenges.slack())
meta = Wire(shop, name="meta", verify=signatures.github(), challenge=challenges.meta())
graph = Wire(shop, name="graph", verify=signatures.token(json="value.0.clientState"), challenge=challenges.microsoft_graph())
calls = Wire(chat, name="calls", verify=signatures.twilio())
raw = Wire(shop, name="raw", verify=signatures.unsigned(), methods=["PUT"])
own = Wire(shop, name="own", vars={"key": Var(secret=True, default="open sesame")})
keyed = Wire(chat, name="keyed", verify=signatures.token(header="X-Auth-Key", secret=Chat.token))
framed = Wire(chat, name="framed", verify=signatures.token(json="key", secret=Chat.token))


@own.on_verify
async def verify(request: Any, vars: Any) -> bool:
    if request.headers.get("x-boom"):
        raise RuntimeError("a secret")
    return request.headers.get("x-key") == vars["key"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    folder = tmp_path_factory.mktemp("receive")
    url = f"sqlite:///{folder}/khotan.db"
    env = {"KHOTAN_WEBHOOK_MAX_BYTES": "100000", "CHAT_WEBHOOK_SECRET": "slacks", "SHOP_META_WEBHOOK_SECRET": "metas"}
    env |= {"CHAT_CALLS_WEBHOOK_SECRET": "calls"}
    env |= {"SHOP_META_WEBHOOK_VERIFY_TOKEN": "token-1", "SHOP_GRAPH_WEBHOOK_SECRET": "state-1"}
    with served_app(webhook_project(folder, url, wire=WIRES), **env) as app:
        yield app, url


def rows(url: str, statement: str, *values: Any) -> list[Any]:
    with connection(url) as run:
        return run(statement, *values)


def test_an_event_is_stored_acknowledged_and_processed(served: tuple[Served, str]) -> None:
    app, url = served
    answer = send(app.url, order(1))
    assert (answer.status_code, answer.json()["duplicate"]) == (202, False)
    stored = rows(url, "SELECT wire, type, body FROM khotan_webhook_events WHERE remote_id = 'evt_1'")
    assert [(w, t, json.loads(b)) for w, t, b in stored] == [("shop", "order.paid", order(1))]
    assert wait_for(lambda: rows(url, "SELECT amount FROM seen WHERE id = 'evt_1'"), "the handler's row") == [(1,)]


def test_a_repeat_is_acknowledged_and_runs_nothing(served: tuple[Served, str]) -> None:
    app, url = served
    first, second = send(app.url, order(2)), send(app.url, order(2))
    altered = send(app.url, order(2, note="another body, the same id"))
    assert [a.status_code for a in (first, second, altered)] == [202, 202, 202]
    assert [a.json()["duplicate"] for a in (first, second, altered)] == [False, True, True]
    assert len({a.json()["id"] for a in (first, second, altered)}) == 1
    event_id = int(first.json()["id"])
    assert rows(url, "SELECT repeats, altered FROM khotan_webhook_events WHERE id = $", event_id) == [(2, 1)]
    assert rows(url, "SELECT count(*) FROM khotan_runs WHERE event_id = $", event_id) == [(1,)]


async def test_fifty_of_the_same_at_once_are_one(served: tuple[Served, str]) -> None:
    app, url = served
    body, fields = signed(order(3))
    async with httpx.AsyncClient(base_url=app.url, timeout=90) as client:
        answers = await asyncio.gather(*(client.post(HOOK, content=body, headers=fields) for _ in range(50)))
    assert {a.status_code for a in answers} == {202}
    assert [a.json()["duplicate"] for a in answers].count(False) == 1
    (event_id,) = {int(a.json()["id"]) for a in answers}
    assert rows(url, "SELECT repeats FROM khotan_webhook_events WHERE id = $", event_id) == [(49,)]
    assert rows(url, "SELECT count(*) FROM khotan_runs WHERE event_id = $", event_id) == [(1,)]


def bad(served: Served, body: bytes, *, path: str = HOOK, method: str = "POST", **fields: str) -> httpx.Response:
    return httpx.request(method, f"{served.url}{path}", content=body, headers=fields, timeout=90)


def test_the_wrong_gets_its_4xx(served: tuple[Served, str]) -> None:
    app, url = served
    before = rows(url, "SELECT count(*) FROM khotan_webhook_events")
    body, fields = signed(order(90))
    signature = fields["Stripe-Signature"]
    json_type = {"Content-Type": "application/json"}
    cases = {
        "no signature": (bad(app, body), 401, "signature_invalid"),
        "another body": (bad(app, body + b" ", **{"Stripe-Signature": signature}), 401, "signature_invalid"),
        "another secret": (send(app.url, order(90), secret="x"), 401, "signature_invalid"),
        "an hour old": (send(app.url, order(90), moment=time.time() - 3600), 401, "signature_invalid"),
        "an hour ahead": (send(app.url, order(90), moment=time.time() + 3600), 401, "signature_invalid"),
        "cut": (bad(app, body, **{"Stripe-Signature": signature[:-5]}), 401, "signature_invalid"),
        "long": (bad(app, body, **{"Stripe-Signature": signature + "0" * 500}), 401, "signature_invalid"),
        "too large": (send(app.url, order(90, fill="x" * 100_000)), 413, "body_too_large"),
        "large headers": (bad(app, body, **fields, **{"X-Large": "x" * 40_000}), 431, "headers_too_large"),
        "no such wire": (bad(app, body, path="/api/khotan/webhook/none"), 404, "unknown_wire"),
        "no such name": (bad(app, body, path=f"{HOOK}/none/at/all"), 404, "unknown_wire"),
        "another method": (bad(app, b"", method="DELETE"), 405, "method_not_allowed"),
        "a GET without a challenge": (bad(app, b"", method="GET", path=f"{HOOK}/meta"), 405, "method_not_allowed"),
        "of another type": (bad(app, body, **json_type), 401, "signature_invalid"),
    }
    for host in ("[", "h:port", "h:99999", ""):
        for path in ("", "/meta", "/graph"):
            cases[f"{path} at {host}"] = (bad(app, body, path=f"{HOOK}{path}", Host=host), 401, "signature_invalid")
        at_calls = bad(app, body, path="/api/khotan/webhook/chat/calls", Host=host, **{"X-Twilio-Signature": "x"})
        cases[f"calls at {host}"] = (at_calls, 401, "signature_invalid")
    for name, (answer, status, code) in cases.items():
        assert (answer.status_code, answer.json()["error"]) == (status, code), (name, answer.text)
        assert SIGNING_SECRET not in answer.text
    assert cases["another method"][0].headers["Allow"] == "POST, PUT"
    assert rows(url, "SELECT count(*) FROM khotan_webhook_events") == before
    assert SIGNING_SECRET not in app.output


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"d","type":"order.paid","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"id":"u","type":"order.paid","x":"\xff\xfe"}',
        b"<xml/>",
    ],
    ids=["deep", "not UTF-8", "not JSON"],
)
def test_a_verified_body_that_cannot_be_read_is_stored_and_marked(served: tuple[Served, str], body: bytes) -> None:
    app, url = served
    answer = send(app.url, body)
    assert answer.status_code == 202, answer.text
    found = rows(url, "SELECT body, problem FROM khotan_webhook_events WHERE id = $", int(answer.json()["id"]))
    assert found == [(body, "The body is not valid JSON, or is nested too deep")]


def test_a_header_of_64_kb_and_a_body_of_100_mb_leave_memory_flat(served: tuple[Served, str]) -> None:
    app, _ = served

    def resident() -> int:
        status = Path(f"/proc/{app.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    before = resident()
    large = bad(app, b"{}", **{"X-Large": "x" * 65_536})
    assert (large.status_code, large.json()["error"]) == (431, "headers_too_large")

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1_000_000

    try:
        status = httpx.post(f"{app.url}{HOOK}", content=parts(), timeout=60).status_code
    except (httpx.WriteError, httpx.ReadError):
        status = 413  # the server hung up while we were still sending
    assert status == 413
    assert resident() - before < 30_000, "kB"


def test_a_slow_sender_gives_up_its_place_and_others_are_served(served: tuple[Served, str]) -> None:
    app, _ = served
    with socket.create_connection(("127.0.0.1", app.port), timeout=90) as slow:
        head = f"POST {HOOK} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"
        slow.sendall(head.encode() + b"{")
        assert send(app.url, order(5)).status_code == 202
        slow.shutdown(socket.SHUT_WR)  # it goes away in the middle
    assert send(app.url, order(6)).status_code == 202


def test_any_content_is_stored_raw(served: tuple[Served, str]) -> None:
    app, url = served
    body = b"\xff\x00<not json>"
    answer = bad(app, body, path=f"{HOOK}/raw", method="PUT", **{"Content-Type": "application/octet-stream"})
    assert answer.status_code == 202, answer.text
    again = bad(app, body, path=f"{HOOK}/raw", method="PUT", **{"Content-Type": "application/octet-stream"})
    assert again.json()["duplicate"] is True
    ((stored, remote_id, kind),) = rows(
        url, "SELECT body, remote_id, content_type FROM khotan_webhook_events WHERE wire = 'shop/raw'"
    )
    assert (bytes(stored), kind) == (body, "application/octet-stream")
    assert remote_id == "sha256:" + hashlib.sha256(b"\n" + body).hexdigest()


def test_challenges_are_answered(served: tuple[Served, str]) -> None:
    from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest
    from khotan_cli.runtime.webhooks.verify import signatures

    app, url = served
    before = rows(url, "SELECT count(*) FROM khotan_webhook_events")
    body = b'{"type":"url_verification","challenge":"abc"}'
    request = WebhookRequest("POST", "", Headers({}), body)
    path = "/api/khotan/webhook/chat"
    fields = dict(signatures.slack().sign(request, "slacks", time.time(), ""))
    assert bad(app, body, path=path, **fields).json() == {"challenge": "abc"}
    assert bad(app, body, path=path).status_code == 401, "a challenge that is signed must be signed"
    asked = f"{HOOK}/meta?hub.mode=subscribe&hub.challenge=1158&hub.verify_token="
    assert bad(app, b"", path=asked + "token-1", method="GET").text == "1158"
    assert bad(app, b"", path=asked + "token-2", method="GET").status_code == 403
    graph = bad(app, b"", path=f"{HOOK}/graph?validationToken=a%20b%3C")
    assert (graph.status_code, graph.text, graph.headers["content-type"]) == (200, "a b<", "text/plain")
    assert graph.headers["x-content-type-options"] == "nosniff"
    assert rows(url, "SELECT count(*) FROM khotan_webhook_events") == before
    event = b'{"value":[{"clientState":"state-1"}]}'
    assert bad(app, event, path=f"{HOOK}/graph", **{"Content-Type": "application/json"}).status_code == 202
    other = event.replace(b"state-1", b"state-2")
    assert bad(app, other, path=f"{HOOK}/graph", **{"Content-Type": "application/json"}).status_code == 401


def test_a_wire_that_verifies_by_itself(served: tuple[Served, str]) -> None:
    app, _ = served
    path = f"{HOOK}/own"
    assert bad(app, b"1", path=path, **{"X-Key": "open sesame"}).status_code == 202
    assert bad(app, b"1", path=path, **{"X-Key": "no"}).status_code == 401
    assert bad(app, b"1", path=path, **{"X-Boom": "1"}).status_code == 401
    assert "a secret" not in app.output


def test_credentials_are_not_stored(served: tuple[Served, str]) -> None:
    app, url = served
    body, fields = signed(order(7))
    bad(app, body, **fields, Authorization="Bearer sk_live_0123456789", Cookie="session=abcdefghijkl")
    ((headers,),) = rows(url, "SELECT headers FROM khotan_webhook_events WHERE remote_id = 'evt_7'")
    stored = headers if isinstance(headers, str) else json.dumps(headers)
    assert "sk_live" not in stored and "abcdefgh" not in stored and fields["Stripe-Signature"] not in stored


IMPATIENT = """
from khotan_cli.runtime.api.routes import inbound

inbound.READ_SECONDS = 3.0
"""


def test_a_token_is_neither_stored_nor_shown_wherever_it_comes(served: tuple[Served, str]) -> None:
    app, url = served
    token = "chat-token-as-declared"
    path = "/api/khotan/webhook/chat"
    sent = [
        bad(app, b'{"n":1}', path=f"{path}/keyed", **{"X-Auth-Key": token}),
        bad(app, b'{"n":2}', path=f"{HOOK}/own", **{"X-Key": "open sesame"}),
        bad(app, b'{"key":"chat-token-as-declared"}', path=f"{path}/framed"),
    ]
    assert [answer.status_code for answer in sent] == [202] * 3
    for answer in sent:
        ((headers,),) = rows(url, "SELECT headers FROM khotan_webhook_events WHERE id = $", int(answer.json()["id"]))
        assert token not in str(headers) and "open sesame" not in str(headers)
        shown = httpx.get(f"{app.url}/api/khotan/webhook-events/{answer.json()['id']}", timeout=90)
        assert shown.status_code == 200 and "••••" in shown.text, shown.text
        assert token not in shown.text and "open sesame" not in shown.text


def test_without_a_secret_nothing_is_accepted_and_only_the_owner_is_told_why(tmp_path: Path) -> None:
    project = webhook_project(tmp_path, f"sqlite:///{tmp_path}/khotan.db", app=IMPATIENT + APP)
    del project.env["SHOP_WEBHOOK_SECRET"]
    with served_app(project, KHOTAN_WEBHOOK_MAX_BYTES="11000000") as app:
        answer = send(app.url, order(1))
        assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)
        assert answer.headers["Retry-After"]
        assert "wire_secret_missing" in app.output and "SHOP_WEBHOOK_SECRET" in app.output
        checks = project.khotan("doctor").json["checks"]
        assert next(check for check in checks if check["name"] == "webhooks")["message"] == "shop: secret not set"
        done = project.khotan(
            "wire", "vars", "shop", "set", "secret", "--stdin", stdin=f"{SIGNING_SECRET}\nother-one\n"
        )
        assert done.code == 0, done.stdout
        wait_for(lambda: send(app.url, order(1)).status_code == 202, "the secret that was set")
        assert send(app.url, order(2), secret="other-one").status_code == 202, (
            "both secrets hold while they are rotated"
        )
        assert send(app.url, order(2), secret="third-one").status_code == 401
        assert send(app.url, order(3, fill="x" * 10_500_000)).status_code == 202, "the wire's own limit"
        larger = send(app.url, order(4, fill="x" * 11_000_000))
        assert (larger.status_code, larger.json()["message"]) == (413, "The body is larger than 11,000,000 bytes")
        assert _last_answer(app, b"Content-Length: 9\r\n\r\nslow") == 408


def test_a_sender_of_too_much_is_hung_up_on(served: tuple[Served, str]) -> None:
    chunk = b"186a1\r\n" + b"x" * 100_001 + b"\r\n"  # one byte more than is taken, and the next chunk never comes
    assert _last_answer(served[0], b"Transfer-Encoding: chunked\r\n\r\n" + chunk) == 413


def _last_answer(app: Served, rest: bytes) -> int:
    """The status that a sender gets in the middle of its body, with which the server closes the connection."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=90) as sender:
        sender.sendall(f"POST {HOOK} HTTP/1.1\r\nHost: h\r\n".encode() + rest)
        parts: list[bytes] = []
        while part := sender.recv(65_536):
            parts.append(part)
    head = b"".join(parts).partition(b"\r\n\r\n")[0].lower()
    assert b"connection: close" in head.split(b"\r\n"), head
    return int(head.split()[1])


def test_what_broke_is_not_told_to_the_world(tmp_path: Path) -> None:
    project = webhook_project(
        tmp_path, f"sqlite:///{tmp_path}/khotan.db", wire="\nwire.check_body = lambda request: 1 / 0\n"
    )
    with served_app(project) as app:
        broken = send(app.url, order(1))
        assert (broken.status_code, broken.json()) == (500, UNAVAILABLE)
        assert "ZeroDivisionError" in app.output
