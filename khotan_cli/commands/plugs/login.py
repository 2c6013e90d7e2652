"""`khotan plug NAME --login`: sign in with a browser that comes back to a loopback port (RFC 8252 7.3)."""

from __future__ import annotations

import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import SplitResult, parse_qs, urlsplit

from khotan_cli.console import console
from khotan_cli.errors import KhotanError, UsageError
from khotan_cli.options import options

_PAGE = b"<!doctype html><meta charset=utf-8><title>khotan</title><p>The answer has arrived. Return to the terminal."
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SILENCE = 10.0
"""Seconds after which a connection that sends nothing is closed. Browsers open such connections in advance."""


@dataclass
class _Waiting:
    """What is waited for: a GET of `path` with `state`. `target` is the request target that came."""

    path: str
    state: str = ""
    target: str = ""
    came: threading.Event = field(default_factory=threading.Event)


class _Callback(ThreadingHTTPServer):
    """Each connection has a thread of its own, so that a silent one holds nobody up."""

    daemon_threads = True

    def __init__(self, family: socket.AddressFamily, address: str, port: int, waiting: _Waiting) -> None:
        self.address_family = family
        self.waiting = waiting
        super().__init__((address, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = _SILENCE

    def do_GET(self) -> None:
        assert isinstance(self.server, _Callback)
        waiting = self.server.waiting
        parts = urlsplit(self.path)
        state = parse_qs(parts.query).get("state", [""])[0]
        found = bool(waiting.state) and (parts.path, state) == (waiting.path, waiting.state)
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        if found:
            self.wfile.write(_PAGE)
            self.wfile.flush()
            waiting.target = self.path
            waiting.came.set()

    def log_message(self, format: str, *args: object) -> None:
        """The request line holds the code: it is not logged."""


def login(name: str, *, port: int, seconds: int, browser: bool, redirect_uri: str = "") -> None:
    """Run the login. Raises UsageError for a redirect URI or a port that cannot be used, KhotanError where nobody came
    back within `seconds`, and what the API raises."""
    if seconds < 1:
        raise UsageError(f"--timeout {seconds} is not a number of seconds", hint="Use 1 or more.")
    parts, port = _checked(redirect_uri or "http://127.0.0.1/callback", port)
    waiting = _Waiting(parts.path or "/")
    with _listening(str(parts.hostname), port, waiting) as bound, options.client() as client:
        host = "[::1]" if parts.hostname == "::1" else parts.hostname
        origin = f"http://{host}:{bound}"
        started = client.oauth_start(name, origin + parts.path)
        waiting.state = started["state"]
        # Not through the console, which wraps: the URL is to be copied, or clicked.
        console.warn("Open this URL in a browser to sign in:")
        sys.stderr.write(f"{started['url']}\n")
        sys.stderr.flush()
        if browser and console.interactive:
            # In a thread: a browser that runs in the terminal would hold up the timeout.
            threading.Thread(target=webbrowser.open, args=(started["url"],), daemon=True).start()
        with console.status("Waiting for the browser to come back …"):
            came = waiting.came.wait(seconds)
        if not came:
            raise KhotanError(
                f"Nobody signed in within {seconds} s",
                code="auth_failed",
                hint=f"Try again, or raise --timeout. The service must have {origin + parts.path} registered as redirect URI.",
            )
        client.oauth_finish(name, origin + waiting.target)
    done = {"ok": True, "plug": name, "signedIn": True}
    console.result(done, lambda: console.success(f"Plug {name} is signed in."))


def _checked(redirect_uri: str, port: int) -> tuple[SplitResult, int]:
    """The parts of a redirect URI and its port, 0 for a free one (RFC 8252 7.3 and 8.3; RFC 6749 3.1.2)."""
    try:
        parts = urlsplit(redirect_uri)
        own = parts.port
    except ValueError as exc:
        raise UsageError(f"--redirect-uri {redirect_uri!r} is not a URL: {exc}", hint=_EXAMPLE) from None
    why = ""
    if parts.scheme != "http":
        why = "its scheme is not http"
    elif parts.hostname not in _LOOPBACK:
        why = f"its host is not one of {', '.join(_LOOPBACK)}"
    elif "?" in redirect_uri or "#" in redirect_uri or "@" in parts.netloc:
        why = "it has a query, a fragment or a user name"
    elif not all("!" <= char <= "~" for char in parts.path):
        why = "its path has a character that a URL cannot contain"
    if why:
        raise UsageError(f"--redirect-uri {redirect_uri!r} cannot be used: {why}", hint=_EXAMPLE)
    if own and port and own != port:
        raise UsageError(f"--port {port} and the port {own} of --redirect-uri differ", hint="Give the port once.")
    chosen = own or port
    if not 0 <= chosen <= 65535:
        raise UsageError(f"--port {chosen} is not a port", hint="Use a number from 1 to 65535.")
    return parts, chosen


_EXAMPLE = "Use http://localhost:8765/callback, for example."


@contextmanager
def _listening(host: str, port: int, waiting: _Waiting) -> Iterator[int]:
    """Serve the callback while the block lasts; gives the port. `localhost` is served on IPv4 and, where there is one, IPv6."""
    with ExitStack() as stack:
        try:
            address, family = ("::1", socket.AF_INET6) if host == "::1" else ("127.0.0.1", socket.AF_INET)
            first = stack.enter_context(_Callback(family, address, port, waiting))
            servers = [first]
            if host == "localhost":
                servers += _second(stack, first.server_port, waiting)
        except OSError as exc:
            raise UsageError(
                f"Port {port} cannot be used: {exc.strerror}",
                code="port_in_use",
                hint="Give another --port, and register it with the service.",
            ) from None
        for server in servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
            stack.callback(server.shutdown)
        yield first.server_port


def _second(stack: ExitStack, port: int, waiting: _Waiting) -> list[_Callback]:
    """The server on IPv6: browsers may try it first for `localhost`. None on a machine without IPv6."""
    try:
        return [stack.enter_context(_Callback(socket.AF_INET6, "::1", port, waiting))]
    except OSError:
        return []
