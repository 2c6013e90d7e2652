"""`python -m khotan_cli.sandbox [--port N]`: serve on loopback; one JSON line on stdout when ready."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from khotan_cli.errors import KhotanError
from khotan_cli.sandbox.serve import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code: 4 where the port is taken."""
    parser = argparse.ArgumentParser(prog="python -m khotan_cli.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (default): any free one")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when stdin is closed, as a child should")
    options = parser.parse_args(arguments)
    try:
        serve(options.port, _ready, stop_with_stdin=options.stop_with_stdin)
    except KhotanError as exc:
        _say(exc.to_json())
        return exc.exit_code
    return 0


def _ready(url: str) -> None:
    _say({"ok": True, "url": url, "docs": f"{url}/docs", "openapi": f"{url}/openapi.json"})


def _say(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
