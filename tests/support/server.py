"""Any ASGI application behind a real uvicorn on a free loopback port, in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn


class NotStarted(Exception):
    """The application's start-up failed; the log says why."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[str]:
    """Serve while the block lasts; yields the base URL. Raises NotStarted."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await server.up.wait()
        if server.should_exit:
            await serving
            raise NotStarted
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def served(app: Any, auth: httpx.Auth | None = None, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application while it is served."""
    async with running(app) as url, httpx.AsyncClient(base_url=url, auth=auth, headers=headers, timeout=30) as client:
        yield client
