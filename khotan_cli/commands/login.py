"""`khotan plug NAME --login`: sign in with a browser that comes back to a loopback port (RFC 8252 7.3)."""

from __future__ import annotations

import time
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer

from khotan_cli.console import console
from khotan_cli.errors import KhotanError, UsageError
from khotan_cli.options import options

_PAGE = b"<!doctype html><meta charset=utf-8><title>khotan</title><p>Signed in as far as the browser goes. Back to the terminal."


class _Callback(HTTPServer):
    """Waits for one request with a `state`; others (a favicon) are answered 404."""

    answer = ""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = "state=" in self.path
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        if found and isinstance(self.server, _Callback):
            self.server.answer = self.path
            self.wfile.write(_PAGE)

    def log_message(self, format: str, *args: object) -> None:
        """The request line holds the code: it is not logged."""


def login(name: str, *, port: int, seconds: int, browser: bool) -> None:
    """Run the login. Raises KhotanError where nobody came back in time, and what the API raises."""
    try:
        server = _Callback(("127.0.0.1", port), _Handler)
    except OSError as exc:
        raise UsageError(
            f"Port {port} cannot be used: {exc.strerror}", code="port_in_use", hint="Give another --port."
        ) from None
    redirect = f"http://127.0.0.1:{server.server_port}/callback"
    with server, options.client() as client:
        started = client.oauth_start(name, redirect)
        console.warn(f"Sign in at: {started['url']}")
        if browser and console.interactive:
            webbrowser.open(started["url"])
        deadline = time.monotonic() + seconds
        with console.status("Waiting for the browser to come back …"):
            while not server.answer:
                server.timeout = deadline - time.monotonic()
                if server.timeout <= 0:
                    raise KhotanError(
                        f"Nobody signed in within {seconds} s",
                        code="auth_failed",
                        hint="Try again, or raise --timeout.",
                    )
                server.handle_request()
        client.oauth_finish(name, f"http://127.0.0.1:{server.server_port}{server.answer}")
    done = {"ok": True, "plug": name, "signedIn": True}
    console.result(done, lambda: console.success(f"Plug {name} is signed in."))
