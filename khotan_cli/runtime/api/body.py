"""Reads request bodies, with limits of size and time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from khotan_cli.errors import KhotanError

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope

MAX_BODY_BYTES = 10_000_000
"""Maximum body size of a request to the management API."""
READ_SECONDS = 60.0
"""Seconds within which such a body must be received."""


class Body:
    """The body of one request, read once, on demand. limit: bytes, or None for a caller in this process."""

    def __init__(self, scope: Scope, receive: Receive, limit: int | None) -> None:
        self._scope, self._receive, self._limit = scope, receive, limit
        self._content: bytes | None = None
        self._received = False

    def check_length(self) -> None:
        """Raises KhotanError (body_too_large) if the declared length exceeds the limit."""
        if self._limit is not None and declared_length(self._scope) > self._limit:
            raise self._too_large()

    async def read(self) -> bytes:
        """Read the body. Raises KhotanError: body_too_large (without reading the rest), request_timeout, body_incomplete."""
        if self._content is None:
            too_large = self._too_large()
            self._content = await read_body(self._receive, self._limit, READ_SECONDS, too_large)
        return self._content

    async def receive(self) -> Message:
        """ASGI's receive for other readers of the request: the whole body, then later messages."""
        if self._received:
            return await self._receive()
        self._received = True
        return {"type": "http.request", "body": await self.read(), "more_body": False}

    def _too_large(self) -> KhotanError:
        return KhotanError(
            f"The request body is larger than {self._limit or 0:,} bytes",
            code="body_too_large",
            hint="Send a smaller body, or run the khotan command without --url, which has no limit.",
        )


def declared_length(scope: Scope) -> int:
    """`Content-Length`; 0 if it is absent or not a number."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(declared) if declared.isdigit() else 0


async def read_body(receive: Receive, limit: int | None, seconds: float, too_large: KhotanError) -> bytes:
    """Read the body. Raises `too_large` above the limit; KhotanError: request_timeout, body_incomplete."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message: Any = await receive()
                if message["type"] == "http.disconnect":
                    raise KhotanError("The body is incomplete", code="body_incomplete", hint="Send the request again.")
                part = message.get("body", b"")
                size += len(part)
                if limit is not None and size > limit:
                    raise too_large
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise KhotanError(
            f"The body was not received within {seconds:g} s", code="request_timeout", hint="Send the body faster."
        ) from None


def hang_up(scope: Scope) -> dict[str, str]:
    """Header fields that close the connection, so that the rest of a body is not sent (RFC 9112 9.6; none in HTTP/2)."""
    return {"Connection": "close"} if scope.get("http_version", "1.1").startswith("1") else {}
