"""Reads request data from an ASGI scope."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

from khotan_cli.runtime.user_traceback import user_location

if TYPE_CHECKING:
    from starlette.types import Scope

logger = logging.getLogger("khotan.api")


def raw_path(scope: Scope) -> str:
    """The whole path, percent-encoded, without the query."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.decode("latin-1").partition("?")[0]


def path_below(scope: Scope) -> str:
    """The path below the mount, percent-encoded as sent, so that an encoded slash belongs to its segment."""
    root: str = scope.get("root_path", "")
    raw = raw_path(scope)
    for known in (quote(root), root):
        if raw.startswith(known):
            return raw[len(known) :] or "/"
    return quote(scope["path"].removeprefix(root)) or "/"


def log_unexpected(scope: Scope, exc: Exception) -> None:
    """Log an uncaught exception by its type and location, without its message."""
    where = user_location(exc) or "an unknown location"
    logger.error("%s %s raised %s at %s", scope["method"], scope["path"], type(exc).__name__, where)
