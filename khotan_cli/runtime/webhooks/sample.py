"""A made-up event, signed as the service would sign it: to try a wire without the service."""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any
from urllib.parse import urlencode

import orjson

from khotan_cli.errors import UsageError
from khotan_cli.runtime.records.caches import json_value
from khotan_cli.runtime.webhooks.host import WebhookHost
from khotan_cli.runtime.webhooks.receiving import ReceivingEndpoint
from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest
from khotan_cli.runtime.webhooks.rules import Rule
from khotan_cli.runtime.webhooks.schemes import Refused


async def signed_sample(
    host: WebhookHost, wire: ReceivingEndpoint, event_type: str, body: Any, base: str, *, forged: bool = False
) -> dict[str, Any]:
    """Method, path, headers and body (base64) of a request that the wire accepts. base: URL of the API, which may be signed.
    forged: sign with a new secret, which is not the wire's.

    Raises UsageError where only the service can sign, SecretMissing.
    """
    event_id = f"evt_{uuid.uuid4().hex[:16]}"
    document = {} if body is None else json_value("body", body)
    headers = {"Content-Type": "application/json", "User-Agent": "khotan"}
    query: dict[str, str] = {}
    for rule, value in ((wire.type_rule, event_type), (wire.id_rule, event_id)):
        if rule is not None:
            document = _placed(rule, value, document, headers, query)
    content = orjson.dumps(document)
    path = wire.path + (f"?{urlencode(query)}" if query else "")
    request = WebhookRequest("POST", f"{base}{path}", Headers(headers), content)
    if wire.scheme is not None and wire.verify is None:
        try:
            secret = wire.scheme.make_secret() if forged else (await host.secrets(wire, fresh=True))[0]
            headers |= wire.scheme.sign(request, secret, time.time(), event_id)
        except Refused as exc:
            raise UsageError(
                f"Wire {wire.id!r}: {exc}", hint="Replay a real event instead: khotan wire replay."
            ) from None
    method = "POST" if "POST" in wire.event_methods else min(wire.event_methods)
    return {"method": method, "path": path, "headers": headers, "body": base64.b64encode(content).decode()}


def _placed(rule: Rule, value: str, document: Any, headers: dict[str, str], query: dict[str, str]) -> Any:
    """The document, headers and query with a value where the rule looks for it, unless something is there."""
    if rule.header is not None:
        headers.setdefault(rule.header, value)
    elif rule.query is not None:
        query.setdefault(rule.query, value)
    elif rule.json is not None and isinstance(document, dict):
        return _set(document, rule.json.split("."), value)
    return document


def _set(document: dict[str, Any], path: list[str], value: str) -> dict[str, Any]:
    head, *rest = path
    if not rest:
        return document if document.get(head) is not None else {**document, head: value}
    inner = document.get(head)
    return {**document, head: _set(inner if isinstance(inner, dict) else {}, rest, value)}
