"""No secret of any plug of the app gets into khotan's tables in clear."""

from __future__ import annotations

from typing import Any

from khotan_cli.runtime import BearerAuth, FlowContext, Plug, RunResult, Var, inflow, outflow, step
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.worker.dry_run import dry_run
from tests.runtime.flows.conftest import ItemRow, Run, Shop
from tests.support.flows import Source, some_items

OURS, THEIRS, SHORT = "sk_live_0123456789", "other_secret_abcdef", "abc"


class Other(Plug):
    base_url = "http://other.invalid"
    key = Var(secret=True, default=THEIRS)
    pin = Var(secret=True, default=SHORT)
    region = Var(default="eu-west-region")
    auth = BearerAuth(key)


def know_other(host: Environment) -> None:
    other = Other(name="other")
    other.bind(host.vars, ttl=60.0)
    host.plugs["other"] = other  # type: ignore[index]


async def test_what_a_run_says_is_masked(host: Environment, shop: Shop, source: Source, run: Run) -> None:
    know_other(host)
    source.items = some_items(2)

    def refuse(item: Any) -> Any:
        raise ValueError(f"bad {OURS} {THEIRS} {SHORT}")

    @inflow(shop)
    async def flow(ctx: FlowContext) -> RunResult:
        await ctx.log(f"log {OURS} {THEIRS} {SHORT}")
        await ctx.log("x" * 1990 + OURS)
        await ctx.progress(1, 2, f"progress {OURS} {THEIRS}")
        await ctx.sync(shop.list_items, into=ItemRow, key="id", transform=refuse, on_invalid="skip")
        return RunResult(message=f"message {OURS} {THEIRS}")

    row = await run(flow)
    assert row.status == "partial", row.error
    lines = [line.message for line in await host.runs.updates(row.id)]
    rejects, _ = await host.runs.rejects(row.id)
    assert lines[0] == "log ••••6789 ••••cdef abc"
    assert row.progress["message"] == "progress ••••6789 ••••cdef" and row.message == "message ••••6789 ••••cdef"
    assert rejects[0].reason == "record 0: ValueError: bad ••••6789 ••••cdef abc"
    assert "sk_" not in lines[1] and len(lines[1]) <= 2000


async def test_what_a_flow_raises_is_masked(host: Environment, shop: Shop, run: Run) -> None:
    know_other(host)

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        raise ValueError(f"{OURS} and {THEIRS}")

    row = await run(flow)
    assert row.error["message"] == "ValueError: ••••6789 and ••••cdef"


async def test_what_a_push_refuses_is_masked(host: Environment, shop: Shop, run: Run) -> None:
    know_other(host)

    @outflow(shop)
    async def flow(ctx: FlowContext) -> None:
        def refuse(answer: Any, records: Any) -> list[str | None]:
            return [f"refused {THEIRS}"] * len(records)

        def body(record: Any) -> dict[str, Any]:
            if record["id"] == 2:
                raise ValueError(f"no body {THEIRS}")
            return {**record, "key": THEIRS}

        await ctx.push(
            [{"id": 1}, {"id": 2}], shop.create_many, key="id", body=body, batch=2, batch_key="all", outcomes=refuse
        )

    row = await run(flow)
    rejects, total = await host.runs.rejects(row.id)
    assert total == 2 and {r.reason for r in rejects} == {
        "record 1: refused ••••cdef",
        "record 2: ValueError: no body ••••cdef",
    }
    assert THEIRS not in str([r.record for r in rejects])


async def test_a_step_that_returns_a_secret_is_refused(host: Environment, shop: Shop, run: Run) -> None:
    know_other(host)

    @step()
    async def give(ctx: FlowContext, what: str) -> Any:
        if what == "all":
            return await ctx.vars("other")
        if what == "changed":
            await ctx.set_vars({"key": "changed_secret_123456"}, "other")
            return {"changed_secret_123456": 1}
        return {"url": f"https://x.invalid/?key={THEIRS}"} if what == "inside" else [SHORT, "eu-west-region", what]

    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await give(ctx, ctx.body)

    for what in ("all", "inside", "changed"):
        row = await run(flow, body=what)
        assert row.status == "failed" and row.error["error"] == "secret_in_result", what
        assert (
            "'give'" in row.error["message"] and "other" in row.error["message"] and "ctx.vars()" in row.error["hint"]
        )
        assert await host.runs.steps(row.id) == []
        assert THEIRS not in str(row.error) and "changed_secret" not in str(row.error)
    row = await run(flow, body="harmless")
    assert row.status == "completed", row.error
    assert (await host.runs.steps(row.id))[0].result == [SHORT, "eu-west-region", "harmless"]


async def test_a_dry_run_tells_no_secret(host: Environment, shop: Shop, source: Source, declare: Any) -> None:
    know_other(host)
    source.items = some_items(1)

    def refuse(item: Any) -> Any:
        raise ValueError(f"bad {THEIRS}")

    @inflow(shop)
    async def flow(ctx: FlowContext) -> RunResult:
        await ctx.log(f"log {THEIRS}")
        await ctx.cache("things").set(f"key {THEIRS}", 1)
        await ctx.sync(shop.list_items, into=ItemRow, key="id", transform=refuse, on_invalid="skip")
        await shop.create_item(body={"key": THEIRS})
        return RunResult(message=f"message {THEIRS}")

    report = await dry_run(host, declare(flow), "default", None)
    assert report.failure is None and report.counts["failed"] == 1
    assert report.message == "message ••••cdef" and report.log == ["info: log ••••cdef"]
    assert THEIRS not in str(report)
