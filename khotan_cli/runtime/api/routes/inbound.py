"""/webhook/{plug}, /webhook/{plug}/{wire} and /ingest: requests of services. Plain ASGI, with raw bytes and any method."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.api.access import LOCAL_SCOPE
from khotan_cli.runtime.api.body import declared_length, hang_up, read_body
from khotan_cli.runtime.api.calls import RETRY_SECONDS
from khotan_cli.runtime.api.scope import log_unexpected, path_below, raw_path
from khotan_cli.runtime.services import Services
from khotan_cli.runtime.webhooks.endpoint import InboundEndpoint
from khotan_cli.runtime.webhooks.inbound.receive import Receipt, method_not_allowed
from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

HEADER_BYTES = 32_768
"""Maximum total size of the header fields; larger ones are rejected (RFC 6585 5)."""
READ_SECONDS = 15.0
"""Seconds within which a body must be received."""
_UNREAD = (408, 413)
"""Statuses of requests that are rejected while their body is still being sent."""
_UNAVAILABLE = KhotanError("Temporarily unavailable", code="unavailable", hint="Try again later.").to_json()
"""The response to an internal failure. It reveals no details, such as the database's address."""
WEBHOOK, INGEST = "/webhook", "/ingest"

logger = logging.getLogger("khotan.webhooks")


class Inbound:
    """ASGI application, to be mounted at /webhook and at /ingest."""

    def __init__(self, services: Callable[[], Services], mount: str) -> None:
        self._services, self._mount = services, mount

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[str, str] = {}
        try:
            status, document = await self._handle(scope, receive)
        except KhotanError as exc:
            status, document, headers = _refusal(scope, exc)
        except Exception as exc:
            log_unexpected(scope, exc)
            status, document = 500, _UNAVAILABLE
        body, content_type = document if isinstance(document, tuple) else (orjson.dumps(document), "application/json")
        fields = {"content-type": content_type, "content-length": str(len(body)), **headers}
        fields["x-content-type-options"] = "nosniff"  # a challenge response repeats the sender's text
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()]
        with suppress(OSError):
            await send({"type": "http.response.start", "status": status, "headers": raw})
            await send({"type": "http.response.body", "body": body})

    async def _handle(self, scope: Scope, receive: Receive) -> tuple[int, Any]:
        services = self._services()
        rest = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        wire, path = self._wire(services.registry.wires, path_below(scope).strip("/").split("/"))
        if wire is None:
            form = "/ingest/<path>" if self._mount == INGEST else "/webhook/<plug>[/<name>]"
            raise KhotanError(
                f"No endpoint at {self._mount}/{rest[:100]}", code="unknown_wire", hint=f"The path is {form}."
            )
        if scope["method"] not in wire.methods:
            raise method_not_allowed(wire.id, scope["method"], wire.methods)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
            raise KhotanError(
                "The header fields are too large", code="headers_too_large", hint="Send fewer, or shorter."
            )
        body = await _body(scope, receive, services.settings.webhook_max_bytes)
        request = WebhookRequest(
            scope["method"], public_url(scope, services.settings.public_url), _headers(scope), body, path=path
        )
        if not services.bound:
            await services.bind()
        return _answer(await services.receiver.receive(wire, request))

    def _wire(
        self, wires: Mapping[str, InboundEndpoint], segments: list[str]
    ) -> tuple[InboundEndpoint | None, dict[str, str]]:
        """The wire that receives there, and what it takes from the path below its own; the longest match wins."""
        for length in range(len(segments), 0, -1):
            name = "/".join(unquote(segment) for segment in segments[:length])
            wire = wires.get(f"ingest/{name}" if self._mount == INGEST else name)
            if wire is not None and wire.path == f"{self._mount}/{name}":
                path = wire.path_values(segments[length:])
                if path is not None:
                    return wire, path
        return None, {}


def _refusal(scope: Scope, exc: KhotanError) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, document and header fields for a request that is not taken."""
    headers = hang_up(scope) if exc.http_status in _UNREAD else {}
    if exc.http_status == 503:
        headers["Retry-After"] = RETRY_SECONDS
    if exc.http_status == 405:
        headers["Allow"] = ", ".join(exc.details.get("allow", ()))
    if exc.http_status >= 500 and scope.get(LOCAL_SCOPE) is not True:
        told = (scope["method"], scope["path"], exc.http_status, exc.code, exc.message, exc.hint)
        logger.error("%s %r is answered with %d, %s: %s. %s", *told)
        return exc.http_status, _UNAVAILABLE, headers
    document = exc.to_json()
    document.pop("next", None)  # commands are not for the world
    return exc.http_status, document, headers


def _answer(receipt: Receipt) -> tuple[int, Any]:
    if receipt.answer is not None:
        return receipt.answer.status, (receipt.answer.body, receipt.answer.content_type)
    stored = receipt.stored
    assert stored is not None
    return 202, {"ok": True, "id": str(stored.id), "duplicate": not stored.new}


async def _body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read the body. Raises KhotanError: body_too_large (without reading the rest), request_timeout, body_incomplete."""
    too_large = KhotanError(
        f"The body is larger than {limit:,} bytes", code="body_too_large", hint="Send a smaller body."
    )
    if declared_length(scope) > limit:
        raise too_large
    return await read_body(receive, limit, READ_SECONDS, too_large)


def _headers(scope: Scope) -> Headers:
    return Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])


def public_url(scope: Scope, base: str) -> str:
    """The URL that the sender used: below `base` if it is configured, else from the request."""
    path, query = raw_path(scope), scope.get("query_string", b"").decode("latin-1")
    if not base:
        fields: Mapping[bytes, bytes] = dict(scope["headers"])
        host = fields.get(b"host", b"").decode("latin-1")
        if not host and scope.get("server"):
            host = ":".join(str(part) for part in scope["server"] if part)
        base = f"{scope.get('scheme', 'http')}://{host}"
    return f"{base.rstrip('/')}{path}" + (f"?{query}" if query else "")
