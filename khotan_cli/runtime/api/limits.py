"""A bound on request bodies, kept while they arrive."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.api.errors import error_response

MAX_BODY_BYTES = 10_000_000


class _TooLarge(Exception):
    pass


class BodyLimit:
    """ASGI middleware: 413 for a body over the limit, without reading the rest of it."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        size, started = 0, False

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if declared.isdigit() and int(declared) > self._limit:
                raise _TooLarge
            await self._app(scope, counted, noted)
        except _TooLarge:
            if started:
                raise
            error = KhotanError(
                f"The request body is larger than {self._limit:,} bytes", code="body_too_large", hint="Send less."
            )
            await error_response(error)(scope, receive, send)
