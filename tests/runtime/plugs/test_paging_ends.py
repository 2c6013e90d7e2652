"""A walk ends where the service says so; whatever only looks like an end raises."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from khotan_cli.errors import PaginationError, PlugError, ResponseInvalid
from khotan_cli.runtime import (
    CursorPaginator,
    ErrorBody,
    JsonApiPaginator,
    KeysetPaginator,
    LinkHeaderPaginator,
    NextUrlPaginator,
    OffsetPaginator,
    PageNumberPaginator,
    Paginator,
    Plug,
    SinglePagePaginator,
    get,
    post,
)
from khotan_cli.runtime.plugs.page_iterator import FetchedPage, PageIterator, PagePosition
from tests.support.loopback import Answer, Asked, Loopback, as_json, loopback


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    things = get("/things")


def ids(*numbers: int) -> list[dict[str, int]]:
    return [{"id": number} for number in numbers]


def in_turn(answers: Sequence[Any]) -> Callable[[Asked], Answer]:
    """One answer after the other; a JSON value is a page. More requests than answers get 418."""
    rest = list(answers)

    def handler(asked: Asked) -> Answer:
        if not rest:
            return Answer(418)
        answer = rest.pop(0)
        return answer if isinstance(answer, Answer) else as_json(answer)

    return handler


async def walk(server: Loopback, paginator: Paginator, **params: Any) -> list[Any]:
    plug = Api().with_options(base_url=server.url, paginator=paginator)
    return [item async for item in plug.things.items(**params)]


async def fetched(server: Loopback, paginator: Paginator, **params: Any) -> list[FetchedPage]:
    plug = Api().with_options(base_url=server.url, paginator=paginator)
    walked = PageIterator(plug.things, (), params)
    pages: list[FetchedPage] = []
    position: PagePosition | None = walked.start
    while position is not None:
        pages.append(await walked.fetch(PagePosition.from_json(json.loads(json.dumps(position.to_json())))))
        position = pages[-1].following
    return pages


GOOD = {"data": ids(1, 2), "next_cursor": "a", "has_more": True, "next": "/things?page=2", "total": 9}
NO_PAGES = {
    "GraphQL errors": {"data": None, "errors": [{"message": "timeout"}]},
    "HTML": Answer(200, b"<html>busy</html>", {"Content-Type": "text/html"}),
    "ok is false": {"ok": False, "error": "ratelimited"},
    "JSON as text": Answer(200, b'{"data": []}', {"Content-Type": "text/plain"}),
    "HTML without a type": Answer(200, b"<html>", {}),
    "an error in a 200": {"error": {"code": "maxlag", "info": "Waiting"}},
    "a string that holds JSON": json.dumps({"data": []}),
    "a bare list": ids(3),
    "null": None,
    "a number": 3,
    "an empty object": {},
    "an empty body": Answer(200, b"", {"Content-Type": "application/json"}),
    "no content": Answer(204),
    "the list is an object": {"data": {"id": 3}},
    "the list is text": {"data": "3"},
    "the list is null": {"data": None},
}
PAGINATORS = [
    CursorPaginator(items="data"),
    CursorPaginator(items="data", has_more="has_more"),
    OffsetPaginator(items="data"),
    OffsetPaginator(items="data", total="total"),
    PageNumberPaginator(items="data"),
    KeysetPaginator(items="data"),
    NextUrlPaginator(items="data"),
    SinglePagePaginator(items="data"),
]


@pytest.mark.parametrize("page", NO_PAGES.values(), ids=NO_PAGES.keys())
@pytest.mark.parametrize("paginator", PAGINATORS, ids=lambda p: type(p).__name__)
async def test_what_is_no_page_raises(paginator: Paginator, page: Any) -> None:
    answers = [page] if isinstance(paginator, SinglePagePaginator) else [GOOD, page]
    async with loopback(in_turn(answers)) as server:
        with pytest.raises((PaginationError, ResponseInvalid)):
            await walk(server, paginator)
    assert len(server.asked) == len(answers)


@pytest.mark.parametrize(
    "page",
    [{"data": None, "errors": ids(1)}, {"errors": ids(1)}, {"ok": False}, {"items": None, "tags": []}, "[]"],
    ids=str,
)
async def test_a_list_that_nobody_names_is_not_guessed_from_an_error(page: Any) -> None:
    async with loopback(in_turn([{"data": ids(1), "next_cursor": "a"}, page])) as server:
        with pytest.raises(PaginationError):
            await walk(server, CursorPaginator())


async def test_an_absent_list_is_an_empty_page_where_that_is_said() -> None:
    for page in ({}, {"data": None}, {"next_cursor": None}):
        async with loopback(in_turn([{"data": ids(1), "next_cursor": "a"}, page])) as server:
            assert await walk(server, CursorPaginator(items="data", absent_is_empty=True)) == ids(1)
    async with loopback(in_turn([{"data": None, "errors": ids(1)}])) as server:
        with pytest.raises(PaginationError, match="null"):
            await walk(server, CursorPaginator(items="data.things", absent_is_empty=True))


@pytest.mark.parametrize("page", [{"data": ids(1), "paging": None}, {"data": ids(1)}, {"data": ids(1), "paging": {}}])
async def test_an_absent_cursor_is_the_end(page: Any) -> None:
    async with loopback(in_turn([page])) as server:
        assert await walk(server, CursorPaginator(items="data", cursor="paging.next")) == ids(1)


@pytest.mark.parametrize(
    ("paginator", "page"),
    [
        (CursorPaginator(items="data", cursor="paging.next"), {"data": ids(1), "paging": "x"}),
        (CursorPaginator(items="data", cursor="paging.next"), {"data": ids(1), "paging": [1]}),
        (CursorPaginator(items="data"), {"data": ids(1), "next_cursor": {"id": 1}}),
        (OffsetPaginator(items="data", total="meta.total"), {"data": ids(1), "meta": 5}),
        (OffsetPaginator(items="data", total="total"), {"data": ids(1), "total": {"value": 5}}),
        (OffsetPaginator(items="data", total="total"), {"data": ids(1), "total": "many"}),
        (OffsetPaginator(items="data", has_more="has_more"), {"data": ids(1), "has_more": "https://x.example/2"}),
        (OffsetPaginator(items="data", has_more="has_more"), {"data": ids(1), "has_more": {}}),
        (NextUrlPaginator(items="data", path="links.next"), {"data": ids(1), "links": "x"}),
        (CursorPaginator(items="data", has_more="has_more"), {"data": ids(1), "has_more": True}),
        (CursorPaginator(items="data", has_more="has_more"), {"data": ids(1)}),
        (LinkHeaderPaginator(items="data", is_last="last"), {"data": ids(1), "last": False}),
        (KeysetPaginator(items="data", has_more="has_more"), {"data": [], "has_more": True}),
    ],
)
async def test_a_signal_that_cannot_be_read_or_contradicts_raises(paginator: Paginator, page: Any) -> None:
    async with loopback(in_turn([page])) as server:
        with pytest.raises(PaginationError):
            await walk(server, paginator)


async def test_an_absent_flag_is_not_the_end() -> None:
    pages = [{"data": ids(1, 2)}, {"data": ids(3), "has_more": None}, {"data": []}]
    async with loopback(in_turn(pages)) as server:
        assert await walk(server, OffsetPaginator(items="data", has_more="has_more")) == ids(1, 2, 3)


@pytest.mark.parametrize(("flag", "inverse"), [(False, True), ("false", "true"), (0, 1), ("0", "1"), ("No", "YES")])
async def test_flags_end_a_walk(flag: Any, inverse: Any) -> None:
    async with loopback(in_turn([{"data": ids(1), "more": flag, "next_cursor": "x"}])) as server:
        assert await walk(server, CursorPaginator(items="data", has_more="more")) == ids(1)
    for paginator in (
        PageNumberPaginator(items="data", is_last="isLast"),
        OffsetPaginator(items="data", is_last="isLast"),
    ):
        async with loopback(in_turn([{"data": ids(1), "isLast": flag}, {"data": ids(2), "isLast": inverse}])) as server:
            assert await walk(server, paginator) == ids(1, 2)


async def test_a_flag_in_a_header() -> None:
    pages = [as_json(ids(1), X_More="true"), as_json(ids(2), X_More="false")]
    async with loopback(in_turn(pages)) as server:
        assert await walk(server, PageNumberPaginator(has_more="header:X-More")) == ids(1, 2)


async def test_a_new_cursor_replaces_the_former_one_with_all_its_parts() -> None:
    pages = [
        {"data": ids(1), "next": {"id": 7, "time": "t1"}},
        {"data": ids(2), "next": {"id": 8}},
        {"data": ids(3), "next": None},
    ]
    paginator = CursorPaginator(items="data", params={"after_id": "next.id", "after_time": "next.time"})
    async with loopback(in_turn(pages)) as server:
        assert await walk(server, paginator, state="new") == ids(1, 2, 3)
    assert [asked.query for asked in server.asked] == [
        {"state": "new"},
        {"state": "new", "after_id": "7", "after_time": "t1"},
        {"state": "new", "after_id": "8"},
    ]


async def test_a_cursor_may_be_zero_and_may_have_an_end_of_its_own() -> None:
    pages = [{"data": ids(1), "next_cursor": 0}, {"data": ids(2), "next_cursor": -1}]
    async with loopback(in_turn(pages)) as server:
        assert await walk(server, CursorPaginator(items="data", end_values=[-1])) == ids(1, 2)
    assert server.asked[1].query == {"cursor": "0"}


async def test_a_cursor_in_a_body_may_be_an_object_or_a_list() -> None:
    class Searched(Api):
        search = post("/search")

    for key in ({"id": {"S": "7"}}, [1, "b"]):
        pages = [{"Items": ids(1), "LastEvaluatedKey": key}, {"Items": ids(2), "LastEvaluatedKey": {}}]
        paginator = CursorPaginator(items="Items", param="ExclusiveStartKey", cursor="LastEvaluatedKey", where="body")
        async with loopback(in_turn(pages)) as server:
            plug = Searched().with_options(base_url=server.url, paginator=paginator)
            assert [item async for item in plug.search.items(body={"Limit": 1})] == ids(1, 2)
        assert server.asked[1].json() == {"Limit": 1, "ExclusiveStartKey": key}


async def test_a_cursor_keeps_every_digit() -> None:
    number = 123456789012345678901234567890
    pages = [{"data": [{"id": number}], "next_cursor": number}, {"data": [], "next_cursor": None}]
    for paginator in (CursorPaginator(items="data"), KeysetPaginator(items="data", param="cursor")):
        async with loopback(in_turn(pages)) as server:
            assert await walk(server, paginator) == [{"id": number}]
        assert server.asked[1].query == {"cursor": str(number)}


@pytest.mark.parametrize("path", ["@odata\\.nextLink", ("@odata.nextLink",)])
async def test_keys_with_dots(path: Any) -> None:
    pages = [{"value": ids(1), "@odata.nextLink": "/things?$skiptoken=2", "@odata.count": 2}, {"value": ids(2)}]
    async with loopback(in_turn(pages)) as server:
        assert await walk(server, NextUrlPaginator(items="value", path=path)) == ids(1, 2)
    pages = [{"a.b": {"c": ids(1)}, "next_cursor": None}]
    async with loopback(in_turn(pages)) as server:
        assert await walk(server, CursorPaginator(items="a\\.b.c")) == ids(1)


@pytest.mark.parametrize("total", [-1, None, "", "3", 3, 3.0])
async def test_totals(total: Any) -> None:
    pages = [{"data": ids(1, 2), "total": total}, {"data": ids(3), "total": total}, {"data": [], "total": total}]
    for paginator in (
        OffsetPaginator(items="data", total="total"),
        PageNumberPaginator(items="data", total="total"),
        PageNumberPaginator(items="data", total="total", size_param="size", size=2),
    ):
        async with loopback(in_turn(pages)) as server:
            assert await walk(server, paginator) == ids(1, 2, 3)
        assert len(server.asked) == (2 if total in ("3", 3) else 3)


async def test_a_total_in_a_header() -> None:
    pages = [as_json(ids(1, 2), X_Total_Count="3"), as_json(ids(3), X_Total_Count="3")]
    async with loopback(in_turn(pages)) as server:
        assert await walk(server, PageNumberPaginator(total="header:X-Total-Count")) == ids(1, 2, 3)


@pytest.mark.parametrize(
    ("paginator", "extra"),
    [
        (OffsetPaginator(items="data", has_more="more", limit=2), {}),
        (OffsetPaginator(items="data", limit=2, step="limit", total="total"), {"total": 6}),
        (PageNumberPaginator(items="data", has_more="more"), {}),
        (PageNumberPaginator(items="data", total_pages="pages"), {"pages": 3}),
        (PageNumberPaginator(items="data", size_param="size", size=2, total="total"), {"total": 6}),
        (CursorPaginator(items="data"), {}),
        (CursorPaginator(items="data", has_more="more"), {}),
        (NextUrlPaginator(items="data"), {}),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_empty_page_is_not_the_end_where_the_service_says_so(paginator: Paginator, extra: Any) -> None:
    def page(items: list[Any], cursor: str | None) -> dict[str, Any]:
        follows = f"/things?cursor={cursor}" if cursor else None
        return {"data": items, "more": cursor is not None, "next_cursor": cursor, "next": follows, **extra}

    pages = [page(ids(1, 2), "a"), page([], "b"), page(ids(3), None), page([], None)]
    async with loopback(in_turn(pages)) as server:
        assert await walk(server, paginator) == ids(1, 2, 3)


async def test_empty_pages_have_a_bound() -> None:
    count = 0

    def handler(asked: Asked) -> Answer:
        nonlocal count
        count += 1
        return as_json({"data": [], "next": f"/things?token={count}"})

    async with loopback(handler) as server:
        with pytest.raises(PaginationError, match="empty"):
            await walk(server, NextUrlPaginator(items="data", max_empty_pages=5))
    assert count == 5


async def test_an_offset_can_grow_by_the_limit() -> None:
    def handler(asked: Asked) -> Answer:
        offset = int(asked.query["offset"])
        kept = [number for number in range(offset, min(offset + 4, 10)) if number % 2]
        return as_json({"data": ids(*kept), "total": 10})

    async with loopback(handler) as server:
        items = await walk(server, OffsetPaginator(items="data", total="total", limit=4, step="limit"))
    assert items == ids(1, 3, 5, 7, 9) and [asked.query["offset"] for asked in server.asked] == ["0", "4", "8"]


async def test_equal_pages_are_honest_where_the_position_moves() -> None:
    pages = [{"data": [5, 5], "next_cursor": str(number)} for number in range(8)] + [{"data": [5], "next_cursor": None}]
    async with loopback(in_turn(pages)) as server:
        assert await walk(server, CursorPaginator(items="data")) == [5] * 17
    for rows in ([5, 5], [{"value": 1}, {"value": 2}]):
        async with loopback(in_turn([{"data": rows}, {"data": rows}, {"data": []}])) as server:
            assert await walk(server, OffsetPaginator(items="data")) == rows * 2
    for paginator in (OffsetPaginator(items="data", total="total"), PageNumberPaginator(items="data", total_pages="n")):
        async with loopback(in_turn([{"data": ids(1, 2), "total": 9, "n": 9}] * 2)) as server:
            with pytest.raises(PaginationError, match="same page"):
                await walk(server, paginator)


@pytest.mark.parametrize("status", [404, 204, 416])
async def test_a_status_past_the_last_page(status: int) -> None:
    paginator = PageNumberPaginator(items="data", end_statuses={404, 204, 416})
    async with loopback(in_turn([{"data": ids(1)}, Answer(status)])) as server:
        assert await walk(server, paginator) == ids(1)
    async with loopback(in_turn([{"data": ids(1)}, Answer(status)])) as server:
        with pytest.raises(PlugError):
            await walk(server, PageNumberPaginator(items="data"))
    async with loopback(in_turn([Answer(status)])) as server:
        if status == 404:
            with pytest.raises(PlugError):
                await walk(server, paginator)
        else:
            assert await walk(server, paginator) == []


async def test_a_next_url_can_keep_the_filter() -> None:
    for keep, query in ((True, {"cursor": "b", "state": "new", "size": "2"}), (False, {"cursor": "b", "size": "2"})):
        pages = [as_json({"data": ids(1), "next": "/things?cursor=b&size=2"}), as_json({"data": ids(2), "next": None})]
        async with loopback(in_turn(pages)) as server:
            assert await walk(server, NextUrlPaginator(items="data", keep_params=keep), state="new", size=1) == ids(
                1, 2
            )
        assert server.asked[1].query == query


async def test_a_next_url_in_a_header() -> None:
    for paginator in (NextUrlPaginator(header="Next-Page"), NextUrlPaginator(path="header:next-page")):
        async with loopback(in_turn([as_json(ids(1), Next_Page="/things?_token=2"), as_json(ids(2))])) as server:
            assert await walk(server, paginator) == ids(1, 2)


async def test_a_total_that_changes_or_is_not_reached_is_a_doubt() -> None:
    first, last = {"data": ids(1, 2), "total": 3}, {"data": ids(3), "total": 3}
    for pages, doubt in (
        ([first, last], ""),
        ([{**first, "total": 4}, last], "total changed"),
        ([first, {"data": ids(3), "total": 4}, {"data": ids(4), "total": 4}], "total changed"),
        ([{**first, "total": 1}], "2 items were received"),
    ):
        async with loopback(in_turn(pages)) as server:
            walked = await fetched(server, OffsetPaginator(items="data", total="total"))
        assert doubt in walked[-1].doubt and bool(walked[-1].doubt) == bool(doubt)
    async with loopback(in_turn([first])) as server:  # a walk that starts elsewhere does not see everything
        assert (await fetched(server, OffsetPaginator(items="data", total="total"), offset=1))[-1].doubt == ""


@pytest.mark.parametrize(
    ("rule", "body", "code", "message"),
    [
        (ErrorBody(when="errors"), {"data": None, "errors": [{"message": "slow", "code": "T1"}]}, "T1", "slow"),
        (
            ErrorBody(when="errors", code="errors.0.extensions.code", message="errors.0.message"),
            {"errors": [{"message": "slow", "extensions": {"code": "TIMEOUT"}}]},
            "TIMEOUT",
            "slow",
        ),
        (ErrorBody(unless="ok", message="error"), {"ok": False, "error": "ratelimited"}, None, "ratelimited"),
        (ErrorBody(unless="ok"), {"ok": False, "error": "ratelimited"}, "ratelimited", None),
        (ErrorBody(when="error"), {"error": {"code": "maxlag", "info": "Waiting"}}, "maxlag", "Waiting"),
        (ErrorBody(unless="errcode", equals=0, message="errmsg"), {"errcode": 40001, "errmsg": "no"}, "40001", "no"),
        (ErrorBody(when="status", equals=["error", "fail"]), {"status": "fail", "message": "bad"}, None, "bad"),
        (ErrorBody(when=lambda body: "fault" in body), {"fault": 1, "message": "bad"}, None, "bad"),
    ],
)
async def test_a_200_that_is_an_error(rule: ErrorBody, body: Any, code: str | None, message: str | None) -> None:
    class Checked(Api):
        error_body = rule
        other = get("/other", error_body=ErrorBody(when="never"))

    good = {"data": ids(1), "next_cursor": "a", "ok": True, "errcode": 0, "status": "ok", "errors": [], "error": None}
    async with loopback(in_turn([good, body, body, body, body])) as server:
        plug = Checked().with_options(base_url=server.url, paginator=CursorPaginator(items="data"))
        for call in (plug.things.items().__anext__, plug.things, lambda: plug.get("/things")):
            with pytest.raises(PlugError) as caught:
                await call()
                await call()
            error = caught.value
            assert (error.code, error.details["serviceCode"], error.details["serviceMessage"]) == (
                "service_error",
                code,
                message,
            )
            assert error.status == 200 and error.body == body
        if "fault" not in body:
            assert await plug.other() == body


@pytest.mark.parametrize(
    "rule", [{}, {"when": "a", "unless": "b"}, {"when": "a..b"}, {"when": lambda b: True, "equals": 1}, {"unless": ""}]
)
def test_an_error_body_that_says_nothing_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ErrorBody(**rule)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OffsetPaginator(limit=0),
        lambda: OffsetPaginator(limit=10, limit_param=None),
        lambda: OffsetPaginator(step="pages"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: OffsetPaginator(step="limit", limit_param=None),
        lambda: OffsetPaginator(has_more="a", is_last="b"),
        lambda: OffsetPaginator(items="header:X"),
        lambda: OffsetPaginator(items="a..b"),
        lambda: OffsetPaginator(total=""),
        lambda: OffsetPaginator(end_statuses={200}),
        lambda: OffsetPaginator(max_empty_pages=0),
        lambda: OffsetPaginator(where="path"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: PageNumberPaginator(size=100),
        lambda: CursorPaginator(cursor="a", header="b"),
        lambda: CursorPaginator(params={"a": "b"}, cursor="c"),
        lambda: CursorPaginator(params={"a": "b"}, param="c"),
        lambda: CursorPaginator(params={}),
        lambda: CursorPaginator(header=""),
        lambda: NextUrlPaginator(path="a", header="b"),
        lambda: NextUrlPaginator(where="body"),  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        lambda: SinglePagePaginator(has_more="a"),  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        lambda: JsonApiPaginator(items="a"),  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ],
)
def test_parameters_that_mean_nothing_are_refused(make: Callable[[], Paginator]) -> None:
    with pytest.raises((ValueError, TypeError)):
        make()
