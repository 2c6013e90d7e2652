"""Bodies that are no JSON, or none at all: what a comparison, a saved response and the plug itself make of them."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from khotan_cli.errors import ResponseInvalid
from khotan_cli.runtime import Plug, delete, get
from khotan_cli.runtime.contract.saved import SavedResponse, parse_saved
from khotan_cli.runtime.testing import assert_contract, replay
from tests.support.loopback import Answer, loopback

NONE = type(None)


class Row(BaseModel):
    count: int
    paid: bool
    day: date


class Rows(BaseModel):
    row: list[Row]


class Document(BaseModel):
    rows: Rows


def tabbed(response: Any) -> list[dict[str, str]]:
    head, *lines = [line.split("\t") for line in response.text.splitlines()]
    return [dict(zip(head, line, strict=True)) for line in lines]


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    parsers = {"text/tab-separated-values": tabbed}
    document = get("/x", returns=Document)
    table = get("/x", returns=list[Row])
    removed = delete("/x", returns=None)
    maybe = get("/x", returns=Row, responses={204: None, 404: None})
    untyped = get("/x")


XML = b"<rows><row><count>3</count><paid>true</paid><day>2024-01-01</day></row></rows>"


def kept(body: bytes, kind: str, status: int = 200, method: str = "GET") -> SavedResponse:
    headers = {"content-type": kind} if kind else {}
    saved = SavedResponse("api", "x", method, "http://127.0.0.1:9/x", status, headers, body)
    return parse_saved(saved.to_json())


@pytest.mark.parametrize(
    ("name", "body", "kind"),
    [
        ("document", XML, "application/xml"),
        ("document", b"\xef\xbb\xbf" + XML, "text/xml"),
        ("document", XML, "application/vnd.shop+xml; charset=utf-8"),
        ("document", XML.decode().encode("utf-16"), "application/xml"),
        ("table", b"count,paid,day\r\n3,true,2024-01-01\r\n", "text/csv"),
        ("table", b"\xef\xbb\xbfcount,paid,day\r\n3,true,2024-01-01\r\n", "text/csv; charset=utf-8"),
        ("table", b"count\tpaid\tday\n3\ttrue\t2024-01-01\n", "text/tab-separated-values"),
        ("table", b'[{"count": 3, "paid": true, "day": "2024-01-01"}]', "application/json"),
    ],
)
async def test_a_saved_response_is_judged_as_the_plug_reads_it(name: str, body: bytes, kind: str) -> None:
    saved = kept(body, kind)
    for endpoint in (getattr(Api, name), getattr(Api(), name)):
        report = assert_contract(endpoint, saved)
        assert report.findings == [] and report.items == 1
    with replay(Api(), saved) as plug:
        assert await plug.endpoint(name)()


@pytest.mark.parametrize(
    ("name", "body", "kind", "finding"),
    [
        ("document", XML.replace(b">3<", b">x<"), "application/xml", r"\$\.rows\.row\[\*\]\.count: type_mismatch"),
        ("document", XML.replace(b"day>", b"date>"), "application/xml", r"\$\.rows\.row\[\*\]\.day: missing"),
        ("table", b"count,paid\r\n3,true\r\n", "text/csv", r"\$\[\*\]\.day: missing"),
        ("table", b'[{"count": "3", "paid": true, "day": "2024-01-01"}]', "application/json", r"count: type_mismatch"),
    ],
)
def test_a_saved_response_that_differs(name: str, body: bytes, kind: str, finding: str) -> None:
    with pytest.raises(AssertionError, match=finding):
        assert_contract(getattr(Api, name), kept(body, kind))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<rows><row>", "application/xml"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><rows>&x;</rows>', "application/xml"),
        (b'{"rows": NaN}', "application/json"),
        (b'{"rows": "\\ud800"}', "application/json"),
        (b"<p>", "text/html"),
        (b"", "application/json"),
    ],
)
async def test_what_the_plug_cannot_read_is_refused_by_every_reader(body: bytes, kind: str) -> None:
    saved = kept(body, kind)
    with pytest.raises(ResponseInvalid):
        assert_contract(Api.document, saved)
    with replay(Api(), saved) as plug, pytest.raises(ResponseInvalid):
        await plug.document()


def test_none_is_a_declaration() -> None:
    assert Api.removed.model_for(200) is NONE and Api.removed.model_for(204) is NONE
    assert Api.maybe.model_for(204) is NONE and Api.maybe.model_for(200) is Row
    assert Api.maybe.model_for(404) is NONE and Api.maybe.model_for(400) is None
    assert Api.untyped.model_for(200) is None and Api.untyped.returns is None
    assert assert_contract(Api.removed, kept(b"", "", 204, "DELETE")).model == "no body"
    assert assert_contract(Api.maybe, kept(b"", "", 204)).matches
    with pytest.raises(AssertionError, match="no body"):
        assert_contract(Api.removed, kept(b'{"a": 1}', "application/json", 200, "DELETE"))
    with pytest.raises(AssertionError, match="declares no model"):
        assert_contract(Api.untyped, kept(b"{}", "application/json"))


async def test_calls_of_endpoints_without_a_body() -> None:
    async with loopback(lambda asked: Answer(204)) as server:
        api = Api().with_options(base_url=server.url)
        assert await api.removed() is None
        assert await api.maybe() is None
