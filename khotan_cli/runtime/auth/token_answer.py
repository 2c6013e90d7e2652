"""Reads the responses of token endpoints: a token document, or the reason of a refusal. Tokens are never quoted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl

import httpx

from khotan_cli.runtime.content.codec import media_type
from khotan_cli.runtime.content.json_text import NotJson, load_json
from khotan_cli.runtime.redaction.masker import BULLETS

ExpiryUnit = Literal["seconds", "milliseconds", "absolute"]
EXPIRY_UNITS = get_args(ExpiryUnit)
_FORM = re.compile(r"[^=&\s]+=[^&\s]*(&[^=&\s]+=[^&\s]*)*\Z")
_ERROR_CODE = re.compile(r"[a-z][a-z0-9_.-]{0,60}\Z", re.IGNORECASE)
_ERROR_MEMBERS = frozenset({"error", "error_description", "error_uri", "state"})
"""Members of an error document (RFC 6749 5.2). A response with other members may contain a token."""
_CODES = ("code", "type", "status", "error")
_WORDS = ("error_description", "error_message", "errorMessage", "message", "detail", "description", "reason", "msg",
          "faultstring", "title")  # fmt: skip
_WORD = "[A-Za-z0-9+/=._~-]"
_OPAQUE = re.compile(rf"(?<!{_WORD})(?={_WORD}*\d)(?={_WORD}*[A-Za-z]){_WORD}{{8,}}|[A-Za-z]{{24,}}|\d{{12,}}")
"""A word that may be a token or part of one: mixed letters and digits, many letters, or many digits."""
_NUMBERED = re.compile(r"[A-Z]{2,8}[-_]?\d{2,8}\Z")
"""An error code such as `AADSTS7000215` (Microsoft identity platform, "Error codes"), which is not a token."""
_MAX_REASON = 200
"""Maximum number of characters of a reason."""
_ABSOLUTE_MILLISECONDS = 10**11
"""Epochs above it are in milliseconds: as seconds they would be after the year 5138."""


@dataclass(frozen=True)
class Refusal:
    """Why a token endpoint issued no token: an error code and a text, each empty if the response has none."""

    code: str = ""
    text: str = ""

    def __str__(self) -> str:
        """`: invalid_client (The client is unknown)`, or an empty text."""
        if self.code and self.text:
            return f": {self.code} ({self.text})"
        return f": {self.code or self.text}" if self.code or self.text else ""


def token_document(response: httpx.Response) -> Any:
    """The response as JSON, or as a form (GitHub's default); None if it is neither.

    It contains secrets and must never be quoted.
    """
    with suppress(NotJson):
        return load_json(response.content)
    text = response.content.decode("utf-8", "replace").strip()
    if not _FORM.match(text):
        return None
    fields = dict(parse_qsl(text))
    known = {"access_token", "refresh_token", "id_token", "error", "token_type"} & set(fields)
    return fields if known or media_type(response) == "application/x-www-form-urlencoded" else None


def is_error_document(document: Any) -> bool:
    """Whether the document contains only an error (RFC 6749 5.2), whatever its status."""
    return isinstance(document, Mapping) and bool(document.get("error")) and document.keys() <= _ERROR_MEMBERS


def refusal_of(response: httpx.Response) -> Refusal:
    """The service's reason: an OAuth 2 error document (RFC 6749 5.2), a nested `error` object, or a usual message member.

    Words that may be tokens are masked, and a response with an access_token is not quoted at all.
    """
    body = token_document(response)
    if not isinstance(body, Mapping) or "access_token" in body:
        return Refusal()
    error = body.get("error")
    nested = _nested(body)
    code = error if isinstance(error, str) else _first(nested, _CODES) or _first(body, ("code", "errorCode"))
    text = _first(nested, _WORDS) or _first(body, _WORDS)
    if isinstance(error, str) and not _ERROR_CODE.match(error):  # a sentence, or possibly a token
        code, text = "", text or (error if " " in error.strip() else "")
    # A service may put anything there, even a token.
    shown = code if _ERROR_CODE.match(code) and not _OPAQUE.search(code) else ""
    return Refusal(shown, _OPAQUE.sub(_shown, " ".join(text.split()))[:_MAX_REASON])


def _shown(word: re.Match[str]) -> str:
    return word.group() if _NUMBERED.match(word.group()) else BULLETS


def token_type(document: Any) -> str:
    """The `token_type` of a response (RFC 6749 7.1), empty if it has none. Possible tokens are masked."""
    value = document.get("token_type") if isinstance(document, Mapping) else None
    text = str(value) if value else ""
    return BULLETS if (not _ERROR_CODE.match(text) and text) or _OPAQUE.search(text) else text


def _nested(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object with the reason: in `error`, `fault` or `result`, or the first of a list such as `errors` (JSON:API)."""
    for name in ("error", "errors", "fault", "result"):
        value = body.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, Mapping) and (_first(value, _CODES) or _first(value, _WORDS)):
            return value
    return {}


def _first(document: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((document[name] for name in names if isinstance(document.get(name), str) and document[name]), "")


def expiry(value: Any, unit: ExpiryUnit, now: float) -> float | None:
    """Seconds since the epoch at which a token expires; None for an unusable or non-positive value."""
    if isinstance(value, str) and unit == "absolute":
        try:
            at = datetime.fromisoformat(value.replace("Z", "+00:00"))
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            pass  # not a date, but possibly a number in a string
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not 0 < number < float("inf"):
        return None
    if unit == "absolute":
        return number / 1000 if number > _ABSOLUTE_MILLISECONDS else number
    return now + (number / 1000 if unit == "milliseconds" else number)
