"""GET /wires · GET, POST, PATCH, DELETE /wires/{wire} · POST …/renew, …/sample · POST, DELETE …/vars · /webhook-handlers."""

from __future__ import annotations

from typing import Annotated

from khotan_cli.errors import UnknownName, UsageError
from khotan_cli.runtime.api.access import CurrentServices, require_debug
from khotan_cli.runtime.api.calls import Call
from khotan_cli.runtime.api.models.common import Listing, Ok, listing
from khotan_cli.runtime.api.models.webhook_views import handler_info, wire_shown, wires_shown
from khotan_cli.runtime.api.models.webhooks import (
    HandlerInfo,
    HandlerShown,
    Sample,
    SampleShown,
    WireCreate,
    WireInfo,
    WirePatch,
    WireShown,
    WireVars,
    WireVarsChanged,
)
from khotan_cli.runtime.api.operations import Depends, Router
from khotan_cli.runtime.api.routes.plugs import Limit, Offset
from khotan_cli.runtime.services import API_PATH
from khotan_cli.runtime.webhooks.endpoint import InboundEndpoint
from khotan_cli.runtime.webhooks.sample import signed_sample
from khotan_cli.runtime.webhooks.wire import Wire

router = Router(tags=["wires"])


def named_wire(wire: str, services: CurrentServices) -> InboundEndpoint:
    return services.webhooks.wire(wire)


CurrentWire = Annotated[InboundEndpoint, Depends(named_wire)]


def subscribable(wire: CurrentWire) -> Wire:
    """Raises UsageError for an ingest."""
    if not isinstance(wire, Wire):
        raise UsageError(
            f"{wire.id} has no subscription: it is an ingest, which other systems post to directly",
            code="wire_not_managed",
            hint=f"Give the senders the URL, which ends with {API_PATH}{wire.path}, and the secret.",
        )
    return wire


SubscribableWire = Annotated[Wire, Depends(subscribable)]


@router.get("/wires")
async def list_wires(services: CurrentServices, limit: Limit = 100, offset: Offset = 0) -> Listing[WireInfo]:
    return listing(await wires_shown(services, list(services.registry.wires.values())), limit, offset)


@router.post("/wires/{wire:path}/renew")
async def renew(wire: SubscribableWire, services: CurrentServices) -> WireShown:
    """Renew the subscription now."""
    await services.subscriptions.renew(wire)
    return await wire_shown(services, wire)


@router.post("/wires/{wire:path}/sample", needs=[require_debug])
async def sample(wire: CurrentWire, asked: Sample, services: CurrentServices, call: Call) -> SampleShown:
    """Create a request as the service would send it, signed with the wire's secret. For development only."""
    base = services.settings.public_url or call.base_url
    request = await signed_sample(services.webhooks, wire, asked.type, asked.body, base + API_PATH, forged=asked.forged)
    return SampleShown(**request)


@router.post("/wires/{wire:path}/vars")
async def set_vars(wire: CurrentWire, given: WireVars, services: CurrentServices) -> WireVarsChanged:
    """Store variables of the wire, encrypted, all or none."""
    _known(wire, list(given.values))
    await services.vars.save(wire.owner, given.values)
    services.webhooks.forget(wire)
    return WireVarsChanged(wire=wire.id, set=sorted(given.values))


@router.delete("/wires/{wire:path}/vars")
async def clear_vars(wire: CurrentWire, services: CurrentServices, key: list[str] | None = None) -> WireVarsChanged:
    _known(wire, key or [])
    cleared = await services.vars.delete(wire.owner, key or list(wire.vars))
    services.webhooks.forget(wire)
    return WireVarsChanged(wire=wire.id, cleared=cleared)


@router.get("/wires/{wire:path}")
async def show_wire(wire: CurrentWire, services: CurrentServices) -> WireShown:
    return await wire_shown(services, wire)


@router.post("/wires/{wire:path}")
async def create(wire: SubscribableWire, asked: WireCreate, services: CurrentServices) -> WireShown:
    """Subscribe with the service. For a wire that is set up by hand, store the URL to register."""
    base = (asked.url or services.settings.public_url).rstrip("/")
    if not base:
        raise UsageError(
            "The public URL of the app is not set",
            code="public_url_missing",
            hint="Use --public-url https://…, or set KHOTAN_PUBLIC_URL.",
        )
    if not base.startswith(("http://", "https://")):
        raise UsageError(f"Invalid URL {base!r}", hint="Use a URL such as https://shop.example.com.")
    callback = f"{base}{API_PATH}{wire.path}"
    await services.subscriptions.create(wire, callback)
    return await wire_shown(services, wire)


@router.patch("/wires/{wire:path}")
async def change(wire: CurrentWire, change: WirePatch, services: CurrentServices) -> WireShown:
    """Enable or disable a wire. A disabled wire stores events, which are processed when it is enabled again."""
    await services.webhooks.rows.save(wire.id, {"enabled": change.enabled})
    services.deliverer.wake()
    return await wire_shown(services, wire)


@router.delete("/wires/{wire:path}")
async def delete(wire: SubscribableWire, services: CurrentServices) -> Ok:
    """End the subscription with the service and remove it."""
    await services.subscriptions.delete(wire)
    return Ok()


@router.get("/webhook-handlers/{wire:path}")
async def list_handlers(
    wire: CurrentWire, services: CurrentServices, limit: Limit = 100, offset: Offset = 0
) -> Listing[HandlerInfo]:
    _, off = await services.webhooks.handler_queue.switched_off()
    return listing([handler_info(handler, off) for handler in wire.handlers.values()], limit, offset)


@router.patch("/webhook-handlers/{handler:path}")
async def change_handler(handler: str, change: WirePatch, services: CurrentServices) -> HandlerShown:
    """Enable or disable a handler. The runs of a disabled handler wait."""
    found = services.webhooks.handler(handler)
    await services.webhooks.rows.set_handler(found.name, change.enabled)
    services.deliverer.wake()
    return HandlerShown(**handler_info(found, set() if change.enabled else {found.name}).model_dump())


def _known(wire: InboundEndpoint, keys: list[str]) -> None:
    for key in keys:
        if key not in wire.vars:
            raise UnknownName("var", key, wire.vars, where=f"wire {wire.id!r}")
