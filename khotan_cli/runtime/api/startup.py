"""Why an app did not start, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from khotan_cli.errors import KhotanError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class StartUpErrors:
    """ASGI middleware: a start that failed with a KhotanError is reported to the server by message and hint.

    Starlette reports the traceback, which says neither what is wrong with the set-up nor what to do.
    """

    def __init__(self, app: ASGIApp, failed: Sequence[KhotanError]) -> None:
        self._app, self._failed = app, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self._failed:
                error = self._failed[-1]
                message = {**message, "message": f"{error.message}. {error.hint}"}
            await send(message)

        await self._app(scope, receive, told)
