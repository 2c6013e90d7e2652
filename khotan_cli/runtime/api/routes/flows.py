"""GET /flows · GET, PATCH /flows/{flow} · GET, DELETE /flows/{flow}/state · GET, POST /flows/{flow}/runs ·
POST /flows/{flow}/runs/reconcile-stuck."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import Field

from khotan_cli.runtime.api.access import CurrentServices
from khotan_cli.runtime.api.models.common import Listing, listing
from khotan_cli.runtime.api.models.flow_state import CursorInfo, DestinationInfo, FlowState, SentInfo, StateReset
from khotan_cli.runtime.api.models.flow_views import flow_facts, flow_info, run_info
from khotan_cli.runtime.api.models.flows import (
    DryRun,
    FlowInfo,
    FlowPatch,
    FlowShown,
    Reconciled,
    RunInfo,
    Trigger,
    Triggered,
)
from khotan_cli.runtime.api.operations import Depends, Router
from khotan_cli.runtime.api.routes.plugs import Limit, Offset
from khotan_cli.runtime.flows.kept_state import KeptState
from khotan_cli.runtime.resources.caches import json_value
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.worker.dry_run import dry_run

router = Router("/flows", tags=["flows"])


def named_flow(flow: str, services: CurrentServices) -> Flow:
    return services.dispatcher.flow(flow)


CurrentFlow = Annotated[Flow, Depends(named_flow)]


@router.get("")
async def list_flows(services: CurrentServices, limit: Limit = 100, offset: Offset = 0) -> Listing[FlowInfo]:
    disabled = await services.disabled_flows()
    return listing([flow_info(f, f.name not in disabled) for f in services.registry.flows.values()], limit, offset)


@router.get("/{flow}")
async def show_flow(flow: CurrentFlow, services: CurrentServices) -> FlowShown:
    return FlowShown(**flow_facts(flow, flow.name not in await services.disabled_flows()))


@router.patch("/{flow}")
async def change_flow(flow: CurrentFlow, change: FlowPatch, services: CurrentServices) -> FlowShown:
    """Enable or disable a flow. A disabled flow cannot be started. Pending and running runs continue."""
    await services.host.switches.set_enabled(flow.name, change.enabled)
    return FlowShown(**flow_facts(flow, change.enabled))


@router.get("/{flow}/state")
async def show_state(
    flow: CurrentFlow, services: CurrentServices, destination: str | None = None, limit: Limit = 20, offset: Offset = 0
) -> FlowState:
    """The flow's cursors, and for each destination, or one, the number of sent records and a page of them."""
    kept = KeptState(services.host, flow)
    cursors = [CursorInfo(**asdict(cursor)) for cursor in await kept.cursors()]
    destinations = [
        DestinationInfo(
            name=sent.name,
            kept_in=sent.kept_in,
            records=sent.records,
            items=[SentInfo(**asdict(record)) for record in sent.items],
        )
        for sent in await kept.destinations(limit, offset, destination)
    ]
    return FlowState(flow=flow.name, cursors=cursors, destinations=destinations, limit=limit, offset=offset)


@router.delete("/{flow}/state")
async def reset_state(
    flow: CurrentFlow, services: CurrentServices, reset: Annotated[list[str], Field(min_length=1)]
) -> StateReset:
    """Delete parts of the state: `cursor:NAME`, `sent:DESTINATION`, `sent:DESTINATION:KEY`, `all`."""
    removed = await KeptState(services.host, flow).reset(reset)
    return StateReset(flow=flow.name, **asdict(removed))


@router.get("/{flow}/runs")
async def list_flow_runs(
    flow: CurrentFlow, services: CurrentServices, limit: Limit = 20, offset: Offset = 0
) -> Listing[RunInfo]:
    rows, total = await services.host.runs.newest(flow=flow.name, limit=limit, offset=offset)
    code = await services.code_now()
    return Listing(items=[run_info(row, code) for row in rows], total=total, limit=limit, offset=offset)


@router.post("/{flow}/runs")
async def trigger(flow: CurrentFlow, asked: Trigger, services: CurrentServices) -> Triggered | DryRun:
    """Start a run. With `dryRun`, run it immediately without sending or storing anything, and report its effects."""
    variant = flow.variant(asked.variant)
    body = json_value("body", asked.body)
    if asked.dry_run:
        await services.dispatcher.check_enabled(flow)
        report = await dry_run(services.host, flow, variant, body)
        return DryRun(flow=flow.name, variant=variant, **asdict(report))
    run_id = await services.dispatcher.trigger(flow.name, variant, body=body)
    return Triggered(
        id=run_id,
        flow=flow.name,
        variant=variant,
        worker=await services.has_worker(),
        outdated_workers=await services.outdated_workers(),
    )


@router.post("/{flow}/runs/reconcile-stuck")
async def reconcile_flow(flow: CurrentFlow, services: CurrentServices) -> Reconciled:
    return Reconciled(reconciled=await services.dispatcher.reconcile(flow.name))
