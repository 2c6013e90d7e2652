"""Reports why an app did not start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from khotan_cli.errors import KhotanError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class StartUpErrors:
    """ASGI middleware that reports a KhotanError at start-up to the server by its message and hint.

    Starlette reports only the traceback.
    """

    def __init__(self, app: ASGIApp, failed: Sequence[KhotanError]) -> None:
        self._app, self._failed = app, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_message(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self._failed:
                error = self._failed[-1]
                message = {**message, "message": f"{error.message}. {error.hint}"}
            await send(message)

        await self._app(scope, receive, send_with_message)
