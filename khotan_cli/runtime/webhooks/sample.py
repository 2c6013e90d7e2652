"""Builds a sample event, signed like the service signs it, to test a wire without the service."""

from __future__ import annotations

import base64
import time
import uuid
from types import NoneType
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from khotan_cli.errors import UsageError
from khotan_cli.runtime.content.json_path import dig
from khotan_cli.runtime.resources.caches import json_value
from khotan_cli.runtime.webhooks.endpoint import InboundEndpoint
from khotan_cli.runtime.webhooks.environment import WebhookEnvironment
from khotan_cli.runtime.webhooks.items import first_item
from khotan_cli.runtime.webhooks.request import Headers, RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify.body_signatures import BodyHmac
from khotan_cli.runtime.webhooks.verify.locator import Rule
from khotan_cli.runtime.webhooks.verify.schemes import Hmac, PublicKey, Token
from khotan_cli.runtime.webhooks.verify.timestamps import TimestampFormat, timestamp_of


async def signed_sample(
    env: WebhookEnvironment, wire: InboundEndpoint, event_type: str, body: Any, base: str, *, forged: bool = False
) -> dict[str, Any]:
    """Return method, path, headers and body (base64) of a request that the wire accepts.

    body: the JSON document, or the form fields if the service sends forms; for a wire with items, one item or a document
    with items. base: URL of the API; it may be part of the signed content. forged: sign with a wrong secret.

    Raises UsageError if only the service can sign, or if a required value cannot be set in the body; SecretMissing.
    """
    event_id = f"evt_{uuid.uuid4().hex[:16]}"
    sample = _Sample({} if body is None else json_value("body", body), wire.items)
    sample.set_value(wire.type_rule, event_type)
    sample.set_value(wire.id_rule, event_id)
    method = "POST" if "POST" in wire.event_methods else min(wire.event_methods)
    if wire.scheme is not None and wire.verify is None:
        try:
            secret = wire.scheme.make_secret() if forged else (await env.secrets(wire, fresh=True))[0]
            if isinstance(wire.scheme, Token):
                sample.set_value(wire.scheme.rule, wire.scheme.prefix + secret, whole=True)
            if isinstance(wire.scheme, (Hmac, PublicKey)) and wire.scheme.timestamp_field:
                sample.set_timestamp(wire.scheme.timestamp_field, wire.scheme.timestamp_format)
            if isinstance(wire.scheme, BodyHmac):
                sample.sign_body(wire.scheme, secret)
            request = WebhookRequest(method, base + sample.path(wire), Headers(sample.headers), sample.content)
            sample.headers |= wire.scheme.sign(request, secret, time.time(), event_id)
        except RequestRejected as exc:
            raise UsageError(
                f"Wire {wire.id!r}: {exc}", hint="Replay a real event instead, with khotan wire replay."
            ) from None
    body64 = base64.b64encode(sample.content).decode()
    return {"method": method, "path": sample.path(wire), "headers": sample.headers, "body": body64}


class _Sample:
    """A request under construction. Sets the values that rules read, unless they are already present."""

    def __init__(self, document: Any, items: str) -> None:
        self._document, self._first = first_item(document, items)
        self._query: dict[str, str] = {}
        self._form: dict[str, str] = {}
        self._path: dict[str, str] = {}
        self.headers = {"Content-Type": "application/json", "User-Agent": "khotan"}

    def set_value(self, rule: Rule | None, value: str, *, whole: bool = False) -> None:
        """Set the value that a rule reads. whole: the rule reads the whole body, not the first item."""
        if rule is None:
            return
        if len(rule.parts) > 1:
            values = value.split(getattr(rule, "separator", "."), len(rule.parts) - 1)
            for part, part_value in zip(rule.parts, [*values, *[values[-1]] * len(rule.parts)], strict=False):
                self.set_value(part, part_value, whole=whole)
            return
        if rule.path is not None:
            self._path.setdefault(rule.path, value)
        elif rule.header is not None:
            self.headers.setdefault(rule.header, value)
        elif rule.query is not None:
            self._query.setdefault(rule.query, value)
        elif rule.form is not None:
            if not isinstance(self._document, dict):
                raise _cannot_set(rule)
            self.headers["Content-Type"] = "application/x-www-form-urlencoded"
            self._form[rule.form] = value
        elif rule.json is not None:
            path = [*(() if whole else self._first), *rule.json.split(".")]
            self._document = _set(self._document, path, value)
            if isinstance(dig(self._document, ".".join(path)), (dict, list, NoneType)):
                raise _cannot_set(rule)

    def set_timestamp(self, path: str, form: TimestampFormat) -> None:
        """Set the current time in the body, as the service does for each attempt."""
        moment = timestamp_of(time.time(), form)
        self._document = _set(self._document, path.split("."), moment if form == "iso" else int(moment))
        if isinstance(dig(self._document, path), (dict, list, NoneType)):
            raise _cannot_set(Rule(json=path))

    def sign_body(self, scheme: BodyHmac, secret: str) -> None:
        """Add the signatures to the document. Raises RequestRejected if the document has no items."""
        self._document = scheme.signed(self._document, secret)

    def path(self, wire: InboundEndpoint) -> str:
        template = wire.below[0] if wire.below else []
        tail = "".join(
            "/" + quote(text if name is None else self._path.get(name, "1"), safe="") for name, text in template
        )
        return wire.path + tail + (f"?{urlencode(self._query)}" if self._query else "")

    @property
    def content(self) -> bytes:
        """The body: JSON, or a form with the document's fields if a rule reads a form field."""
        if self.headers["Content-Type"] == "application/json":
            return orjson.dumps(self._document)
        fields = self._document if isinstance(self._document, dict) else {}
        texts = {
            name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in fields.items()
        }
        return urlencode({**self._form, **texts}).encode()


def _cannot_set(rule: Rule) -> UsageError:
    return UsageError(
        f"The wire reads {rule} from the body, but it cannot be set in the given body",
        hint="Use a JSON object such as {}; khotan adds the value.",
    )


def _set(node: Any, path: list[str], value: str | int) -> Any:
    """Return a copy of the node with the value at the path. Existing values stay."""
    if not path:
        return value if node is None or node == "" else node
    head, *rest = path
    if head.isdecimal() and (node is None or isinstance(node, list)):
        items = [*(node or []), *[None] * (int(head) + 1 - len(node or []))]
        items[int(head)] = _set(items[int(head)], rest, value)
        return items
    if node is not None and not isinstance(node, dict):
        return node
    fields = node or {}
    return {**fields, head: _set(fields.get(head), rest, value)}
