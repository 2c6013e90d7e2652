"""Wires and events as they are shown."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Row

from khotan_cli.errors import DatabaseNotMigrated
from khotan_cli.runtime.api.models.webhooks import (
    DeliveryInfo,
    EventInfo,
    EventShown,
    HandlerInfo,
    WireInfo,
    WireShown,
    WireVar,
)
from khotan_cli.runtime.content.json_text import load_json
from khotan_cli.runtime.redaction.masker import Masker, mask_secret
from khotan_cli.runtime.services import Services
from khotan_cli.runtime.store.events import EventData
from khotan_cli.runtime.webhooks.decoding import Undecodable
from khotan_cli.runtime.webhooks.endpoint import InboundEndpoint
from khotan_cli.runtime.webhooks.event import StoredEvent
from khotan_cli.runtime.webhooks.handler import Handler, span_of

_ORDER = ("running", "pending", "failed", "partial", "cancelled", "completed")
"""Of the runs of an event the first of these that occurs says how it stands with the event."""


def handler_info(handler: Handler, off: set[str]) -> HandlerInfo:
    model = handler.model
    return HandlerInfo(
        name=handler.name,
        wire=handler.wire.id,
        kind=handler.kind,
        types=list(handler.types),
        to=None if handler.to is None else handler.to.name,
        model=None if model is None else getattr(model, "__name__", str(model)),
        ordered=handler.ordered_by is not None,
        attempts=handler.retry.attempts,
        retry_span=span_of(handler.retry),
        timeout=handler.timeout,
        doc=handler.doc,
        module=handler.module,
        enabled=handler.name not in off,
    )


async def wires_shown(services: Services, wires: Sequence[InboundEndpoint]) -> list[WireInfo]:
    host = services.webhooks
    try:
        rows, counts = await host.rows.all(), await host.events.counts()
        _, off = await host.handler_queue.switched_off()
    except DatabaseNotMigrated:
        rows, counts, off = {}, {}, set[str]()
    return [
        WireInfo(
            **_facts(wire, rows.get(wire.id), counts.get(wire.id, {}), off), missing_vars=await _missing(services, wire)
        )
        for wire in wires
    ]


async def wire_shown(services: Services, wire: InboundEndpoint) -> WireShown:
    (info,) = await wires_shown(services, [wire])
    worker = await services.has_worker()
    return WireShown(**info.model_dump(), worker=worker, vars=await wire_vars(services, wire))


def _facts(wire: InboundEndpoint, row: Any, counts: Mapping[str, Any], off: set[str]) -> dict[str, Any]:
    names = ("callback_url", "remote_id", "expires_at", "renew_at", "error")
    return {
        "id": wire.id,
        "kind": wire.kind,
        "plug": None if wire.plug is None else wire.plug.name,
        "managed": wire.managed,
        "enabled": True if row is None else row.enabled,
        "scheme": wire.scheme.name if wire.verify is None and wire.scheme else "on_verify",
        "path": wire.path,
        "types": list(wire.events),
        "subscribed": None if not wire.managed else row is not None and row.subscribed,
        **{name: None if row is None else getattr(row, name) for name in names},
        "handlers": [handler_info(handler, off) for handler in wire.handlers.values()],
        "events": counts.get("events", 0),
        "waiting": counts.get("waiting", 0),
        "failed": counts.get("failed", 0),
        "last_event_at": counts.get("last"),
    }


async def _missing(services: Services, wire: InboundEndpoint) -> list[str]:
    values = await services.webhooks.values(wire)
    return [name for name in wire.needed if name not in values]


async def wire_vars(services: Services, wire: InboundEndpoint) -> list[WireVar]:
    try:
        stored = {entry.key for entry in await services.vars.entries(wire.owner)}
    except DatabaseNotMigrated:
        stored = set()
    values = await services.webhooks.values(wire, fresh=True)
    found: list[WireVar] = []
    for name, var in wire.vars.items():
        env, value = wire.env_name(name), values.get(name)
        source = "database" if name in stored else "environment" if os.environ.get(env) else "default"
        shown = None if value is None else mask_secret(value.strip()) if var.secret else value
        found.append(
            WireVar(
                key=name,
                label=var.label,
                secret=var.secret,
                set=value is not None,
                source=None if value is None else source,
                env=env,
                masked=shown,
            )
        )
    return found


def event_facts(
    row: EventData, runs: Sequence[Row[Any]], masker: Masker, handlers: Mapping[str, Handler]
) -> dict[str, Any]:
    names = "wire type remote_id received_at content_type repeats altered parked organisation problem path"
    return {
        **{name: getattr(row, name) for name in names.split()},
        "id": str(row.id),
        "size": len(row.body),
        "status": _status(row, runs),
        "runs": [_delivery(run, masker, handlers.get(run.flow)) for run in runs],
    }


def _status(row: EventData, runs: Sequence[Row[Any]]) -> str:
    newest = {run.flow: run.status for run in runs}  # of several runs of one handler the last counts
    if row.parked:
        return "parked"
    found = next((status for status in _ORDER if status in newest.values()), "unhandled")
    return "failed" if found == "partial" else found


def _delivery(run: Row[Any], masker: Masker, handler: Handler | None) -> DeliveryInfo:
    return DeliveryInfo(
        id=run.id,
        handler=run.flow,
        status=run.status,
        source=run.source,
        failures=run.failures,
        attempts=None if handler is None else handler.retry.attempts,
        retry_span=None if handler is None else span_of(handler.retry),
        next_at=run.next_at if run.status == "pending" else None,
        error=masker.value(run.error),
        created_at=run.created_at,
        ended_at=run.ended_at,
    )


def event_info(
    row: EventData, runs: Sequence[Row[Any]], secrets: Sequence[str], handlers: Mapping[str, Handler]
) -> EventInfo:
    return EventInfo(**event_facts(row, runs, Masker(secrets), handlers))


def event_shown(
    row: EventData,
    runs: Sequence[Row[Any]],
    secrets: Sequence[str],
    handlers: Mapping[str, Handler],
    envelope: str | None,
) -> EventShown:
    """The event with its body as handlers read it: decoded, without the vendor's envelope."""
    masker = Masker(secrets)
    body: dict[str, Any] = {}
    content = row.body
    with suppress(Undecodable):
        content = StoredEvent(row, envelope).request.content
    try:
        body["json_body"] = masker.value(load_json(content))
    except (ValueError, RecursionError):
        try:
            body["text"] = masker.text(content.decode())
        except UnicodeDecodeError:
            body["base64"] = base64.b64encode(content).decode()
    headers = masker.value(dict(row.headers or {}))
    return EventShown(**event_facts(row, runs, masker, handlers), method=row.method, headers=headers, **body)
