"""Steps, state, cancelling, retrying, hooks, dry runs: one execution and what is around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlmodel import select

from khotan_cli.errors import ConfigError, KhotanError, UnknownName
from khotan_cli.runtime import (
    FlowContext,
    Hooks,
    RunInfo,
    RunResult,
    SlackNotifier,
    Variant,
    inflow,
    outflow,
    step,
)
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.runs import RunLost
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.dry_run import dry_run
from khotan_cli.runtime.worker.execution import execute
from khotan_cli.runtime.worker.maintenance import Maintenance
from tests.runtime.flows.conftest import ItemRow, Run, Shop, counts, rows_of
from tests.support.flows import Source, some_items
from tests.support.loopback import Loopback

calls: list[str] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


class Done(BaseModel):
    number: int
    at: datetime


@step(attempts=3, backoff=0.001)
async def wobbly(ctx: FlowContext, fails: int) -> Done:
    calls.append("wobbly")
    await ctx.cursor("where").set(len(calls))
    await ctx.cache("things").set("k", {"n": len(calls)})
    if len(calls) <= fails:
        raise ValueError("not yet")
    return Done(number=len(calls), at=datetime(2026, 1, 2, tzinfo=UTC))


@step()
async def last(ctx: FlowContext) -> int:
    calls.append("last")
    if ctx.body == "fail":
        raise ValueError("at the end")
    return 1


async def test_a_step_is_tried_again_and_its_state_commits_with_it(run: Run, host: Environment, shop: Shop) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> RunResult:
        done = await wobbly(ctx, 2)
        assert isinstance(done, Done)
        return RunResult(message=f"{done.number} {await ctx.cursor('where').get()}", created=3)

    row = await run(flow)
    assert (row.status, row.message, counts(row)) == ("completed", "3 3", {"created": 3}), row.error
    assert await host.entries.get_many("things", "", ["k"]) == {"k": {"n": 3}}
    steps = await host.runs.steps(row.id)
    assert [(s.name, s.attempts) for s in steps] == [("wobbly", 3), ("result", 1)]


async def test_a_step_that_fails_leaves_no_state(run: Run, host: Environment, shop: Shop) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        assert await ctx.cursor("where").get("none") == "none"
        await wobbly(ctx, 99)

    row = await run(flow)
    assert (row.status, row.error["message"], len(calls)) == ("failed", "ValueError: not yet", 3)
    assert await rows_of(host, "SELECT * FROM khotan_cache_entries") == []


async def test_retry_from_a_step_keeps_what_came_before(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> RunResult:
        done = await wobbly(ctx, 0)
        await ctx.sync(shop.list_items, into=ItemRow, key="id")
        number = await last(ctx)
        return RunResult(message=f"{done.at.year} {number}")

    source.items = some_items(15)
    failed = await run(flow, body="fail")
    dispatcher = Dispatcher(host)
    assert (failed.status, failed.created, calls) == ("failed", 15, ["wobbly", "last"])
    with pytest.raises(UnknownName, match="nowhere"):
        await dispatcher.retry(failed.id, "nowhere")
    async with host.database.session() as session:
        await session.execute(text("UPDATE khotan_runs SET body = NULL"))
    again = await dispatcher.retry(failed.id, "4")
    assert await execute(host, again) == "completed"
    row = await host.runs.get(again)
    assert row is not None
    assert (row.retry_of, row.created, row.message) == (failed.id, 15, "2026 1")
    assert calls == ["wobbly", "last", "last"] and source.asked == [0, 10]
    from_start = await dispatcher.retry(failed.id)
    assert await execute(host, from_start) == "completed"
    assert calls.count("wobbly") == 2
    named = await dispatcher.retry(from_start, "sync shop.list_items page 2")
    assert await execute(host, named) == "completed"
    assert source.asked == [0, 10, 0, 10, 10]


async def test_cancel_stops_before_the_next_step(
    host: Environment, shop: Shop, source: Source, declare: Callable[[Flow], Flow]
) -> None:
    dispatcher = Dispatcher(host)

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await wobbly(ctx, 0)
        assert await dispatcher.cancel(ctx.run_id) == "running"
        await last(ctx)

    declare(flow)
    run_id = await dispatcher.trigger("flow")
    assert await execute(host, run_id) == "cancelled"
    assert calls == ["wobbly"]
    with pytest.raises(KhotanError, match="has already ended"):
        await dispatcher.cancel(run_id)
    waiting = await dispatcher.trigger("flow")
    assert await dispatcher.cancel(waiting) == "cancelled"
    assert await execute(host, waiting) == "cancelled"
    assert calls == ["wobbly"]
    with pytest.raises(KhotanError, match="There is no run"):
        await dispatcher.cancel("nope")


async def test_a_cancel_in_the_middle_of_a_sync(host: Environment, shop: Shop, source: Source, run: Run) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        def watch(item: Any) -> Any:
            if item.id == 25:
                asyncio.get_running_loop().create_task(host.runs.cancel(ctx.run_id))
            return item

        await ctx.sync(shop.list_items, into=ItemRow, key="id", transform=watch, prefetch=False)

    source.items, source.delay = some_items(200), 0.01
    row = await run(flow)
    assert row.status == "cancelled" and 20 <= row.created < 200 and row.created % 10 == 0


async def test_retrying_what_runs_is_refused(host: Environment, shop: Shop, declare: Callable[[Flow], Flow]) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None: ...

    declare(flow)
    run_id = await Dispatcher(host).trigger("flow")
    with pytest.raises(KhotanError) as caught:
        await Dispatcher(host).retry(run_id)
    assert (caught.value.code, caught.value.http_status) == ("run_not_finished", 409)


async def test_hooks_of_variant_flow_and_app_are_told_and_change_nothing(
    run: Run, host: Environment, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, str]] = []

    def note(where: str) -> Hooks:
        async def end(info: RunInfo) -> None:
            told.append((where, info.status))
            assert info.seconds is not None and info.counts["created"] == 0

        def start(info: RunInfo) -> None:
            told.append((where, info.status))
            raise RuntimeError("sk_live_secret in a message")

        return Hooks(on_start=start, on_end=end, on_failure=lambda info: told.append((where, "failure")))

    @inflow(shop, hooks=note("flow"), variants={"full": Variant(hooks=note("variant"))})
    async def flow(ctx: FlowContext) -> None:
        if ctx.body:
            raise ValueError("no")

    object.__setattr__(host, "hooks", note("app"))
    assert (await run(flow)).status == "completed"
    places = ["app", "flow", "variant"]
    assert told == [(w, "running") for w in places] + [(w, "completed") for w in places]
    told.clear()
    assert (await run(flow, body=1)).status == "failed"
    assert told[3:] == [pair for w in places for pair in ((w, "failure"), (w, "failed"))]
    assert "sk_live" not in caplog.text and "RuntimeError" in caplog.text


async def test_slack_is_told_in_its_own_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.loopback import as_json, loopback

    info = RunInfo("id-1", "a<b>&", "full", "failed", "manual", {"created": 1200}, error={"message": "no <luck>"})
    async with loopback(lambda asked: as_json({"ok": True})) as slack:
        monkeypatch.setenv("HOOK", slack.url)
        await SlackNotifier(env="HOOK", link="https://app/runs/")(info)
        body = slack.asked[0].json()
    assert body["text"].splitlines() == [
        ":x: *a&lt;b&gt;&amp; (full)* failed",
        "1,200 created",
        "> no &lt;luck&gt;",
        "<https://app/runs/id-1|Run id-1>",
    ]
    assert body["blocks"][0]["text"]["text"] == body["text"]
    with pytest.raises(ConfigError):
        SlackNotifier()
    with pytest.raises(httpx.HTTPError):
        async with loopback(lambda asked: as_json({}, 500)) as slack:
            await SlackNotifier(slack.url)(info)
    assert "hooks.slack" not in repr(SlackNotifier("https://hooks.slack.com/secret"))


async def test_a_dry_run_sends_and_stores_nothing(host: Environment, shop: Shop, source: Source, declare: Any) -> None:
    @outflow(shop, resource="goods")
    async def flow(ctx: FlowContext) -> RunResult:
        assert ctx.dry
        await ctx.sync(shop.list_items, into=ItemRow, key="id")
        await wobbly(ctx, 0)
        async with ctx.session() as session:
            await session.execute(text("INSERT INTO items (id, name, price) VALUES (999, 'x', 1)"))
        await ctx.mapping("goods").upsert("SKU", shop="1")
        await ctx.set_vars({"token": "sk_live_new"})
        await ctx.push([{"id": n, "name": f"n{n}"} for n in range(8)], shop.create_item, key="id")
        answer = await shop.create_item(body={"name": "one more, with sk_live_0123456789"})
        return RunResult(message=answer["id"])

    source.items = some_items(25)
    declare(flow)
    report = await dry_run(host, flow, "default", None)
    assert report.failure is None
    assert (report.counts["extracted"], report.counts["created"]) == (33, 33)
    assert report.writes["items"]["created"] == 25 and report.writes["items"]["sample"][1]["name"] == "item 1"
    held = report.requests["POST shop.create_item"]
    assert held["count"] == 9 and held["sample"][0]["body"] == {"id": 0, "name": "n0"}
    assert "sk_live" not in str(report)
    assert report.stopped is not None and "shop.create_item is needed" in report.stopped["message"]
    assert source.sent == []
    for table in ("items", "khotan_mappings", "khotan_cache_entries", "khotan_runs", "khotan_vars", "khotan_seen_keys"):
        assert await rows_of(host, f"SELECT * FROM {table}") == [], table


async def test_a_dry_run_of_a_flow_that_raises_says_so(host: Environment, shop: Shop, declare: Any) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        raise ValueError("broken")

    report = await dry_run(host, declare(flow), "default", None)
    assert report.failure is not None and report.failure["message"] == "ValueError: broken"


async def test_what_the_context_gives(host: Environment, shop: Shop, run: Run) -> None:
    @inflow(shop, variants={"full": Variant(), "delta": Variant()})
    async def flow(ctx: FlowContext) -> None:
        assert (ctx.flow, ctx.variant, ctx.body, ctx.source) == ("flow", "delta", {"a": 1}, "manual")
        assert ctx.plug is shop and ctx.plugs["shop"] is shop and not ctx.dry
        with pytest.raises(KhotanError, match="not a relay"):
            _ = ctx.to
        await ctx.set_vars({"token": "sk_live_changed"})
        assert (await ctx.vars())["token"] == "sk_live_changed"
        for wrong in (ctx.mapping, ctx.cache):
            with pytest.raises(UnknownName):
                wrong("goodz")
        with pytest.raises(UnknownName):
            await ctx.set_vars({"tokn": "x"})
        await ctx.cache("own").set("a", 1)
        await ctx.progress(3, 10, "a third")
        await ctx.ensure_table(ItemRow)
        async with ctx.session() as session:
            session.add(ItemRow(id=7, name="by hand", price=1))
        async with ctx.session() as session:
            assert (await session.execute(select(ItemRow.name))).scalars().all() == ["by hand"]

    row = await run(flow, "delta", body={"a": 1})
    assert row.status == "completed", row.error
    assert row.progress == {"done": 3, "total": 10, "message": "a third"}
    assert await rows_of(host, "SELECT cache, owner, key FROM khotan_cache_entries") == [("own", "flow/delta", "a")]
    stored = await rows_of(host, "SELECT ciphertext FROM khotan_vars")
    assert len(stored) == 1 and "changed" not in stored[0][0]


async def test_a_resumed_run_reads_its_variables_afresh(
    host: Environment, shop: Shop, service: Loopback, declare: Any
) -> None:
    begun = asyncio.Event()

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await shop.list_items()
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()

    declare(flow)
    run_id = await Dispatcher(host).trigger("flow")
    first = asyncio.create_task(execute(host, run_id))
    await begun.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await host.vars.save("shop", {"token": "sk_live_of_today"})  # elsewhere: nothing here is told of it
    assert await execute(host, run_id) == "completed"
    used = [asked.headers["authorization"] for asked in service.asked]
    assert used == ["Bearer sk_live_0123456789", "Bearer sk_live_of_today"]


async def test_the_engines_tables_hold_neither_body_nor_secret(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id")
        await ctx.set_vars({"token": "sk_live_0123456789"})

    source.items = [{"id": 1, "name": "a-very-private-name", "price": 1}]
    assert (await run(flow, body={"note": "a-private-note"})).status == "completed"
    held = str(await rows_of(host, f"SELECT * FROM {host.run_queue.table}"))
    assert "khotan.run" in held
    for text_ in ("private", "sk_live", "py_pickle"):
        assert text_ not in held


async def test_a_superseded_execution_is_told(host: Environment, shop: Shop, declare: Any) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await host.runs.begin(ctx.run_id)
        await wobbly(ctx, 0)

    declare(flow)
    run_id = await Dispatcher(host).trigger("flow")
    assert await execute(host, run_id) == "lost"
    assert calls == []
    with pytest.raises(RunLost):
        await host.runs.check(run_id, 1)


async def test_what_a_superseded_execution_was_about_to_store_is_not_stored(
    host: Environment, shop: Shop, source: Source, declare: Any
) -> None:
    """Another process takes the run while a step, a page, a call is under way: its epoch is newer, and wins."""

    @step()
    async def overtaken(ctx: FlowContext) -> None:
        await ctx.cursor("where").set("too late")
        await host.runs.begin(ctx.run_id)

    @inflow(shop)
    async def by_step(ctx: FlowContext) -> None:
        await overtaken(ctx)

    def late(item: Any) -> Any:
        asyncio.get_running_loop().create_task(host.runs.begin(runs["by_page"]))
        return item

    @inflow(shop)
    async def by_page(ctx: FlowContext) -> None:
        await ctx.sync(shop.list_items, into=ItemRow, key="id", transform=late)

    @outflow(shop)
    async def by_call(ctx: FlowContext) -> None:
        def late(record: Any) -> Any:
            asyncio.get_running_loop().create_task(host.runs.begin(ctx.run_id))
            return record

        await ctx.push([{"id": 1}], shop.create_item, key="id", body=late)

    source.items, source.delay = some_items(5), 0.05
    runs = {flow.name: await Dispatcher(host).trigger(declare(flow).name) for flow in (by_step, by_page, by_call)}
    for name, run_id in runs.items():
        assert await execute(host, run_id) == "lost", name
    assert await rows_of(host) == []
    for table in ("khotan_cache_entries", "khotan_run_steps", "khotan_seen_keys"):
        assert await rows_of(host, f"SELECT * FROM {table}") == [], table


async def test_retention_sweeps_ended_runs_with_all_that_is_theirs(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await ctx.log("hello")
        await ctx.sync(shop.list_items, into=ItemRow, key="id")

    source.items = some_items(5)
    old = await run(flow)
    new = await run(flow)
    async with host.database.session() as session:
        then = datetime.now(UTC) - timedelta(days=31)
        from khotan_cli.runtime.database.tables import RUNS

        await session.execute(RUNS.update().where(RUNS.c.id == old.id).values(ended_at=then))
    await host.entries.set_many("things", "", {"gone": 1}, seconds=-1)
    assert await Maintenance(Dispatcher(host), retention_days=30).sweep() == 1
    assert [row[0] for row in await rows_of(host, "SELECT id FROM khotan_runs")] == [new.id]
    assert await rows_of(host, "SELECT count(*) FROM khotan_run_steps") == [(1,)]
    assert await rows_of(host, f"SELECT workflow_uuid FROM {host.run_queue.table}") == [(new.id,)]
    assert await rows_of(host, "SELECT * FROM khotan_cache_entries") == []
    assert await Maintenance(Dispatcher(host), retention_days=0).sweep() == 0


async def test_stuck_runs_are_put_right_once(host: Environment, shop: Shop, declare: Any) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None: ...

    declare(flow)
    dispatcher = Dispatcher(host)
    lost, over, fine = [await dispatcher.trigger("flow") for _ in range(3)]
    async with host.database.session() as session:
        old = datetime.now(UTC) - timedelta(minutes=5)
        from khotan_cli.runtime.database.tables import RUNS

        await session.execute(RUNS.update().where(RUNS.c.id != fine).values(updated_at=old))
        await session.execute(text(f"DELETE FROM {host.run_queue.table} WHERE workflow_uuid = '{lost}'"))
        await session.execute(
            text(f"UPDATE {host.run_queue.table} SET status = 'ERROR' WHERE workflow_uuid = '{over}'")
        )
    both = await asyncio.gather(dispatcher.reconcile(), Dispatcher(host).reconcile("flow"))
    fixed = {run["id"]: run["now"] for part in both for run in part}
    assert fixed == {lost: "queued", over: "failed"}
    assert sum(run["id"] == over for part in both for run in part) == 1
    row = await host.runs.get(over)
    assert row is not None and "interrupted" in row.error["message"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda shop: inflow(shop, schedule="* * *"), "five fields"),
        (lambda shop: inflow(shop, schedule="* * * * *", variants={"a": Variant()}), "schedule and variants"),
        (lambda shop: inflow(str(shop)), "needs a plug"),  # type: ignore[arg-type]
        (lambda shop: inflow(shop, concurrency=0), "concurrency"),
        (lambda shop: inflow(shop, timeout=0), "timeout"),
        (lambda shop: inflow(shop, variants={"no way": Variant()}), "Invalid variant name"),
        (lambda shop: Variant(schedule="0 0 1 1 *", timezone="Mars/Olympus"), "time zone"),
        (lambda shop: step(attempts=0), "attempts"),
    ],
)
def test_declarations_that_cannot_hold(shop: Shop, make: Callable[[Any], Any], words: str) -> None:
    async def flow(ctx: FlowContext) -> None: ...

    with pytest.raises(ConfigError, match=words):
        made = make(shop)
        made(flow)


def test_a_flow_that_is_not_async(shop: Shop) -> None:
    def flow(ctx: FlowContext) -> None: ...

    with pytest.raises(ConfigError, match="not an async function"):
        inflow(shop)(flow)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"message": 5}, "message"),
        ({"message": ["x"]}, "message"),
        ({"created": "many"}, "created"),
        ({"created": ""}, "created"),
        ({"failed": -1}, "failed"),
        ({"updated": 1.5}, "updated"),
        ({"deleted": True}, "deleted"),
        ({"extracted": 2**63}, "extracted"),
    ],
)
async def test_a_result_that_is_none_fails_at_once(run: Run, shop: Shop, result: dict[str, Any], words: str) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> RunResult:
        return RunResult(**result)

    async with asyncio.timeout(90):
        row = await run(flow)
    assert (row.status, row.error["error"], counts(row)) == ("failed", "flow_failed", {})
    assert words in row.error["message"] and "'flow'" in row.error["message"]


async def test_a_result_with_large_counts_is_kept(run: Run, shop: Shop) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> RunResult:
        return RunResult(created=2**40)

    assert counts(await run(flow)) == {"created": 2**40}
