"""localstripe on loopback only, keeping nothing on disk; its own start() listens everywhere and writes to a temp file."""

from __future__ import annotations

import sys

from aiohttp import web
from localstripe.resources import store
from localstripe.server import app

if __name__ == "__main__":
    store.dump_to_disk = lambda: None
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
