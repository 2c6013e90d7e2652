"""`khotan plug NAME --login`: sign in with a browser that is redirected to a loopback port (RFC 8252 7.3)."""

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

_PAGE = b"<!doctype html><meta charset=utf-8><title>khotan</title><p>The sign-in response has arrived. Return to the terminal."
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_IDLE_SECONDS = 10.0
"""Seconds after which a connection that sends nothing is closed. Browsers open such connections in advance."""


@dataclass
class _ExpectedRedirect:
    """The GET of `path` with `state` that the browser will send. `target` is its request target, once received."""

    path: str
    state: str = ""
    target: str = ""
    received: threading.Event = field(default_factory=threading.Event)


class _Callback(ThreadingHTTPServer):
    """Handles each connection in its own thread, so that an idle connection blocks no other."""

    daemon_threads = True

    def __init__(self, family: socket.AddressFamily, address: str, port: int, expected: _ExpectedRedirect) -> None:
        self.address_family = family
        self.expected = expected
        super().__init__((address, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        assert isinstance(self.server, _Callback)
        expected = self.server.expected
        parts = urlsplit(self.path)
        state = parse_qs(parts.query).get("state", [""])[0]
        matches = bool(expected.state) and (parts.path, state) == (expected.path, expected.state)
        self.send_response(200 if matches else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        if matches:
            self.wfile.write(_PAGE)
            self.wfile.flush()
            expected.target = self.path
            expected.received.set()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the request line contains the authorization code."""


def login(name: str, *, port: int, seconds: int, browser: bool, redirect_uri: str = "") -> None:
    """Run the login.

    Raises UsageError for an unusable redirect URI or port, KhotanError if no redirect arrives within `seconds`, and
    the API's errors.
    """
    if seconds < 1:
        raise UsageError(f"Invalid --timeout {seconds}: it must be 1 or more", hint="Give a number of seconds.")
    parts, port = _parse_redirect_uri(redirect_uri or "http://127.0.0.1/callback", port)
    expected = _ExpectedRedirect(parts.path or "/")
    with _listening(str(parts.hostname), port, expected) as bound, options.client() as client:
        host = "[::1]" if parts.hostname == "::1" else parts.hostname
        origin = f"http://{host}:{bound}"
        started = client.oauth_start(name, origin + parts.path)
        expected.state = started["state"]
        # The console would wrap the URL, which the user copies or clicks.
        console.warn("Open this URL in a browser to sign in:")
        sys.stderr.write(f"{started['url']}\n")
        sys.stderr.flush()
        if browser and console.interactive:
            # In a thread: a browser that runs in the terminal would block the timeout.
            threading.Thread(target=webbrowser.open, args=(started["url"],), daemon=True).start()
        with console.status("Waiting for the browser …"):
            received = expected.received.wait(seconds)
        if not received:
            raise KhotanError(
                f"The sign-in did not finish within {seconds} s",
                code="auth_failed",
                hint=f"Try again, or raise --timeout. Register {origin + parts.path} as a redirect URI with the service.",
            )
        client.oauth_finish(name, origin + expected.target)
    done = {"ok": True, "plug": name, "signedIn": True}
    console.result(done, lambda: console.success(f"Plug {name} is signed in."))


def _parse_redirect_uri(redirect_uri: str, port: int) -> tuple[SplitResult, int]:
    """Split a redirect URI and choose its port, 0 for a free one (RFC 8252 7.3 and 8.3; RFC 6749 3.1.2)."""
    try:
        parts = urlsplit(redirect_uri)
        uri_port = parts.port
    except ValueError as exc:
        raise UsageError(f"Invalid --redirect-uri {redirect_uri!r}: {exc}", hint=_EXAMPLE) from None
    problem = ""
    if parts.scheme != "http":
        problem = "the scheme must be http"
    elif parts.hostname not in _LOOPBACK:
        problem = f"the host must be one of {', '.join(_LOOPBACK)}"
    elif "?" in redirect_uri or "#" in redirect_uri or "@" in parts.netloc:
        problem = "it must not have a query, a fragment or a user name"
    elif not all("!" <= char <= "~" for char in parts.path):
        problem = "the path contains a character that a URL cannot contain"
    if problem:
        raise UsageError(f"Invalid --redirect-uri {redirect_uri!r}: {problem}", hint=_EXAMPLE)
    if uri_port and port and uri_port != port:
        raise UsageError(f"--port {port} and the port {uri_port} of --redirect-uri differ", hint="Give the port once.")
    chosen = uri_port or port
    if not 0 <= chosen <= 65535:
        raise UsageError(f"Invalid --port {chosen}", hint="Use a number from 1 to 65535.")
    return parts, chosen


_EXAMPLE = "Use http://localhost:8765/callback, for example."


@contextmanager
def _listening(host: str, port: int, expected: _ExpectedRedirect) -> Iterator[int]:
    """Serve the callback during the block; yields the port. `localhost` is served on IPv4 and, if available, IPv6."""
    with ExitStack() as stack:
        try:
            address, family = ("::1", socket.AF_INET6) if host == "::1" else ("127.0.0.1", socket.AF_INET)
            first = stack.enter_context(_Callback(family, address, port, expected))
            servers = [first]
            if host == "localhost":
                servers += _ipv6_server(stack, first.server_port, expected)
        except OSError as exc:
            raise UsageError(
                f"Cannot listen on port {port}: {exc.strerror}",
                code="port_in_use",
                hint="Give another --port, and register it with the service.",
            ) from None
        for server in servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
            stack.callback(server.shutdown)
        yield first.server_port


def _ipv6_server(stack: ExitStack, port: int, expected: _ExpectedRedirect) -> list[_Callback]:
    """The server on IPv6, which browsers may try first for `localhost`. Empty on a machine without IPv6."""
    try:
        return [stack.enter_context(_Callback(socket.AF_INET6, "::1", port, expected))]
    except OSError:
        return []
