"""Content types: byte order marks, charsets, XML in all its types, and JSON that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from khotan_cli.errors import ResponseInvalid
from khotan_cli.runtime import Plug, get
from khotan_cli.runtime.content.parsers import parse_xml, xml_parser
from khotan_cli.runtime.contract.check import check
from khotan_cli.runtime.contract.saved import SavedResponse
from khotan_cli.runtime.testing import assert_contract, replay
from tests.support.loopback import Answer, loopback

BOM = b"\xef\xbb\xbf"


class Entry(BaseModel):
    title: str
    tag: list[str] = []


class Feed(BaseModel):
    entry: list[Entry] | None = None


class Document(BaseModel):
    feed: Feed


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    typed = get("/x", returns=dict[str, Any])
    rows = get("/x", returns=list[dict[str, str]])
    text = get("/x", returns=str)
    document = get("/x", returns=Document)


async def came(name: str, body: bytes, kind: str) -> Any:
    async with loopback(lambda asked: Answer(200, body, {"Content-Type": kind})) as server:
        api = Api().with_options(base_url=server.url)
        return await (api.get("/x") if name == "untyped" else api.endpoint(name)())


@pytest.mark.parametrize(
    ("name", "body", "kind", "value"),
    [
        ("typed", BOM + b'{"a": 1}', "application/json", {"a": 1}),
        ("untyped", BOM + b'{"a": 1}', "application/hal+json; charset=utf-8", {"a": 1}),
        ("rows", BOM + b"a,b\r\n1,2", "text/csv", [{"a": "1", "b": "2"}]),
        ("rows", BOM + b"a,b\r\n1,2", "text/csv; charset=UTF-8", [{"a": "1", "b": "2"}]),
        ("rows", "a,b\n1,ü".encode("latin-1"), 'text/csv; charset="iso-8859-1"', [{"a": "1", "b": "ü"}]),
        ("untyped", "ü€".encode("cp1252"), "text/plain; charset=windows-1252", "ü€"),
        ("text", BOM + "ü".encode(), "text/plain", "ü"),
        ("text", b"\xff\xfe" + "ü".encode("utf-16-le"), "text/plain", "ü"),
        ("untyped", "<a>ü</a>".encode("latin-1"), "application/xml; charset=iso-8859-1", {"a": "ü"}),
        ("untyped", '<?xml version="1.0" encoding="iso-8859-1"?><a>ü</a>'.encode("latin-1"), "text/xml", {"a": "ü"}),
        ("untyped", BOM + "<a>ü</a>".encode(), "application/soap+xml", {"a": "ü"}),
        ("untyped", b"<a><![CDATA[<!DOCTYPE html>]]></a>", "application/atom+xml", {"a": "<!DOCTYPE html>"}),
        ("untyped", b"<a/>", "application/vnd.acme.v1+xml", {"a": None}),
        ("untyped", b"<svg/>", "image/svg+xml", b"<svg/>"),
    ],
)
async def test_what_came_is_read(name: str, body: bytes, kind: str, value: Any) -> None:
    assert await came(name, body, kind) == value


@pytest.mark.parametrize("kind", ["application/xml", "application/atom+xml"])
@pytest.mark.parametrize(
    ("xml", "titles", "tags"),
    [
        ("<feed/>", None, []),
        ("<feed><entry><title>a</title></entry></feed>", ["a"], [[]]),
        ("<feed><entry><title>a</title><tag>x</tag></entry></feed>", ["a"], [["x"]]),
        (
            "<feed><entry><title>a</title><tag>x</tag></entry><entry><title>b</title></entry></feed>",
            ["a", "b"],
            [["x"], []],
        ),
    ],
)
async def test_a_declared_list_is_one_with_any_number_of_items(kind: str, xml: str, titles: Any, tags: Any) -> None:
    class Whole(BaseModel):
        feed: Feed | None

    parsed = parse_xml(httpx.Response(200, content=xml.encode()))
    if titles is None:
        assert parsed == {"feed": None}
        return
    found: Document = await came("document", xml.encode(), kind)
    assert found.feed.entry is not None
    assert [entry.title for entry in found.feed.entry] == titles
    assert [entry.tag for entry in found.feed.entry] == tags


def test_an_untyped_list_can_be_declared() -> None:
    response = httpx.Response(200, content=b"<a><b>1</b><c>2</c></a>")
    assert xml_parser({"b"})(response) == {"a": {"b": ["1"], "c": "2"}}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"a": "\\udc00x"}', "lone surrogate"),
        (b'{"a": "\xff"}', "UTF-8"),
    ],
)
async def test_what_is_not_json_is_so_everywhere_and_for_the_same_reason(body: bytes, why: str, tmp_path: Path) -> None:
    for name in ("typed", "untyped"):
        with pytest.raises(ResponseInvalid, match=why):
            await came(name, body, "application/json")
    with pytest.raises(ResponseInvalid, match=why):
        check(dict[str, Any], body)
    saved = SavedResponse(
        "api", "typed", "GET", "http://127.0.0.1:9/x", 200, {"content-type": "application/json"}, body
    )
    assert "bodyBase64" in saved.to_json()["response"]
    assert json.dumps(saved.to_json()).encode()
    with pytest.raises(ResponseInvalid, match=why):
        assert_contract(Api.typed, saved)
    with replay(Api(), saved) as plug, pytest.raises(ResponseInvalid, match=why):
        await plug.typed()


async def test_text_that_only_mentions_nan_is_json() -> None:
    assert await came("typed", b'{"a": "NaN", "b": "\\"Infinity\\ud83d\\ude00"}', "application/json") == {
        "a": "NaN",
        "b": '"Infinity😀',
    }
    assert check(dict[str, Any], BOM + b'{"a": "NaN"}').findings == []


@pytest.mark.parametrize("kind", ["application/xml", "application/soap+xml"])
async def test_document_types_are_refused_in_every_encoding(kind: str) -> None:
    text = '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'
    for body in (text.encode(), text.encode("utf-16")):
        with pytest.raises(ResponseInvalid):
            await came("untyped", body, kind)
