"""The management API as an ASGI application: it finds the operation of a request and sends its reply, or the error document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.api.access import LOCAL_SCOPE, require_access
from khotan_cli.runtime.api.body import MAX_BODY_BYTES, Body, hang_up
from khotan_cli.runtime.api.calls import Call, EventStream, Reply, error_reply, json_reply
from khotan_cli.runtime.api.routes.inbound import INGEST, WEBHOOK, Inbound
from khotan_cli.runtime.api.routing import find
from khotan_cli.runtime.api.scope import log_unexpected, path_below, raw_path
from khotan_cli.runtime.services import Services

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_UNREAD = (408, 413)
"""Statuses of a request whose body may still be coming."""
_REFUSED = {401: "Send the application's credential.", 403: "Ask whoever runs the application for access."}


class ManagementApi:
    """ASGI application, to be mounted. `services` is called when a request comes."""

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services
        self._inbound = {mount: Inbound(services, mount) for mount in (WEBHOOK, INGEST)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = path_below(scope)
        mount = f"/{path[1:].partition('/')[0]}"
        if mount in self._inbound and path != mount:
            root = scope.get("root_path", "") + mount
            await self._inbound[mount]({**scope, "root_path": root}, receive, send)
            return
        body = Body(scope, receive, None if scope.get(LOCAL_SCOPE) is True else MAX_BODY_BYTES)
        reply = await self._reply(scope, path, body)
        with suppress(OSError):
            await (_stream(reply, scope, body, send) if isinstance(reply, EventStream) else _send(reply, scope, send))

    async def _reply(self, scope: Scope, path: str, body: Body) -> Reply | EventStream:
        """What the operation returns; of whatever it raises, the error document."""
        try:
            body.check_length()
            operation, values = find(scope["method"], path)
            call = _call(scope, path, body, self._services())
            if operation.guarded:
                await require_access(call)
            result = await operation(call, values)
            return result if isinstance(result, EventStream) else json_reply(result)
        except KhotanError as exc:
            return error_reply(exc)
        except Exception as exc:
            return _refused(exc) or _unexpected(scope, exc)


def _call(scope: Scope, path: str, body: Body, services: Services) -> Call:
    def request() -> Any:
        from starlette.requests import Request

        return Request(scope, body.receive)

    query = scope.get("query_string", b"").decode("latin-1")
    raw = raw_path(scope)
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get("host") or ":".join(str(part) for part in scope.get("server") or () if part)
    return Call(
        services=services,
        method=scope["method"],
        path=path,
        target=raw + (f"?{query}" if query else ""),
        query=query,
        mount=scope.get("root_path", "").rstrip("/"),
        headers=headers,
        base_url=f"{scope.get('scheme', 'http')}://{host}",
        local=scope.get(LOCAL_SCOPE) is True,
        read=body.read,
        request=request,
    )


def _refused(exc: Exception) -> Reply | None:
    """What an `authorize` raises to refuse: Starlette's HTTPException, under its own status."""
    from starlette.exceptions import HTTPException

    if not isinstance(exc, HTTPException):
        return None
    code = "unauthorized" if exc.status_code in _REFUSED else "failed"
    error = KhotanError(str(exc.detail), code=code, hint=_REFUSED.get(exc.status_code, ""))
    return error_reply(error, exc.status_code, exc.headers)


def _unexpected(scope: Scope, exc: Exception) -> Reply:
    """An answer, and a line in the log: a server would log the message too, and that may hold secrets."""
    log_unexpected(scope, exc)
    return error_reply(
        KhotanError(
            f"Something unexpected went wrong ({type(exc).__name__})",
            code="internal_error",
            hint="The server's log says where.",
        )
    )


async def _send(reply: Reply, scope: Scope, send: Callable[[Any], Awaitable[None]]) -> None:
    fields = {"Content-Length": str(len(reply.body)), **reply.headers}
    if reply.status in _UNREAD:
        fields |= hang_up(scope)
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def _stream(stream: EventStream, scope: Scope, body: Body, send: Send) -> None:
    from starlette.responses import StreamingResponse

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = StreamingResponse(stream.events, media_type="text/event-stream", headers=headers)
    try:
        await response(scope, body.receive, send)
    except Exception as exc:
        log_unexpected(scope, exc)  # the server notices that the answer is incomplete, and closes the connection
