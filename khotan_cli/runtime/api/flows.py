"""GET /flows · GET, PATCH /flows/{flow} · GET, POST /flows/{flow}/runs · POST /flows/{flow}/runs/reconcile-stuck."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends

from khotan_cli.runtime.api.access import CurrentServices
from khotan_cli.runtime.api.authorize import GuardedRoute
from khotan_cli.runtime.api.plugs import Limit, Offset
from khotan_cli.runtime.api.schemas import Listing, listing
from khotan_cli.runtime.api.schemas_flows import (
    DryRun,
    FlowInfo,
    FlowPatch,
    FlowShown,
    Reconciled,
    RunInfo,
    Trigger,
    Triggered,
)
from khotan_cli.runtime.api.show_runs import flow_facts, flow_info, run_info
from khotan_cli.runtime.flows.definition import Flow
from khotan_cli.runtime.flows.dryrun import dry_run
from khotan_cli.runtime.records.caches import json_value

router = APIRouter(prefix="/flows", tags=["flows"], route_class=GuardedRoute)


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
    """Enable or disable: a disabled flow is not started, by whomever. Runs that wait or run go on."""
    await services.host.switches.set_enabled(flow.name, change.enabled)
    return FlowShown(**flow_facts(flow, change.enabled))


@router.get("/{flow}/runs")
async def list_flow_runs(
    flow: CurrentFlow, services: CurrentServices, limit: Limit = 20, offset: Offset = 0
) -> Listing[RunInfo]:
    rows, total = await services.host.runs.newest(flow=flow.name, limit=limit, offset=offset)
    code = await services.code_now()
    return Listing(items=[run_info(row, code) for row in rows], total=total, limit=limit, offset=offset)


@router.post("/{flow}/runs")
async def trigger(flow: CurrentFlow, asked: Trigger, services: CurrentServices) -> Triggered | DryRun:
    """Start a run; with `dryRun` run it here and now, sending and storing nothing, and say what it would have done."""
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
