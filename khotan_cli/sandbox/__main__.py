"""`python -m khotan_cli.sandbox [--port N]`: serve on loopback; one JSON line on stdout when ready."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
from collections.abc import Sequence

import uvicorn

from khotan_cli.errors import CODES
from khotan_cli.sandbox.app import build

HOST = "127.0.0.1"


class _Announced(uvicorn.Server):
    """A server that says on stdout where it listens, once it does."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _say({"ok": True, "url": self._url, "docs": f"{self._url}/docs", "openapi": f"{self._url}/openapi.json"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code: 4 where the port is taken."""
    parser = argparse.ArgumentParser(prog="python -m khotan_cli.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (default): any free one")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when stdin is closed, as a child should")
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error("--port must be from 0 to 65535")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, options.port))
        listener.listen(128)
    except OSError as exc:
        message = f"Port {options.port} on {HOST} cannot be used: {exc.strerror}"
        _say({"ok": False, "error": "port_in_use", "message": message, "hint": "Choose another --port."})
        return CODES["port_in_use"][1]
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    server = _Announced(uvicorn.Config(build(), log_level="warning", access_log=False, lifespan="off"), url)
    if options.stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, args=(server,), daemon=True).start()
    server.run(sockets=[listener])
    return 0


def _stop_with_stdin(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True


def _say(document: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
