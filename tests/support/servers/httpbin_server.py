"""httpbin on loopback, one thread per request."""

from __future__ import annotations

import sys

from httpbin import app
from werkzeug.serving import WSGIRequestHandler, make_server


class _KeepsOpen(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=_KeepsOpen).serve_forever()
