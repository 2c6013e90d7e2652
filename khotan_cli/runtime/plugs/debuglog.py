"""`KHOTAN_DEBUG=1` logs every request and response of every plug, secrets masked, on the logger `khotan.plugs`."""

from __future__ import annotations

import logging
import os
import sys

import httpx

from khotan_cli.runtime.plugs.masking import Masker

logger = logging.getLogger("khotan.plugs")
_SHOWN_BODY = 500
"""Characters of a body that are logged."""


def enabled() -> bool:
    """Whether requests are logged; gives the logger a handler on stderr where the application set none up."""
    if os.environ.get("KHOTAN_DEBUG", "").lower() not in ("1", "true", "yes", "on"):
        return False
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    if logger.getEffectiveLevel() > logging.DEBUG:
        logger.setLevel(logging.DEBUG)
    return True


def log_request(request: httpx.Request, masker: Masker) -> None:
    headers = masker.headers(request.headers)
    logger.debug("→ %s %s %s%s", request.method, masker.text(str(request.url)), headers, _body(request.content, masker))


def log_response(response: httpx.Response, masker: Masker, milliseconds: float) -> None:
    body = _body(response.content, masker)
    headers = masker.headers(response.headers)
    logger.debug("← %s in %.0f ms %s%s", response.status_code, milliseconds, headers, body)


def log_failure(request: httpx.Request, error: Exception, masker: Masker) -> None:
    logger.debug("✗ %s %s: %s", request.method, masker.text(str(request.url)), masker.text(repr(error)))


def _body(content: bytes, masker: Masker) -> str:
    if not content:
        return ""
    # Mask before cutting: a secret that is cut in two would no longer be recognised.
    text = masker.text(content.decode("utf-8", "replace"))
    return f" {text[:_SHOWN_BODY]}{'…' if len(text) > _SHOWN_BODY else ''}"
