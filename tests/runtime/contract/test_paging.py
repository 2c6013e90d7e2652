"""What a comparison shows about a paginator: a short walk against a real server."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from khotan_cli.runtime import (
    CursorPaginator,
    KeysetPaginator,
    LinkHeaderPaginator,
    OffsetPaginator,
    PageNumberPaginator,
    Plug,
    get,
    post,
)
from khotan_cli.runtime.contract.bodies import comparable
from khotan_cli.runtime.contract.check import Report, check_pages
from khotan_cli.runtime.contract.paging import is_walked, walk_pages
from khotan_cli.runtime.contract.paging_checks import with_paging
from khotan_cli.runtime.paging.base import Paginator
from khotan_cli.runtime.redaction.masker import Masker
from tests.support.loopback import Answer, Asked, Handler, as_json, loopback


class Row(BaseModel):
    id: int
    note: str | None = None


class Rows(BaseModel):
    data: list[Row]
    total: int | None = None
    next_cursor: str | None = None
    more: bool | None = None


class Single(BaseModel):
    id: int


ROWS = [{"id": number} for number in range(5)]


def by_offset(asked: Asked) -> Answer:
    start = int(asked.query.get("offset", 0))
    return as_json({"data": ROWS[start : start + 2], "total": len(ROWS)})


def by_cursor(asked: Asked) -> Answer:
    start = int(asked.query.get("cursor", 0))
    following = str(start + 2) if start + 2 < len(ROWS) else None
    return as_json({"data": ROWS[start : start + 2], "total": len(ROWS), "next_cursor": following})


OFFSET = OffsetPaginator(items="data", total="total", limit=2)
CURSOR = CursorPaginator(items="data")


async def compared(
    handler: Handler, paginator: Paginator, *, pages: int = 2, model: Any = Rows, **params: Any
) -> tuple[Report, dict[str, Any], list[Asked]]:
    class Api(Plug):
        base_url = "http://127.0.0.1:9"
        rows = get("/rows", returns=model, paginator=paginator)

    async with loopback(handler) as server:
        api = Api().with_options(base_url=server.url)
        walk = await walk_pages(api.rows, params, pages)
        read = [comparable("api.rows", response, model, {}) for response in walk.responses]
        report = with_paging(check_pages(model, [body for body, _ in read]), walk, Masker())
        return report, report.to_json()["paging"], list(server.asked)


def failed(report: Report) -> list[tuple[str, str]]:
    return [(f.path, f.grade) for f in report.findings if f.issue == "paging"]


@pytest.mark.parametrize(("handler", "paginator"), [(by_offset, OFFSET), (by_cursor, CURSOR)], ids=["offset", "cursor"])
@pytest.mark.parametrize(("pages", "items", "ended"), [(1, 2, False), (2, 4, False), (3, 5, True), (9, 5, True)])
async def test_a_paginator_that_works(
    handler: Handler, paginator: Paginator, pages: int, items: int, ended: bool
) -> None:
    report, paging, asked = await compared(handler, paginator, pages=pages)
    assert failed(report) == [] and report.matches
    assert {key: paging[key] for key in ("pages", "items", "total", "ended")} == {
        "pages": min(pages, 3),
        "items": items,
        "total": 5,
        "ended": ended,
    }
    assert [check["check"] for check in paging["checks"]] == ["list", "position", "overlap", "total", "cursor"]
    assert all(check["ok"] and check["message"].endswith(".") for check in paging["checks"])
    assert len(asked) == min(pages, 3)


def page(value: Any, status: int = 200, **headers: str) -> Handler:
    return lambda _: as_json(value, status, **headers)


def stuck_cursor(asked: Asked) -> Answer:
    start = 2 if "cursor" in asked.query else 0
    return as_json({"data": ROWS[start : start + 2], "next_cursor": "same"})


def second_fails(asked: Asked) -> Answer:
    return as_json({"error": "x"}, 500) if asked.query.get("page") == "2" else as_json({"data": ROWS[:2]})


def second_is_html(asked: Asked) -> Answer:
    html = Answer(200, b"<p>", {"Content-Type": "text/html"})
    return html if asked.query.get("page") == "2" else as_json({"data": ROWS[:2]})


def short(asked: Asked) -> Answer:
    start = int(asked.query.get("page", 1))
    return as_json({"data": ROWS[:2] if start == 1 else [], "total_count": 5})


FAULTS: list[tuple[str, Handler, Paginator, str, str]] = [
    ("list is not found", page({"rows": ROWS}), OffsetPaginator(items="data"), "list", "$.data"),
    ("list is an object", page({"data": {"a": 1}}), PageNumberPaginator(items="data"), "list", "$.data"),
    ("list is deep", page({"result": {}}), CursorPaginator(items="result.rows"), "list", "$.result.rows"),
    ("cursor does not move", stuck_cursor, CURSOR, "position", "$.next_cursor"),
    ("page number is ignored", page({"data": ROWS}), PageNumberPaginator(items="data"), "overlap", "$.data"),
    ("offset is ignored", page({"data": ROWS[:2], "total": 5}), OFFSET, "overlap", "$.data"),
    ("id is ignored", page({"data": ROWS}), KeysetPaginator(items="data"), "overlap", "$.data"),
    (
        "own id is ignored",
        page([{"code": "a"}, {"code": "b"}]),
        KeysetPaginator(id_field="code", param="after"),
        "overlap",
        "$",
    ),
    ("page 2 fails", second_fails, PageNumberPaginator(items="data"), "position", "$"),
    ("page 2 cannot be read", second_is_html, PageNumberPaginator(items="data"), "list", "$.data"),
    ("fewer than the total", short, PageNumberPaginator(items="data"), "total", "$"),
    (
        "no link, more by a header",
        page(ROWS[:2], X_Total_Count="5"),
        LinkHeaderPaginator(),
        "total",
        "$",
    ),
    ("cursor of another name", page({"data": ROWS[:2], "total": 5, "after": "x"}), CURSOR, "cursor", "$.next_cursor"),
    (
        "flag is nowhere",
        page({"data": [], "total": 5}),
        PageNumberPaginator(items="data", has_more="meta.more"),
        "cursor",
        "$.meta.more",
    ),
    (
        "flag is nowhere, and there is no total",
        page({"data": ROWS[:2]}),
        CursorPaginator(items="data", has_more="meta.more"),
        "cursor",
        "$.meta.more",
    ),
    (
        "more follows, but where",
        page({"data": ROWS[:2], "more": True}),
        CursorPaginator(items="data", has_more="more"),
        "position",
        "$.next_cursor",
    ),
    (
        "cursor is below what is absent",
        page({"data": ROWS[:2], "meta": {"total_count": 9}}),
        CursorPaginator(items="data", cursor="paging.next"),
        "cursor",
        "$.paging.next",
    ),
]


@pytest.mark.parametrize(
    ("handler", "paginator", "check", "path"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS]
)
async def test_a_fault_of_the_paging_is_breaking(handler: Handler, paginator: Paginator, check: str, path: str) -> None:
    report, paging, _ = await compared(handler, paginator, model=Any)
    checks = {one["check"]: one["ok"] for one in paging["checks"]}
    assert all(one["message"].endswith(".") and not one["message"].endswith("..") for one in paging["checks"])
    assert checks[check] is False, paging
    assert (path, "breaking") in failed(report) and report.fails("breaking")
    assert len(failed(report)) == sum(not ok for ok in checks.values())


async def test_items_without_identity_may_be_equal() -> None:
    def equal(asked: Asked) -> Answer:
        return as_json([[1, 1], [2, 1], [3, 1]][int(asked.query["offset"]) // 2])

    report, paging, _ = await compared(equal, OffsetPaginator(limit=2), model=list[int])
    assert failed(report) == [] and paging["items"] == 4


async def test_a_walk_from_the_middle_is_not_held_against_the_total() -> None:
    report, paging, _ = await compared(by_offset, OFFSET, pages=9, offset=2)
    assert failed(report) == [] and (paging["items"], paging["ended"]) == (3, True)


async def test_the_findings_of_the_pages_are_counted_together() -> None:
    def handler(asked: Asked) -> Answer:
        rows = [{"id": "x" if row["id"] in (1, 2) else row["id"], "note": "n"} for row in ROWS]
        start = int(asked.query["offset"])
        return as_json({"data": rows[start : start + 2], "total": 5})

    report, _, _ = await compared(handler, OFFSET)
    breaking = [f for f in report.findings if f.grade == "breaking" and f.issue != "paging"]
    assert [(f.path, f.count, f.of) for f in breaking] == [("$.data[*].id", 2, 4)]
    assert report.items == 4


async def test_what_a_later_page_sends_is_not_reported_as_never_sent() -> None:
    def handler(asked: Asked) -> Answer:
        start = int(asked.query["offset"])
        rows = [{"id": start}] if start == 0 else [{"id": start, "note": "n"}]
        return as_json({"data": rows, "total": 5, "next_cursor": "x", "more": True})

    report, _, _ = await compared(handler, OFFSET)
    assert report.findings == []


class Lists(Plug):
    base_url = "http://127.0.0.1:9"
    paginator = CURSOR
    own = get("/a", paginator=OffsetPaginator())
    rows = get("/b", returns=Rows)
    single = get("/c", returns=Single)
    untyped = get("/d")
    nothing = get("/e", returns=None)
    writes = post("/f", returns=Rows)
    search = post("/g", returns=Rows, paginator=CURSOR)


@pytest.mark.parametrize(
    ("name", "walked"),
    [
        ("own", True),
        ("rows", True),
        ("single", False),
        ("untyped", False),
        ("nothing", False),
        ("writes", False),
        ("search", True),
    ],
)
def test_what_is_walked(name: str, walked: bool) -> None:
    assert is_walked(getattr(Lists, name), CURSOR) is walked
    assert is_walked(getattr(Lists, name), None) is (getattr(Lists, name).paginator is not None)
