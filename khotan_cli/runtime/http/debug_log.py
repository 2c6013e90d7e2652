"""`KHOTAN_DEBUG=1` logs every request and response of every plug, secrets masked, on the logger `khotan.plugs`."""

from __future__ import annotations

import logging
import os
import re
import sys

import httpx

from khotan_cli.runtime.redaction.masker import BULLETS, Masker

logger = logging.getLogger("khotan.plugs")
_MAX_BODY = 500
"""Maximum number of logged characters of a body."""
_TOKENS = (
    r"(?!(?:\w*(?:page|continuation|sync|cursor)_?token|token_?type))(?:[\w-]*(?:token|secret)|jwt|client_?assertion|password|"
    r"api_?key|device_?code|code_?verifier)"
)
"""Names of members, parameters and elements that hold tokens. Page tokens are not secret and are logged."""
_TOKEN_HEADER = re.compile(r"(?:token|secret|api-?key|session)\Z", re.IGNORECASE)
_IN_JSON = re.compile(rf'("(?:{_TOKENS})"\s*:\s*)"(?:[^"\\]|\\.)*"?', re.IGNORECASE)
_IN_FORM = re.compile(rf"((?:^|[?&#\s])(?:{_TOKENS})=)[^&#\s\"']+", re.IGNORECASE)
_IN_XML = re.compile(rf"(<(?:\w+:)?(?:{_TOKENS})(?:\s[^<>]*)?>)[^<]+", re.IGNORECASE)


def enabled() -> bool:
    """Whether requests are logged. Adds a stderr handler to the logger if the application configured none."""
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


def log_request(request: httpx.Request, masker: Masker, *, secret: bool = False) -> None:
    """Log a request. `secret`: it is a token request, of whose body only the size is logged."""
    headers = masker.headers(request.headers)
    body = _body(request.content, masker, secret=secret)
    logger.debug("→ %s %s %s%s", request.method, _text(str(request.url), masker), headers, body)


def log_response(response: httpx.Response, masker: Masker, milliseconds: float, *, secret: bool = False) -> None:
    """Log a response. `secret`: its body contains tokens not yet known to the masker, so only its size is logged."""
    body = _body(response.content, masker, secret=secret)
    headers = {
        name: BULLETS if _TOKEN_HEADER.search(name) else _text(value, masker)
        for name, value in masker.headers(response.headers).items()
    }
    logger.debug("← %s in %.0f ms %s%s", response.status_code, milliseconds, headers, body)


def log_failure(request: httpx.Request, error: Exception, masker: Masker) -> None:
    logger.debug("✗ %s %s: %s", request.method, _text(str(request.url), masker), masker.text(repr(error)))


def _text(text: str, masker: Masker) -> str:
    """The text with known secrets masked, and with the values of token-like members and parameters masked."""
    text = _IN_JSON.sub(lambda found: f'{found.group(1)}"{BULLETS}"', masker.text(text))
    text = _IN_XML.sub(lambda found: found.group(1) + BULLETS, text)
    return _IN_FORM.sub(lambda found: found.group(1) + BULLETS, text)


def _body(content: bytes, masker: Masker, *, secret: bool) -> str:
    if not content:
        return ""
    if secret:
        return f" ({len(content)} bytes, not shown: they contain tokens)"
    # Masked before it is cut, because a part of a secret would not be recognised.
    text = _text(content.decode("utf-8", "replace"), masker)
    return f" {text[:_MAX_BODY]}{'…' if len(text) > _MAX_BODY else ''}"
