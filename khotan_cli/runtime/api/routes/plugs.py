"""GET /plugs · GET, PATCH /plugs/{plug} · DELETE /plugs/{plug}/pause."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from khotan_cli.runtime.api.access import CurrentPlug, CurrentServices
from khotan_cli.runtime.api.models.common import Listing, PlugInfo, PlugPatch, PlugResumed, PlugSummary, listing
from khotan_cli.runtime.api.models.plug_views import plug_info, plug_summary
from khotan_cli.runtime.api.operations import Router

router = Router("/plugs", tags=["plugs"])

Limit = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=2**63 - 1)]


@router.get("")
async def list_plugs(services: CurrentServices, limit: Limit = 100, offset: Offset = 0) -> Listing[PlugSummary]:
    found = [await plug_summary(plug, services) for plug in services.registry.plugs.values()]
    return listing(found, limit, offset)


@router.get("/{plug}")
async def show_plug(plug: CurrentPlug, services: CurrentServices) -> PlugInfo:
    return await plug_info(plug, services)


@router.patch("/{plug}")
async def change_plug(plug: CurrentPlug, change: PlugPatch, services: CurrentServices) -> PlugInfo:
    await services.vars.set_enabled(plug.name, change.enabled)
    return await plug_info(plug, services)


@router.delete("/{plug}/pause")
async def resume_plug(plug: CurrentPlug, services: CurrentServices) -> PlugResumed:
    """End the pauses that the service requested, for all accounts of the plug."""
    return PlugResumed(plug=plug.name, released=await services.rates.resume(plug.name))
