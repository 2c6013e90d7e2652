"""Calls of typed endpoints: how parameters are sorted, what goes on the wire, what comes back."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel, Field

from khotan_cli.errors import ConfigError, ParameterError, PlugError, ResponseInvalid, UnknownName
from khotan_cli.runtime import OffsetPaginator, Plug, Var, delete, get, patch, post, put
from tests.support.loopback import Answer, Asked, Loopback, as_json, loopback


class Item(BaseModel):
    id: int
    name: str = "lamp"


class Page(BaseModel):
    data: list[Item]


class Filter(BaseModel):
    limit: int = 10
    state: str | None = None
    created_after: date | None = Field(None, alias="createdAfter")


class NewItem(BaseModel):
    name: str
    price: float
    note: str | None = None


class Problem(BaseModel):
    code: str
    detail: str = ""


class Accepted(BaseModel):
    job: str


class Color(Enum):
    RED = "red"


class Shop(Plug):
    base_url = "http://127.0.0.1:9"
    tenant = Var(default="acme")
    paginator = OffsetPaginator()

    get_item = get("/items/{item_id}", returns=Item, responses={404: Problem, "5XX": Problem})
    list_items = get("/items", returns=Page, query=Filter)
    search = get("/search", returns=Page)
    create = post("/items", body=NewItem, returns=Item, responses={202: Accepted})
    replace = put("/items/{item_id}", body=NewItem, returns=Item)
    touch = patch("/items/{item_id}", returns=Item)
    remove = delete("/items/{item_id}", returns=None)
    tenant_items = get("/t/{tenant}/items", returns=list[Item])
    form = post("/form", body=dict[str, Any], encoding="form")


def at(server: Loopback) -> Shop:
    return Shop().with_options(base_url=server.url)


def echo(asked: Asked) -> Answer:
    return as_json({"id": 1, "name": asked.target, "data": [{"id": 7}]})


async def test_path_parameters_stay_in_their_segment() -> None:
    async with loopback(echo) as server:
        for value in ("a/b", "..", ".", "a b?c#d", "%2F", "ü", "a;b=c,d"):
            await at(server).get_item(item_id=value)
        targets = [asked.target for asked in server.asked]
    assert targets == [
        "/items/a%2Fb",
        "/items/%2E%2E",
        "/items/%2E",
        "/items/a%20b%3Fc%23d",
        "/items/%252F",
        "/items/%C3%BC",
        "/items/a%3Bb%3Dc%2Cd",
    ]


async def test_query_from_keywords_model_and_mapping() -> None:
    async with loopback(echo) as server:
        shop = at(server)
        await shop.list_items(state="new", createdAfter=date(2026, 1, 2))
        await shop.list_items(Filter.model_validate({"limit": 3}))
        await shop.list_items(query={"limit": 4})
        await shop.list_items(created_after="2026-01-02")
        queries = [asked.query for asked in server.asked]
    assert queries == [
        {"limit": "10", "state": "new", "createdAfter": "2026-01-02"},
        {"limit": "3"},
        {"limit": "4"},
        {"limit": "10", "createdAfter": "2026-01-02"},
    ]


async def test_open_query_writes_every_kind_of_value() -> None:
    moment = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    async with loopback(echo) as server:
        shop = at(server)
        await shop.search(a=True, b=None, c=[1, 2], d=Color.RED, e=moment, f="x&y=z", g={"h": 1})
        await shop.with_options(query_arrays="brackets").search(c=[1, 2])
        await shop.with_options(query_arrays="comma").search(c=[1, 2])
        targets = [asked.target for asked in server.asked]
    assert targets == [
        "/search?a=true&c=1&c=2&d=red&e=2026-01-02T03%3A04%3A00%2B00%3A00&f=x%26y%3Dz&g[h]=1",
        "/search?c[]=1&c[]=2",
        "/search?c=1,2",
    ]


async def test_body_from_keywords_model_and_mapping() -> None:
    async with loopback(echo) as server:
        shop = at(server)
        await shop.create(name="a", price=1)
        await shop.create(NewItem(name="b", price=2))
        await shop.create(body={"name": "c", "price": 3})
        await shop.replace(NewItem(name="d", price=4), item_id=5)
        await shop.form(body={"a": {"b": [1, {"c": "ü"}]}, "t": True})
        asked = server.asked
    assert [a.json() for a in asked[:4]] == [
        {"name": "a", "price": 1.0},
        {"name": "b", "price": 2.0},
        {"name": "c", "price": 3.0},
        {"name": "d", "price": 4.0},
    ]
    assert asked[3].target == "/items/5"
    assert asked[4].body == b"a[b][0]=1&a[b][1][c]=%C3%BC&t=true"
    assert asked[4].headers["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s.get_item(), ["item_id"]),
        (lambda s: s.get_item(item_id=""), ["item_id", "empty"]),
        (lambda s: s.list_items(limt=3, stat="x"), ["limt", "stat", "limit", "state"]),
        (lambda s: s.list_items(limit="many"), ["limit", "integer"]),
        (lambda s: s.create(), ["name", "price"]),
        (lambda s: s.create(nam="x", price=1), ["nam", "name"]),
        (lambda s: s.create(body={"name": "x", "price": 1, "colour": "red"}), ["colour"]),
        (lambda s: s.replace(name="x", price=1), ["item_id"]),
        (lambda s: s.get_item(3, item_id=1), ["int"]),
    ],
)
async def test_wrong_parameters_are_named_before_anything_is_sent(call: Any, words: list[str]) -> None:
    async with loopback(echo) as server:
        with pytest.raises(ParameterError) as caught:
            await call(at(server))
    assert server.asked == []
    text = " ".join([caught.value.message, caught.value.hint, *caught.value.next])
    assert all(word in text for word in words), text


async def test_a_malformed_parameter_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ParameterError) as caught:
        await Shop().create(name="x", price="sk_live_secret")
    assert "sk_live_secret" not in repr(caught.value.to_json())


async def test_path_parameter_falls_back_to_the_variable_of_that_name() -> None:
    async with loopback(lambda asked: as_json([{"id": 1}])) as server:
        assert await at(server).tenant_items() == [Item(id=1)]
        await at(server).with_vars(tenant="b/c").tenant_items()
        await at(server).tenant_items(tenant="d")
    assert [asked.target for asked in server.asked] == ["/t/acme/items", "/t/b%2Fc/items", "/t/d/items"]


async def test_responses_by_status() -> None:
    answers = {
        "1": as_json({"id": 1}),
        "2": as_json({"code": "gone"}, 404),
        "3": as_json({"code": "broken"}, 501),
        "4": as_json({"other": 1}, 418),
        "5": Answer(404, b"<html>", {"Content-Type": "text/html"}),
    }
    async with loopback(lambda asked: answers[asked.path.rpartition("/")[2]]) as server:
        shop = at(server)
        assert await shop.get_item(item_id=1) == Item(id=1)
        bodies: list[Any] = []
        for number in (2, 3, 4, 5):
            with pytest.raises(PlugError) as caught:
                await shop.get_item(item_id=number)
            bodies.append((caught.value.status, caught.value.body))
    assert bodies == [(404, Problem(code="gone")), (501, Problem(code="broken")), (418, {"other": 1}), (404, "<html>")]


async def test_alternative_success_and_no_content() -> None:
    async with loopback(lambda a: as_json({"job": "j1"}, 202) if a.method == "POST" else Answer(204)) as server:
        accepted: Any = await at(server).create(name="x", price=1)
        assert accepted == Accepted(job="j1")
        assert await at(server).remove(item_id=1) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(200, b"<html>Hello", {"Content-Type": "text/html"}), ["text/html", "Hello"]),
        (Answer(200, b'{"id": 1, "na', {"Content-Type": "application/json"}), ["not valid JSON", "13 bytes"]),
        (Answer(200, b'{"id": 1, "name": "\xff"}', {"Content-Type": "application/json"}), ["UTF-8"]),
        (Answer(200, b"", {"Content-Type": "application/json"}), ["empty"]),
        (as_json({"id": "x"}), ["id", "integer", "--endpoint get_item --compare"]),
    ],
)
async def test_a_body_that_is_not_what_was_declared_says_what_came(answer: Answer, words: list[str]) -> None:
    async with loopback(lambda asked: answer) as server:
        with pytest.raises(ResponseInvalid) as caught:
            await at(server).get_item(item_id=1)
    text = " ".join([caught.value.message, caught.value.hint, *caught.value.next])
    assert all(word in text for word in words), text


async def test_other_content_types_by_parsers() -> None:
    def handler(asked: Asked) -> Answer:
        if asked.path == "/csv":
            return Answer(200, b'id,name\r\n1,a\r\n2,"b,c"\r\n', {"Content-Type": "text/csv"})
        return Answer(200, b"<items><item id='1'/></items>", {"Content-Type": "application/xml"})

    class Files(Plug):
        base_url = "http://127.0.0.1:9"
        parsers = {"application/xml": lambda response: [{"id": response.text.count("<item ")}]}
        rows = get("/csv", returns=list[Item])
        items = get("/xml", returns=list[Item])
        raw_text = get("/xml", returns=str)
        raw_bytes = get("/xml", returns=bytes)

    async with loopback(handler) as server:
        files = Files().with_options(base_url=server.url)
        assert await files.rows() == [Item(id=1, name="a"), Item(id=2, name="b,c")]
        assert await files.items() == [Item(id=1)]
        assert (await files.raw_text()).startswith("<items>")
        assert await files.raw_bytes() == b"<items><item id='1'/></items>"


async def test_untyped_calls() -> None:
    async with loopback(lambda a: as_json({"m": a.method}, 200 if a.path != "/no" else 404)) as server:
        shop = at(server)
        assert await shop.get("/x", params={"a": 1}) == {"m": "GET"}
        assert await shop.post("x", body={"b": 2}, headers={"X-A": "1"}) == {"m": "POST"}
        for name in ("put", "patch", "delete"):
            assert await getattr(shop, name)("/x") == {"m": name.upper()}
        with pytest.raises(PlugError) as caught:
            await shop.get("/no")
    assert caught.value.body == {"m": "GET"}
    assert server.asked[0].target == "/x?a=1"
    assert server.asked[1].headers["x-a"] == "1"


async def test_raw_returns_any_status_and_batches_keep_failures() -> None:
    def handler(asked: Asked) -> Answer:
        if asked.method == "GET":
            return as_json({"code": "x"}, 404)
        records = asked.json()
        return as_json({"id": len(records)}, 422 if any(r["id"] == 5 for r in records) else 200)

    class Bulk(Plug):
        base_url = "http://127.0.0.1:9"
        send = post("/bulk", body=list[Item], returns=Item)

    async with loopback(handler) as server:
        assert (await at(server).get_item.raw(item_id=1)).status_code == 404
        bulk = Bulk().with_options(base_url=server.url)
        records = [Item(id=n) for n in range(10)]
        results = [result async for result in bulk.send.batch_post(records, size=3, concurrency=2)]
    assert [(r.start, len(r.records), r.ok) for r in results] == [
        (0, 3, True),
        (3, 3, False),
        (6, 3, True),
        (9, 1, True),
    ]
    assert results[1].error is not None and results[1].error.status == 422
    assert server.most_open <= 2


def test_mistakes_in_a_declaration_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="get"):
        type("Bad", (Plug,), {"base_url": "http://x.example", "get": get("/x")})
    with pytest.raises(ConfigError, match="base_url"):
        type("Bad", (Plug,), {"base_url": "ftp://x.example"})
    with pytest.raises(ConfigError, match="credentials"):
        type("Bad", (Plug,), {"base_url": "https://user:pw@x.example"})
    with pytest.raises(ConfigError, match="shp"):
        type("Bad", (Plug,), {"base_url": "https://{shp}.example", "shop": Var()})
    with pytest.raises(ValueError, match="/"):
        get("items")


def test_copies_leave_the_original_alone() -> None:
    shop = Shop()
    other = shop.with_vars(tenant="x").with_options(timeout=1.0, headers={"X-A": "1"})
    assert (shop.timeout, dict(shop.headers)) == (30.0, {})
    assert (other.timeout, dict(other.headers)) == (1.0, {"X-A": "1"})
    with pytest.raises(UnknownName, match="tenat"):
        shop.with_vars(tenat="x")
    with pytest.raises(UnknownName, match="timeot"):
        shop.with_options(timeot=1)


@pytest.mark.parametrize("value", ["evil.com/x", "a@b", "a?b", "a#b", "", "-a", "a\\b", "a b"])
async def test_a_variable_in_the_host_cannot_lead_elsewhere(value: str) -> None:
    class Tenant(Plug):
        base_url = "https://{shop}.example.com"
        shop = Var(required=True)

    with pytest.raises(ConfigError, match="shop"):
        await Tenant().with_vars(shop=value).get("/x")


XML = b"""<?xml version="1.0"?><shop xmlns="urn:x"><item id="1"><name>a</name></item><item id="2"><name>b</name></item></shop>"""
BOMB = b"""<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]><x>&b;</x>"""


async def test_xml_comes_parsed_and_declares_no_entities() -> None:
    class Row(BaseModel):
        id: int = Field(alias="@id")
        name: str

    class Shelf(BaseModel):
        item: list[Row]

    class Document(BaseModel):
        shop: Shelf

    class Feed(Plug):
        base_url = "http://127.0.0.1:9"
        rows = get("/xml", returns=Document)

    async with loopback(lambda asked: Answer(200, XML, {"Content-Type": "text/xml; charset=utf-8"})) as server:
        feed = Feed().with_options(base_url=server.url)
        assert [(row.id, row.name) for row in (await feed.rows()).shop.item] == [(1, "a"), (2, "b")]
        assert (await feed.get("/xml"))["shop"]["item"][1] == {"@id": "2", "name": "b"}
    for body in (BOMB, b"<x><y></x>"):
        async with loopback(lambda asked, body=body: Answer(200, body, {"Content-Type": "application/xml"})) as server:  # type: ignore[misc]
            with pytest.raises(ResponseInvalid, match="parser"):
                await Feed().with_options(base_url=server.url).rows()
