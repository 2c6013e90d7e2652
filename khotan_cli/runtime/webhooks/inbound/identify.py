"""Reads the events of a verified request: one, or one per item of its body, each with id, type and ordering keys."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from khotan_cli.runtime.redaction.masker import Masker, mask_secret
from khotan_cli.runtime.store.incoming import HandlerRun, Incoming
from khotan_cli.runtime.webhooks.endpoint import InboundEndpoint
from khotan_cli.runtime.webhooks.items import Item, split_items
from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest

_CREDENTIALS = ("authorization", "cookie", "token", "secret", "signature", "api-key", "apikey", "hmac", "password")
_BODY_FIELDS = ("content-encoding", "content-length", "content-type")
"""Header fields that describe the whole body, not one item."""
_NO_SECRETS = Masker()


def events_of(wire: InboundEndpoint, request: WebhookRequest, secrets: Sequence[str] = ()) -> list[Incoming]:
    """Return the events of a verified request, at least one. `secrets` are masked in the stored header fields.

    A body without the wire's list of items becomes one event with a problem. An empty list becomes one event without
    handlers: services send it to check that the endpoint responds.
    """
    headers = masked_headers(request.headers.items(), wire.credentials, Masker(secrets) if secrets else _NO_SECRETS)
    if not wire.items:
        return [_event(wire, request, headers)]
    try:
        items = split_items(request.content, wire.items)
    except ValueError:  # an unreadable body is one event; its problem gives the reason
        return [_event(wire, request, headers)]
    if items is None:
        event = _event(wire, request, headers)
        return [replace(event, problem=event.problem or f"The body has nothing at items={wire.items!r}")]
    if not items:
        return [replace(_event(wire, request, headers), handler_runs=())]
    return _of_items(wire, request, headers, items)


def _of_items(
    wire: InboundEndpoint, request: WebhookRequest, headers: Mapping[str, str], items: Sequence[Item]
) -> list[Incoming]:
    """Return one event per item.

    An id from outside the body is shared by all items, so the item's number is appended. Equal items without an id get the
    number of their occurrence.
    """
    fields = {name: value for name, value in request.headers.items() if name not in _BODY_FIELDS}
    fields["content-type"] = "application/json"
    stored = {name: value for name, value in headers.items() if name not in _BODY_FIELDS}
    shared = wire.id_rule is not None and not wire.id_rule.of_json
    seen = Counter[str]()
    events: list[Incoming] = []
    for number, item in enumerate(items, 1):
        part = WebhookRequest(request.method, request.url, Headers(fields), item.text.encode(), path=request.path)
        event = _event(wire, part, stored)
        remote_id = event.remote_id
        seen[remote_id] += 1
        if _type_and_id(wire, part)[1] is None:
            remote_id += f"#{seen[remote_id]}" if seen[remote_id] > 1 else ""
        elif shared:
            remote_id += f"#{number}"
        events.append(replace(event, remote_id=remote_id, problem=event.problem or item.problem))
    return events


def _event(wire: InboundEndpoint, request: WebhookRequest, headers: Mapping[str, str]) -> Incoming:
    problem = request.problem(json_needed=wire.reads_json)
    event_type, remote_id = _type_and_id(wire, request)
    window: float | None = None
    if remote_id is None:
        window = wire.duplicates_within
        remote_id = f"none:{uuid.uuid4()}" if window == 0 else _digest(request)
    handler_runs = [
        HandlerRun(handler.name, handler.kind, handler.order_key(request))
        for handler in wire.handlers.values()
        if handler.takes(event_type)
    ]
    return Incoming(
        wire.id,
        remote_id,
        event_type,
        request.method,
        headers,
        request.headers.get("content-type", ""),
        request.body,
        handler_runs,
        problem=problem,
        path=dict(request.path),
        window=window,
    )


def _digest(request: WebhookRequest) -> str:
    """Return an id for an event or item without one: a digest of path values, query and body."""
    below = "".join(f"{name}={value}\n" for name, value in sorted(request.path.items()))
    query = request.url.partition("?")[2]
    return "sha256:" + hashlib.sha256(f"{below}{query}\n".encode() + request.body).hexdigest()


def _type_and_id(wire: InboundEndpoint, request: WebhookRequest) -> tuple[str, str | None]:
    """Read the event's type and id. Values that need an unreadable body are missing."""
    values: list[str | None] = []
    for rule in (wire.type_rule, wire.id_rule):
        try:
            values.append(None if rule is None else rule.find(request))
        except ValueError:
            values.append(None)
    event_type, remote_id = values
    return wire.type_of(request, event_type), remote_id


def masked_headers(fields: Any, credentials: Collection[str], masker: Masker) -> dict[str, str]:
    """Return header fields for storage, with credentials and signatures masked. PostgreSQL's JSON cannot store NUL."""
    return {
        name: mask_secret(value)
        if name in credentials or _is_credential(name)
        else masker.text(value).replace("\x00", "")
        for name, value in fields
    }


@lru_cache(1024)
def _is_credential(name: str) -> bool:
    return any(part in name for part in _CREDENTIALS)
