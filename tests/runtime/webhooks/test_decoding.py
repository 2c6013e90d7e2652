"""Bodies as senders really send them: compressed, in other character sets, in an envelope; and rules over the path."""

from __future__ import annotations

import gzip
import json
import zlib
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from pydantic import BaseModel, TypeAdapter

from khotan_cli.errors import ConfigError
from khotan_cli.runtime import Plug, Wire
from khotan_cli.runtime.webhooks.decoding import Undecodable
from khotan_cli.runtime.webhooks.event import StoredEvent
from khotan_cli.runtime.webhooks.inbound.identify import events_of
from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest
from khotan_cli.runtime.webhooks.verify import signatures
from khotan_cli.runtime.webhooks.verify.locator import Rule, joined

DOCUMENT = {"id": "é-1", "type": "order.paid"}
TEXT = json.dumps(DOCUMENT, ensure_ascii=False)
FORM = "application/x-www-form-urlencoded"


class Order(BaseModel):
    id: str
    type: str


class Shop(Plug):
    base_url = "http://shop.invalid"


def request(body: bytes, content_type: str = "application/json", encoding: str = "", **more: Any) -> WebhookRequest:
    return WebhookRequest(
        "POST", "https://h.test/in", Headers({"Content-Type": content_type, "Content-Encoding": encoding}), body, **more
    )


def stored(asked: WebhookRequest, envelope: str | None = None) -> StoredEvent:
    kept = dict(asked.headers)
    row: Any = SimpleNamespace(
        method="POST", headers=kept, content_type=kept["content-type"], body=asked.body, path=dict(asked.path)
    )
    return StoredEvent(row, envelope)


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # the same in every process, as the tests' names have to be


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


@pytest.mark.parametrize(
    ("body", "content_type", "encoding"),
    [
        (TEXT.encode(), "application/json", ""),
        (gz(TEXT.encode()), "application/json", "gzip"),
        (gz(TEXT[:5].encode()) + gz(TEXT[5:].encode()), "application/json", "x-gzip"),
        (zlib.compress(TEXT.encode()), "application/json", "deflate"),
        (raw_deflate(TEXT.encode()), "application/json", "Deflate"),
        (gz(zlib.compress(TEXT.encode())), "application/json", "deflate, gzip"),
        (TEXT.encode("utf-8-sig"), "application/json", ""),
        (TEXT.encode("utf-16"), "application/json", ""),
        (TEXT.encode("utf-16-le"), "application/json", ""),
        (TEXT.encode("utf-32"), "application/json", ""),
        (TEXT.encode("latin-1"), "application/json; charset=ISO-8859-1", ""),
        (TEXT.encode("cp1252"), 'application/vnd.x+json; charset="windows-1252"', ""),
        (gz(TEXT.encode("utf-16")), "application/json; charset=utf-16", "gzip"),
        (TEXT.encode("utf-8-sig"), "application/json; charset=latin-1", ""),
    ],
)
def test_a_body_is_decoded_for_rules_and_models(body: bytes, content_type: str, encoding: str) -> None:
    asked = request(body, content_type, encoding)
    assert asked.problem(json_needed=True) is None
    assert Rule(json="id").find(asked) == "é-1"
    assert stored(asked).content == DOCUMENT
    assert stored(asked)._validated(TypeAdapter(Order)) == Order(**DOCUMENT)


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "problem"),
    [
        (b"garbage", "application/json", "gzip", "The body is not valid gzip data"),
        (gz(TEXT.encode())[:-6], "application/json", "gzip", "The gzip data is incomplete"),
        (b"x", "application/json", "br", "The content coding 'br' is not supported"),
        (b"{}", "application/json; charset=klingon", "", "The character set 'klingon' is unknown"),
        (b"\xff", "text/plain; charset=utf-8", "", "The body is not valid utf-8"),
        (b"{", "application/json", "", "The body is not valid JSON, or is nested too deep"),
        (b"a=%ff", f"{FORM}; charset=utf-8", "", "The form is not valid utf-8"),
        (b"payload=%7B", FORM, "", "The form field 'payload' is not valid JSON, or is nested too deep"),
    ],
)
def test_what_cannot_be_decoded_is_kept_with_the_reason(
    body: bytes, content_type: str, encoding: str, problem: str
) -> None:
    wire = Wire(Shop(), verify=signatures.github())
    asked = request(body, content_type, encoding, envelope=wire.envelope)
    [event] = events_of(wire, asked)
    assert (event.body, event.problem) == (body, problem)


def test_raw_bytes_are_given_where_they_cannot_be_decoded() -> None:
    event = stored(request(b"garbage", encoding="gzip"))
    assert event.content == b"garbage"
    with pytest.raises(Undecodable, match="gzip"):
        event._validated(TypeAdapter(Order))


def test_a_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("khotan_cli.runtime.webhooks.decoding.MOST_DECODED", 1000)
    assert request(gz(b" " * 1000), "text/plain", "gzip").problem() is None
    assert "expands to more" in str(request(gz(b" " * 1001), "text/plain", "gzip").problem())


@pytest.mark.parametrize("scheme", [signatures.github(), signatures.slack()])
@pytest.mark.parametrize("charset", ["", "; charset=utf-8", "; charset=latin-1"])
def test_the_vendors_form_is_unwrapped(scheme: Any, charset: str) -> None:
    wire = Wire(Shop(), verify=scheme, event_type="type", event_id="id")
    handler = wire.catch(model=Order, ordered_by="id")(_handler)
    body = urlencode({"payload": TEXT}, encoding="latin-1" if "latin" in charset else "utf-8").encode()
    asked = request(body, FORM + charset, envelope=wire.envelope)
    [event] = events_of(wire, asked)
    assert (event.type, event.remote_id, event.problem) == ("order.paid", "é-1", None)
    assert [one.order_key for one in event.handler_runs] == [f"{handler.name}|é-1"]
    again = stored(asked, wire.envelope)
    assert again.content == DOCUMENT
    assert again._validated(TypeAdapter(Order)) == Order(**DOCUMENT)


async def _handler(event: Any) -> None: ...


def test_a_form_without_the_vendors_field_stays_a_form() -> None:
    assert stored(request(b"a=1", FORM), "payload").content == {"a": "1"}


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"entity": "issue", "action": "opened"}, "issue.opened"),
        ({"entity": "issue"}, "issue"),
        ({"action": 7}, "7"),
        ({}, ""),
    ],
)
def test_a_type_is_composed_of_two_fields(document: dict[str, Any], kind: str) -> None:
    for declared in (joined("entity", "action"), ["entity", "action"]):
        wire = Wire(Shop(), verify=signatures.unsigned(), event_type=declared)
        assert events_of(wire, request(json.dumps(document).encode()))[0].type == kind


def test_a_separator_and_other_places_can_be_joined() -> None:
    rule = joined(Rule(header="Content-Type"), Rule(path="kind"), separator="/")
    assert rule.find(request(b"{}", "text/x", path={"kind": "a"})) == "text/x/a"
    with pytest.raises(ConfigError, match="two rules"):
        joined("one")


@pytest.mark.parametrize(
    ("below", "segments", "found"),
    [
        ("transactions/{id}", ["transactions", "17"], {"id": "17"}),
        (
            "/_matrix/app/v1/transactions/{id}",
            ["_matrix", "app", "v1", "transactions", quote("a/b é", safe="")],
            {"id": "a/b é"},
        ),
        ("{kind}/{id}", ["order", "9"], {"kind": "order", "id": "9"}),
        ("transactions/{id}", ["transactions"], None),
        ("transactions/{id}", ["transactions", ""], None),
        ("transactions/{id}", ["transaction", "17"], None),
        ("transactions/{id}", [], None),
        ((), [], {}),
        ((), ["more"], None),
        (("users/{id}", "{any}"), ["x"], {"any": "x"}),
    ],
)
def test_a_path_below_the_wires_own(below: Any, segments: list[str], found: dict[str, str] | None) -> None:
    assert Wire(Shop(), verify=signatures.unsigned(), below=below).path_values(segments) == found


@pytest.mark.parametrize("below", ["a{id}", "{id}/{id}", "a//b", "{}"])
def test_a_template_that_cannot_hold_is_refused(below: str) -> None:
    with pytest.raises(ConfigError, match="Invalid path template"):
        Wire(Shop(), verify=signatures.unsigned(), below=below)


def test_a_rule_of_the_path_needs_its_placeholder() -> None:
    with pytest.raises(ConfigError, match="no placeholder"):
        Wire(Shop(), verify=signatures.unsigned(), event_id=Rule(path="id"))


def test_equal_bodies_can_be_events_of_their_own() -> None:
    def ids(within: float | None) -> set[str]:
        wire = Wire(Shop(), verify=signatures.unsigned(), duplicates_within=within)
        return {events_of(wire, request(b"{}"))[0].remote_id for _ in range(3)}

    assert (len(ids(None)), len(ids(0)), len(ids(60))) == (1, 3, 1)
    with pytest.raises(ConfigError, match="duplicates_within"):
        ids(-1)
