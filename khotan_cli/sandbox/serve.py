"""Serving the sandbox on loopback."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable

import uvicorn

from khotan_cli.errors import KhotanError
from khotan_cli.sandbox.app import build

HOST = "127.0.0.1"


class _Announced(uvicorn.Server):
    """A server that says where it listens, once it does."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def serve(port: int, ready: Callable[[str], None], *, stop_with_stdin: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; `ready` gets the URL. Port 0 is any free one.

    stop_with_stdin: also stop when standard input closes, as a child process should when its parent is gone.
    Raises KhotanError (port_in_use) where the port cannot be had.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except (OSError, OverflowError) as exc:
        listener.close()
        reason = getattr(exc, "strerror", None) or str(exc)
        raise KhotanError(
            f"Cannot listen on {HOST}:{port}: {reason}", code="port_in_use", hint="Choose another --port."
        ) from None
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    config = uvicorn.Config(build(), log_level="warning", access_log=False, lifespan="off")
    server = _Announced(config, lambda: ready(url))
    if stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        return  # uvicorn has shut down in order, and passes the signal on: stopping is what was asked for


def _stop_with_stdin(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True
