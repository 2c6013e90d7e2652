"""What a verified request holds: one event, or one per item of its body, each with its id, type and ordering keys."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from khotan_cli.runtime.http.redaction import Masker, mask_secret
from khotan_cli.runtime.store.incoming import HandlerRun, Incoming
from khotan_cli.runtime.webhooks.endpoint import InboundEndpoint
from khotan_cli.runtime.webhooks.items import Item, split_items
from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest

_CREDENTIALS = ("authorization", "cookie", "token", "secret", "signature", "api-key", "apikey", "hmac", "password")
_OF_THE_BODY = ("content-encoding", "content-length", "content-type")
"""Header fields that describe the whole body, not an item of it."""
_NOTHING = Masker()


def events_of(wire: InboundEndpoint, request: WebhookRequest, secrets: Sequence[str] = ()) -> list[Incoming]:
    """The events of a verified request, at least one; `secrets` are masked in its header fields.

    A body without the wire's list of items is one event with a problem. An empty list is one event without a handler: a
    service asks so whether the endpoint answers.
    """
    headers = masked_headers(request.headers.items(), wire.credentials, Masker(secrets) if secrets else _NOTHING)
    if not wire.items:
        return [_event(wire, request, headers)]
    try:
        items = split_items(request.content, wire.items)
    except ValueError:  # what cannot be read is one event, whose problem says why
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
    """An event per item. An id from outside the body is that of all of them: their number tells them apart. So does the
    number of an equal one, for items without an id."""
    fields = {name: value for name, value in request.headers.items() if name not in _OF_THE_BODY}
    fields["content-type"] = "application/json"
    stored = {name: value for name, value in headers.items() if name not in _OF_THE_BODY}
    shared = wire.id_rule is not None and not wire.id_rule.of_json
    seen = Counter[str]()
    found: list[Incoming] = []
    for number, item in enumerate(items, 1):
        one = WebhookRequest(request.method, request.url, Headers(fields), item.text.encode(), path=request.path)
        event = _event(wire, one, stored)
        remote_id = event.remote_id
        seen[remote_id] += 1
        if _found(wire, one)[1] is None:
            remote_id += f"#{seen[remote_id]}" if seen[remote_id] > 1 else ""
        elif shared:
            remote_id += f"#{number}"
        found.append(replace(event, remote_id=remote_id, problem=event.problem or item.problem))
    return found


def _event(wire: InboundEndpoint, request: WebhookRequest, headers: Mapping[str, str]) -> Incoming:
    problem = request.problem(json_needed=wire.reads_json)
    event_type, remote_id = _found(wire, request)
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
    """The id of an event, or of an item, whose sender gives none. A request with another path,
    query or body is another event."""
    below = "".join(f"{name}={value}\n" for name, value in sorted(request.path.items()))
    query = request.url.partition("?")[2]
    return "sha256:" + hashlib.sha256(f"{below}{query}\n".encode() + request.body).hexdigest()


def _found(wire: InboundEndpoint, request: WebhookRequest) -> tuple[str, str | None]:
    """Type and id, as far as they can be found: a body that cannot be read holds neither."""
    values: list[str | None] = []
    for rule in (wire.type_rule, wire.id_rule):
        try:
            values.append(None if rule is None else rule.find(request))
        except ValueError:
            values.append(None)
    event_type, remote_id = values
    return wire.type_of(request, event_type), remote_id


def masked_headers(fields: Any, credentials: Collection[str], masker: Masker) -> dict[str, str]:
    """Header fields to be stored: what lets somebody in, or signs, is masked. PostgreSQL's JSON holds no NUL."""
    return {
        name: mask_secret(value)
        if name in credentials or _is_credential(name)
        else masker.text(value).replace("\x00", "")
        for name, value in fields
    }


@lru_cache(1024)
def _is_credential(name: str) -> bool:
    return any(part in name for part in _CREDENTIALS)
