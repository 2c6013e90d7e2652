"""GET /webhook-events · GET /webhook-events/{event} · POST …/replay · POST /webhook-events/replay."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Annotated

from pydantic import Field

from khotan_cli.errors import KhotanError, UnknownName, UsageError
from khotan_cli.runtime.api.access import CurrentServices
from khotan_cli.runtime.api.models.common import Listing
from khotan_cli.runtime.api.models.webhook_views import event_info, event_shown
from khotan_cli.runtime.api.models.webhooks import EventInfo, EventShown, Replay, Replayed, ReplayMany
from khotan_cli.runtime.api.operations import Router
from khotan_cli.runtime.api.routes.plugs import Limit, Offset
from khotan_cli.runtime.services import Services

router = Router("/webhook-events", tags=["webhook events"])

STATUSES = ["pending", "running", "completed", "failed", "cancelled", "parked", "unhandled"]
Status = Annotated[str | None, Field(json_schema_extra={"enum": [*STATUSES]})]


@router.get("")
async def list_events(
    services: CurrentServices,
    wire: str | None = None,
    type: str | None = None,
    status: Status = None,
    parked: bool | None = None,
    since: datetime | None = None,
    after: Annotated[int | None, Field(ge=0, le=2**63 - 1)] = None,
    limit: Limit = 20,
    offset: Offset = 0,
) -> Listing[EventInfo]:
    """Events, newest first. With `after`, events with a higher id, oldest first."""
    if wire is not None:
        services.webhooks.wire(wire)
    if status is not None and status not in STATUSES:
        raise UnknownName("status", status, STATUSES, code="invalid_input")
    if since is not None and since.tzinfo is None:
        raise UsageError("since needs a time zone", hint="Use for example 2026-01-31T08:00:00Z.")
    if status == "parked":
        status, parked = None, True
    events = services.webhooks.events
    rows, total = await events.newest(
        wire=wire, type=type, status=status, parked=parked, since=since, after=after, limit=limit, offset=offset
    )
    runs = await events.runs([row.id for row in rows])
    secrets = {wire_id: await _secrets(services, wire_id) for wire_id in {row.wire for row in rows}}
    handlers = services.webhooks.handlers
    items = [event_info(row, runs[row.id], secrets[row.wire], handlers) for row in rows]
    return Listing(items=items, total=total, limit=limit, offset=offset)


@router.post("/replay")
async def replay_many(asked: ReplayMany, services: CurrentServices) -> Replayed:
    """Start new runs for failed runs without a later run, or for parked records."""
    if asked.since is not None and asked.since.tzinfo is None:
        raise UsageError("since needs a time zone", hint="Use for example 2026-01-31T08:00:00Z.")
    gone: dict[str, int] = {}
    if asked.parked:
        runs = await services.replays.parked(wire=asked.wire, since=asked.since)
    else:
        runs, gone = await services.replays.failed(wire=asked.wire, since=asked.since)
    return Replayed(runs=runs, worker=await services.has_worker(), gone=gone)


@router.get("/{event}")
async def show_event(event: str, services: CurrentServices) -> EventShown:
    row = await services.replays.event(event)
    runs = await services.webhooks.events.runs([row.id])
    wire = services.registry.wires.get(row.wire)
    envelope = None if wire is None else wire.envelope
    secrets = await _secrets(services, row.wire)
    return event_shown(row, runs[row.id], secrets, services.webhooks.handlers, envelope)


@router.post("/{event}/replay")
async def replay(event: str, asked: Replay, services: CurrentServices) -> Replayed:
    """Start new runs of all handlers of the event, or of one."""
    runs = await services.replays.one(event, asked.handler, asked.organisation)
    return Replayed(runs=runs, worker=await services.has_worker())


async def _secrets(services: Services, wire_id: str) -> list[str]:
    """Texts to mask in an event: the wire's secrets, and the plug's secrets that verify it."""
    wire = services.registry.wires.get(wire_id)
    if wire is None:
        return []
    found: list[str] = []
    with suppress(KhotanError):
        values = await services.webhooks.values(wire)
        found += [line for name, value in values.items() if wire.vars[name].secret for line in value.splitlines()]
    with suppress(KhotanError):
        found += await services.webhooks.secrets(wire)
    return found
