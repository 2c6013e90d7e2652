"""`khotan dev`: the development server."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from khotan_cli.console import console
from khotan_cli.errors import KhotanError
from khotan_cli.options import options

_HEADER_BYTES = 262_144
"""Limit of the server for a request's head. It is above the app's own limit, so that the app reports the error."""


def dev(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.")] = 8000,
    reload: Annotated[bool, typer.Option("--reload/--no-reload", help="Restart when a file changes.")] = True,
) -> None:
    """Serve the app with debugging enabled, and restart it when a file changes. The management API is at /api/khotan.

    Sets KHOTAN_ENV=development and KHOTAN_DEBUG=1 if they are unset.
    """
    os.environ.setdefault("KHOTAN_ENV", "development")
    os.environ.setdefault("KHOTAN_DEBUG", "1")
    from khotan_cli.settings import require_project

    settings = options.settings()
    require_project(settings)
    bound_port = _free_port(host, port)
    from khotan_cli.commands.project.dev_server import serve

    url = f"http://{host}:{bound_port}"
    document = {"ok": True, "url": url, "api": f"{url}/api/khotan", "app": settings.serve_import, "reload": reload}
    console.result(document, lambda: console.success(f"{settings.serve_import} at {url} · API at {url}/api/khotan"))
    sys.path.insert(0, str(settings.source_dir))
    try:
        serve(
            settings.serve_import,
            host=host,
            port=bound_port,
            reload=reload,
            reload_dirs=[str(settings.source_dir)] if reload else None,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            log_config=_logging(),
        )
    except SystemExit as exc:
        if exc.code:
            raise KhotanError(
                f"{settings.serve_import} could not be served", hint="See the log lines above.", next=["khotan doctor"]
            ) from None


def _free_port(host: str, port: int) -> int:
    """The port number to listen on. Raises KhotanError (port_in_use)."""
    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except OSError as exc:
        raise KhotanError(
            f"Cannot listen on {host}:{port}: {exc.strerror or exc}",
            code="port_in_use",
            hint="Give another --port, or --port 0 for a free one.",
            next=["khotan dev --port 0"],
        ) from None


def _logging() -> dict[str, object]:
    """uvicorn's logging configuration, with all output on stderr: stdout carries only the JSON document."""
    from copy import deepcopy

    from uvicorn.config import LOGGING_CONFIG

    config = deepcopy(LOGGING_CONFIG)
    for handler in config["handlers"].values():
        handler["stream"] = "ext://sys.stderr"
    config["loggers"]["khotan"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return dict(config)
