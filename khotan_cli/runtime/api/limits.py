"""A bound on request bodies, kept while they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.api.access import LOCAL_SCOPE
from khotan_cli.runtime.api.errors import error_response

MAX_BODY_BYTES = 10_000_000


class _TooLarge(Exception):
    pass


class BodyLimit:
    """ASGI middleware: 413 for a body over the limit, without reading the rest of it.

    In-process callers are not limited: what they send is in this very memory already. Nor are the mounts in `exempt`, which
    have a limit of their own.
    """

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES, exempt: Sequence[str] = ()) -> None:
        self._app, self._limit = app, limit
        self._exempt = tuple(f"{mount}/" for mount in exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = "" if scope["type"] != "http" else scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or scope.get(LOCAL_SCOPE) is True or path.startswith(self._exempt):
            await self._app(scope, receive, send)
            return
        declared = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        over, started, size = declared.isdigit() and int(declared) > self._limit, False, 0

        async def counted() -> Message:
            nonlocal size, over
            message = await receive()
            size += len(message.get("body", b""))
            over = over or size > self._limit
            if over:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            if over and not started:
                return  # what the app makes of the failed read is not the answer
            started = True
            await send(message)

        if not over:
            with suppress(_TooLarge):
                await self._app(scope, counted, noted)
        if over and not started:
            error = KhotanError(
                f"The request body is larger than {self._limit:,} bytes",
                code="body_too_large",
                hint="Send less. The khotan command has no limit in-process, without --url.",
            )
            await error_response(error, headers=hang_up(scope))(scope, receive, send)


def hang_up(scope: Scope) -> dict[str, str]:
    """Header fields that end the connection, where the rest of a body is not wanted (RFC 9112 9.6; HTTP/2 has none)."""
    return {"Connection": "close"} if scope.get("http_version", "1.1").startswith("1") else {}
