"""Dry runs: whatever a flow does, by whichever way, is held back and told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from khotan_cli.runtime import FlowContext, inflow, step
from khotan_cli.runtime.flows.definition import Flow
from khotan_cli.runtime.flows.dryrun import dry_run
from khotan_cli.runtime.flows.host import Host
from tests.runtime.flows.conftest import Shop

Declare = Callable[[Flow], Flow]


@step(attempts=3, backoff=0.001)
async def create(ctx: FlowContext, shop: Shop) -> Any:
    return {"answers": [await shop.create_item(body={"name": "x"})]}


@step(attempts=3, backoff=0.001)
async def create_and_look(ctx: FlowContext, shop: Shop) -> str:
    answer = await shop.create_item(body={"name": "x"})
    return str(answer["id"])


async def test_an_answer_as_the_result_of_a_step_stops_the_run(host: Host, shop: Shop, declare: Declare) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await create(ctx, shop)

    report = await dry_run(host, declare(flow), "default", None)
    assert report.failure is None and report.stopped is not None
    assert "shop.create_item is needed as the result of step 'create'" in report.stopped["message"]
    assert report.stopped["method"] == "POST"


async def test_a_step_that_needs_an_answer_is_not_tried_again(host: Host, shop: Shop, declare: Declare) -> None:
    @inflow(shop)
    async def flow(ctx: FlowContext) -> None:
        await create_and_look(ctx, shop)

    report = await dry_run(host, declare(flow), "default", None)
    assert report.stopped is not None and report.log == []
    assert report.requests["POST shop.create_item"]["count"] == 1
