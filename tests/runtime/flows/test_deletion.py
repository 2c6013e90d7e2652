"""delete_missing: nothing is deleted that a pass did not surely miss."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text, true

from khotan_cli.runtime import CursorPaginator, FlowContext, OffsetPaginator, PageNumberPaginator, Paginator, inflow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.worker.dry_run import dry_run
from tests.runtime.flows.conftest import ItemRow, Run, Shop, rows_of
from tests.support.flows import Source, some_items
from tests.support.loopback import Answer, Asked, as_json


async def ids(host: Environment) -> set[int]:
    return {row[0] for row in await rows_of(host)}


# -- a bound on what one run deletes ------------------------------------------------------------------------------------


async def test_a_run_that_would_delete_most_rows_stops(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    allowed: list[Any] = [None]

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", delete_missing=True, max_delete=allowed[0])

    source.items = some_items(40)
    await run(items)
    source.items = some_items(12)
    row = await run(items)
    assert (row.status, row.error["error"]) == ("failed", "too_many_deletions")
    assert "28 of 40 rows" in row.error["message"] and "max_delete=0.75" in row.error["hint"]
    assert (row.deleted, len(await ids(host))) == (0, 40)
    report = await dry_run(host, items, "default", None)
    assert report.failure is not None and report.failure["error"] == "too_many_deletions"
    allowed[0] = 0.75
    row = await run(items)
    assert (row.status, row.deleted, len(await ids(host))) == ("completed", 28, 12)


@pytest.mark.parametrize(
    ("share", "left", "status"), [(0.1, 18, "completed"), (0.1, 17, "failed"), (1, 1, "completed")]
)
async def test_a_declared_share_has_no_exceptions(
    run: Run, host: Environment, shop: Shop, source: Source, share: float, left: int, status: str
) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", delete_missing=True, max_delete=share)

    source.items = some_items(20)
    await run(items)
    source.items = some_items(left)
    assert (await run(items)).status == status
    assert len(await ids(host)) == (left if status == "completed" else 20)


async def test_work_of_a_day_is_let_through(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", delete_missing=True)

    source.items = some_items(11)
    await run(items)
    source.items = some_items(1)
    assert (await run(items)).deleted == 10


@pytest.mark.parametrize("options", [{"max_delete": 0.5}, {"delete_where": true()}])
async def test_options_without_deletion_are_refused(run: Run, shop: Shop, options: dict[str, Any]) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", **options)

    assert (await run(items)).error["error"] == "config_invalid"


@pytest.mark.parametrize("share", [0, 1.5, -1])
async def test_a_share_that_is_none_is_refused(run: Run, shop: Shop, share: float) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", delete_missing=True, max_delete=share)

    assert "invalid max_delete" in (await run(items)).error["message"]


# -- parameters that limit what comes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{"since": "x"}, {"cursor": 1}, {"offset": 10}, {"status": "open", "limit": 5}])
async def test_a_limited_sync_deletes_only_within_what_was_asked(
    run: Run, host: Environment, shop: Shop, source: Source, params: dict[str, Any]
) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        where = ItemRow.id < 15 if ctx.body else None
        await ctx.sync(shop.list_items, into=ItemRow, key="id", params=params, delete_missing=True, delete_where=where)

    source.items = some_items(20)
    row = await run(items)
    assert row.error["error"] == "config_invalid" and "delete_where" in row.error["hint"] and not source.asked
    async with host.database.writing() as session:
        await session.execute(text("INSERT INTO items (id, name, price) VALUES (-1, 'gone', 1), (777, 'other', 1)"))
    assert (await run(items, body=1)).deleted == 1
    assert 777 in await ids(host) and -1 not in await ids(host)


async def test_parameters_that_limit_nothing_are_fine(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        params = {"limit": 10, "sort": "id", "fields": "id,name,price"}
        await ctx.sync(shop.list_items, into=ItemRow, key="id", params=params, delete_missing=True)

    source.items = some_items(20)
    assert (await run(items)).status == "completed"
    source.items = some_items(19)
    assert (await run(items)).deleted == 1


# -- a source that changes during the walk --------------------------------------------------------------------------------


class Shrinking:
    """A list of which the first record is deleted after the first page was sent: those behind it move up."""

    def __init__(self, count: int, *, total: bool, added: bool = False, by_page: bool = False) -> None:
        self.items, self.total, self.added, self.by_page = some_items(count), total, added, by_page
        self.shrinks, self.requests = True, 0

    def __call__(self, asked: Asked) -> Answer:
        self.requests += 1
        start = (int(asked.query["page"]) - 1) * 10 if self.by_page else int(asked.query["offset"])
        page: dict[str, Any] = {"data": self.items[start : start + 10]}
        if self.total:
            page["total"] = len(self.items)
        if start == 0 and self.shrinks:
            self.shrinks = False
            self.items = [*self.items[1:], *(some_items(100)[99:] if self.added else [])]
        return as_json(page)


@pytest.mark.parametrize(
    ("paginator", "source", "reason"),
    [
        (OffsetPaginator(total="total", limit=10), Shrinking(30, total=True), "total changed"),
        (PageNumberPaginator(total="total"), Shrinking(30, total=True, by_page=True), "total changed"),
        (OffsetPaginator(limit=10), Shrinking(30, total=False), "previous page changed"),
        (OffsetPaginator(limit=10), Shrinking(30, total=False, added=True), "previous page changed"),
        (PageNumberPaginator(), Shrinking(30, total=False, by_page=True), "previous page changed"),
    ],
    ids=["offset, total", "page, total", "offset", "offset, one added", "page"],
)
async def test_a_record_that_moves_between_two_pages_is_not_deleted(
    run: Run, host: Environment, shop: Shop, service: Any, paginator: Paginator, source: Shrinking, reason: str
) -> None:
    counting = shop.with_options(paginator=paginator)

    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        await ctx.sync(counting.list_loose, into=ItemRow, key="id", delete_missing=True)

    async with host.database.writing() as session:
        values = ", ".join(f"({number}, 'old', 1)" for number in range(30))
        await session.execute(text(f"INSERT INTO items (id, name, price) VALUES {values}"))
    shrinking = Shrinking(30, total=source.total, added=source.added, by_page=source.by_page)
    service.handler = shrinking
    row = await run(items)
    assert (row.status, row.deleted) == ("completed", 0) and 10 in await ids(host)
    assert reason in (await host.runs.updates(row.id))[0].message
    row = await run(items)  # a quiet source: what is gone is deleted
    assert row.deleted == 1 and 0 not in await ids(host) and 10 in await ids(host)


async def test_a_total_spares_the_second_reading(run: Run, shop: Shop, service: Any) -> None:
    for total, requests in ((True, 3), (False, 7)):
        source = Shrinking(30, total=total)
        source.shrinks = False
        service.handler = source
        counting = shop.with_options(paginator=OffsetPaginator(limit=10, total="total" if total else None))

        @inflow(shop)
        async def items(ctx: FlowContext, plug: Any = counting) -> None:
            await ctx.sync(plug.list_loose, into=ItemRow, key="id", delete_missing=True)

        await run(items)
        assert source.requests == requests


@pytest.mark.parametrize(
    "last", [{"data": None, "errors": [{"message": "x"}]}, {"ok": False}, "<html>", {"data": [], "next_cursor": {}}]
)
async def test_a_walk_that_breaks_off_deletes_nothing(
    run: Run, host: Environment, shop: Shop, service: Any, last: Any
) -> None:
    @inflow(shop)
    async def items(ctx: FlowContext) -> None:
        cursored = shop.with_options(paginator=CursorPaginator(items="data"))
        await ctx.sync(cursored.list_loose, into=ItemRow, key="id", delete_missing=True, max_delete=1)

    pages = {"": {"data": some_items(10), "next_cursor": "b"}, "b": {"data": some_items(20)[10:], "next_cursor": None}}
    service.handler = lambda asked: as_json(pages[asked.query.get("cursor", "")])
    await run(items)
    pages["b"] = last
    row = await run(items)
    assert row.status == "failed" and row.deleted == 0 and len(await ids(host)) == 20
