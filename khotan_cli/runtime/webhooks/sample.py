"""A made-up event, signed as the service would sign it: to try a wire without the service."""

from __future__ import annotations

import base64
import time
import uuid
from types import NoneType
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from khotan_cli.errors import UsageError
from khotan_cli.runtime.http.json_path import dig
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
    """Method, path, headers and body (base64) of a request that the wire accepts. body: its JSON document, or the fields of a
    form where the service sends forms; for a wire with items one item, or a document with some. base: URL of the API, which
    may be signed.
    forged: sign with a new secret, which is not the wire's.

    Raises UsageError where only the service can sign, or the body has no room for what goes into it; SecretMissing.
    """
    event_id = f"evt_{uuid.uuid4().hex[:16]}"
    sample = _Sample({} if body is None else json_value("body", body), wire.items)
    sample.place(wire.type_rule, event_type)
    sample.place(wire.id_rule, event_id)
    method = "POST" if "POST" in wire.event_methods else min(wire.event_methods)
    if wire.scheme is not None and wire.verify is None:
        try:
            secret = wire.scheme.make_secret() if forged else (await env.secrets(wire, fresh=True))[0]
            if isinstance(wire.scheme, Token):
                sample.place(wire.scheme.rule, wire.scheme.prefix + secret, whole=True)
            if isinstance(wire.scheme, (Hmac, PublicKey)) and wire.scheme.timestamp_field:
                sample.place_time(wire.scheme.timestamp_field, wire.scheme.timestamp_format)
            if isinstance(wire.scheme, BodyHmac):
                sample.sign_body(wire.scheme, secret)
            request = WebhookRequest(method, base + sample.path(wire), Headers(sample.headers), sample.content)
            sample.headers |= wire.scheme.sign(request, secret, time.time(), event_id)
        except RequestRejected as exc:
            raise UsageError(
                f"Wire {wire.id!r}: {exc}", hint="Replay a real event instead: khotan wire replay."
            ) from None
    body64 = base64.b64encode(sample.content).decode()
    return {"method": method, "path": sample.path(wire), "headers": sample.headers, "body": body64}


class _Sample:
    """A request that takes shape: values are put where rules look for them, unless something is there."""

    def __init__(self, document: Any, items: str) -> None:
        self._document, self._first = first_item(document, items)
        self._query: dict[str, str] = {}
        self._form: dict[str, str] = {}
        self._path: dict[str, str] = {}
        self.headers = {"Content-Type": "application/json", "User-Agent": "khotan"}

    def place(self, rule: Rule | None, value: str, *, whole: bool = False) -> None:
        """Put a value where the rule looks for it. whole: the rule reads the whole body, not the first item."""
        if rule is None:
            return
        if len(rule.parts) > 1:
            values = value.split(getattr(rule, "separator", "."), len(rule.parts) - 1)
            for part, one in zip(rule.parts, [*values, *[values[-1]] * len(rule.parts)], strict=False):
                self.place(part, one, whole=whole)
            return
        if rule.path is not None:
            self._path.setdefault(rule.path, value)
        elif rule.header is not None:
            self.headers.setdefault(rule.header, value)
        elif rule.query is not None:
            self._query.setdefault(rule.query, value)
        elif rule.form is not None:
            if not isinstance(self._document, dict):
                raise _no_room(rule)
            self.headers["Content-Type"] = "application/x-www-form-urlencoded"
            self._form[rule.form] = value
        elif rule.json is not None:
            path = [*(() if whole else self._first), *rule.json.split(".")]
            self._document = _set(self._document, path, value)
            if isinstance(dig(self._document, ".".join(path)), (dict, list, NoneType)):
                raise _no_room(rule)

    def place_time(self, path: str, form: TimestampFormat) -> None:
        """Put the present into the body, as the service does for each attempt."""
        moment = timestamp_of(time.time(), form)
        self._document = _set(self._document, path.split("."), moment if form == "iso" else int(moment))
        if isinstance(dig(self._document, path), (dict, list, NoneType)):
            raise _no_room(Rule(json=path))

    def sign_body(self, scheme: BodyHmac, secret: str) -> None:
        """Put the signatures into the document. Raises RequestRejected where it has no place for them."""
        self._document = scheme.signed(self._document, secret)

    def path(self, wire: InboundEndpoint) -> str:
        template = wire.below[0] if wire.below else []
        tail = "".join(
            "/" + quote(text if name is None else self._path.get(name, "1"), safe="") for name, text in template
        )
        return wire.path + tail + (f"?{urlencode(self._query)}" if self._query else "")

    @property
    def content(self) -> bytes:
        """JSON; or a form, where a rule looks into one: its fields are those of the document."""
        if self.headers["Content-Type"] == "application/json":
            return orjson.dumps(self._document)
        fields = self._document if isinstance(self._document, dict) else {}
        texts = {
            name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in fields.items()
        }
        return urlencode({**self._form, **texts}).encode()


def _no_room(rule: Rule) -> UsageError:
    return UsageError(
        f"The wire looks for {rule} in the body, and the body that was given has no room for it",
        hint="Give an object, such as {}: what the wire looks for is put into it.",
    )


def _set(place: Any, path: list[str], value: str | int) -> Any:
    """The document with the value at the path; what is there already stays."""
    if not path:
        return value if place is None or place == "" else place
    head, *rest = path
    if head.isdecimal() and (place is None or isinstance(place, list)):
        items = [*(place or []), *[None] * (int(head) + 1 - len(place or []))]
        items[int(head)] = _set(items[int(head)], rest, value)
        return items
    if place is not None and not isinstance(place, dict):
        return place
    known = place or {}
    return {**known, head: _set(known.get(head), rest, value)}
