"""Walks over pages, against a server that has 25 items."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, Field

from khotan_cli.errors import PaginationError
from khotan_cli.runtime import (
    CursorPaginator,
    FunctionPaginator,
    JsonApiPaginator,
    KeysetPaginator,
    LinkHeaderPaginator,
    NextUrlPaginator,
    OffsetPaginator,
    PageNumberPaginator,
    PageView,
    Paginator,
    Plug,
    SinglePagePaginator,
    get,
    post,
)
from tests.support.loopback import Answer, Asked, Loopback, as_json, loopback

ALL = [{"id": n} for n in range(1, 26)]


class Item(BaseModel):
    id: int


class Page(BaseModel, extra="allow"):
    data: list[Item]


class Renamed(BaseModel):
    entries: list[Item] = Field(alias="Entries")


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    things = get("/things", returns=Page)
    search = post("/search", returns=Page)
    bare = get("/bare", returns=list[Item])
    renamed = get("/renamed", returns=Renamed, paginator=OffsetPaginator(items="Entries"))
    loose = get("/things", item=Item, paginator=OffsetPaginator(items="data"))


def number(text: Any, default: int) -> int:
    return int(text) if text is not None else default


def serve(asked: Asked) -> Answer:
    given: dict[str, Any] = asked.json() if asked.body else dict(asked.query)
    nested = given.get("page") if isinstance(given.get("page"), dict) else {}
    assert isinstance(nested, dict)
    size = 10
    if "after" in given or "page[after]" in given:
        start = number(given.get("after") or given.get("page[after]"), 0)
    elif "number" in given:
        start = (number(given["number"], 1) - 1) * size
    elif "cursor" in given or "cursor" in nested:
        start = number(given.get("cursor") or nested.get("cursor"), 0)
    else:
        start = number(given.get("offset"), 0)
    items = ALL[start : start + size]
    end = start + len(items)
    more = end < len(ALL)
    if asked.path == "/bare":
        link = f'</bare?offset={end}>; rel="next", </bare>; rel="first"' if more else '</bare>; rel="first"'
        return as_json(items, Link=link, X_Next=str(end) if more else "")
    key = "Entries" if asked.path == "/renamed" else "data"
    return as_json(
        {
            key: items,
            "total": len(ALL),
            "has_more": more,
            "next_cursor": str(end) if more else None,
            "compound": {"cursor": str(end), "token": "x"} if more else {},
            "paging": {"next": f"/things?offset={end}" if more else None},
            "links": {"next": {"href": f"?page%5Bafter%5D={end}"} if more else None},
        }
    )


def at(server: Loopback, paginator: Paginator | None = None) -> Api:
    return Api().with_options(base_url=server.url, paginator=paginator)


@pytest.mark.parametrize(
    ("paginator", "requests"),
    [
        (OffsetPaginator(), 4),
        (OffsetPaginator(total="total"), 3),
        (OffsetPaginator(has_more="has_more"), 3),
        (PageNumberPaginator(page_param="number"), 4),
        (PageNumberPaginator(page_param="number", has_more="has_more"), 3),
        (CursorPaginator(), 3),
        (CursorPaginator(params={"cursor": "compound.cursor", "token": "compound.token"}), 3),
        (KeysetPaginator(param="after", has_more="has_more"), 3),
        (KeysetPaginator(param="after"), 4),
        (NextUrlPaginator(path="paging.next"), 3),
        (JsonApiPaginator(), 3),
        (FunctionPaginator(lambda page: {"offset": 10 * (page.index + 1)} if page.data["has_more"] else None), 3),
        (FunctionPaginator(lambda page: page.data["paging"]["next"]), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Paginator) else str(value),
)
async def test_every_item_once(paginator: Paginator, requests: int) -> None:
    async with loopback(serve) as server:
        items = [item async for item in at(server, paginator).things.items()]
    assert items == [Item(**item) for item in ALL]
    assert len(server.asked) == requests


async def test_all_in_one_response() -> None:
    async with loopback(serve) as server:
        paginator = SinglePagePaginator(items="data")
        assert [item.id async for item in at(server, paginator).things.items()] == list(range(1, 11))
    assert len(server.asked) == 1


async def test_headers() -> None:
    async with loopback(serve) as server:
        for paginator in (LinkHeaderPaginator(), CursorPaginator(param="offset", header="X-Next")):
            assert [item.id async for item in at(server, paginator).bare.items()] == [item["id"] for item in ALL]
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "paginator",
    [CursorPaginator(where="body"), CursorPaginator(param="page.cursor", where="body"), OffsetPaginator(where="body")],
)
async def test_positions_in_the_body_keep_the_rest_of_it(paginator: Paginator) -> None:
    async with loopback(serve) as server:
        items = [i async for i in at(server, paginator).search.items(body={"filter": "x", "page": {"size": 10}})]
    assert len(items) == 25
    bodies = [asked.json() for asked in server.asked]
    assert all(body["filter"] == "x" and body["page"]["size"] == 10 for body in bodies)


async def test_items_as_models_by_alias_and_by_declaration() -> None:
    async with loopback(serve) as server:
        assert [i.id async for i in at(server).renamed.items()][:2] == [1, 2]
        loose = [i async for i in at(server).loose.items()]
    assert loose[0] == Item(id=1) and len(loose) == 25


async def test_pages_params_limits_and_delay() -> None:
    async with loopback(serve) as server:
        paginator = OffsetPaginator(max_pages=2, limit=10, delay=0.001)
        pages = [page async for page in at(server, paginator).things.pages(state="new")]
    assert [len(page.data) for page in pages] == [10, 10]
    assert [asked.query for asked in server.asked] == [
        {"state": "new", "offset": "0", "limit": "10"},
        {"state": "new", "offset": "10", "limit": "10"},
    ]


@pytest.mark.parametrize(
    ("paginator", "answer"),
    [
        (OffsetPaginator(), lambda n: {"data": ALL[:10], "at": n}),
        (CursorPaginator(), lambda n: {"data": [{"id": n}], "next_cursor": "same"}),
        (CursorPaginator(), lambda n: {"data": [{"id": n}], "next_cursor": f"c{n % 3}"}),
        (OffsetPaginator(), lambda n: {"data": [{"id": n % 2}]}),
    ],
    ids=["ignores the offset", "one cursor", "cursors in a circle", "pages in a circle"],
)
async def test_a_service_that_repeats_itself_is_stopped(paginator: Paginator, answer: Any) -> None:
    count = 0

    def handler(asked: Asked) -> Answer:
        nonlocal count
        count += 1
        return as_json(answer(count), 200 if count < 30 else 410)

    async with loopback(handler) as server:
        with pytest.raises(PaginationError, match="page"):
            [item async for item in at(server, paginator).things.items()]
    assert count < 10


async def test_mistakes_are_explained() -> None:
    async with loopback(lambda a: as_json({"data": [{"id": 1}], "other": [1], "n": 5})) as server:
        for paginator, words in (
            (OffsetPaginator(items="n"), "'n'"),
            (KeysetPaginator(id_field="uuid"), "uuid"),
            (NextUrlPaginator(path="n"), "'n'"),
            (None, "no paginator"),
        ):
            with pytest.raises(PaginationError, match=words):
                [page async for page in at(server, paginator).things.pages()]


def test_a_paginator_of_ones_own_must_say_how() -> None:
    import httpx

    response = httpx.Response(200, content=json.dumps({}), request=httpx.Request("GET", "http://x.example"))
    with pytest.raises(PaginationError, match="following"):
        Paginator().following(PageView(response, {}))
