"""What a service says in an answer, as evidence for an error: its own words, secrets masked, of bounded length."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
import orjson
from pydantic import BaseModel

from khotan_cli.runtime.plugs.jsontext import NotJson, load_json
from khotan_cli.runtime.plugs.masking import masker_of

LONGEST = 300
"""Characters of an excerpt."""
_WORDS = ("message", "error_description", "detail", "details", "title", "description", "reason", "error", "msg", "fault",
          "faultstring", "Message", "error_message", "errorMessage")  # fmt: skip
_LISTS = ("errors", "error", "detail", "details", "issues", "violations", "invalid-params")
_PLACES = ("field", "path", "loc", "pointer", "param", "name", "property", "location", "source")
_DEEPEST = 6


def excerpt(response: httpx.Response, body: Any = None) -> str:
    """The service's own words in an answer; empty where it says nothing.

    `body` is the parsed error model, or what the body decoded to. The usual members are looked for: message, error,
    detail, errors (RFC 9457 3; RFC 6749 5.2). Any other body is quoted from its start.
    """
    value = body.model_dump(mode="json", by_alias=True) if isinstance(body, BaseModel) else body
    if value is None or isinstance(value, bytes):
        with suppress(NotJson):
            value = load_json(response.content)
    said = list(dict.fromkeys(filter(None, _said(value, 0)))) if isinstance(value, (Mapping, list)) else []
    text = "; ".join(said)
    if not text and isinstance(value, (Mapping, list)) and value:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    if not text and isinstance(value, str):
        text = value
    if not text and response.content and not isinstance(value, (Mapping, list)):
        text = response.content[: LONGEST * 20].decode(response.charset_encoding or "utf-8", "replace")
    if "<" in text and re.search(r"<(!doctype|html|body|\w+[ >/])", text, re.IGNORECASE):
        text = html.unescape(re.sub(r"(?is)<(script|style|head)\b.*?</\1>|<[^>]*>", " ", text))
    return one_line(masker_of(response).text(text))


def one_line(text: str) -> str:
    """One line without control characters: an error is shown in terminals."""
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text[:LONGEST] + ("…" if len(text) > LONGEST else "")


def _said(value: Any, depth: int) -> Iterator[str]:
    """The words of a document, the most telling first."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value[:10]:
            yield from _said(item, depth + 1)
    elif isinstance(value, Mapping):
        place = _place(value) if depth else ""
        words = [value[name] for name in _WORDS if isinstance(value.get(name), str) and value[name]]
        for index, text in enumerate(words):
            yield f"{place}: {text}" if place and index == 0 else text
        for name in (*_LISTS, "fault", "error"):
            inner = value.get(name)
            if isinstance(inner, list) or (isinstance(inner, Mapping) and _telling(inner)):
                yield from _said(inner, depth + 1)
            elif isinstance(inner, Mapping):
                yield from (f"{key}: {'; '.join(_said(item, depth + 1))}" for key, item in list(inner.items())[:10])


def _telling(value: Mapping[str, Any]) -> bool:
    return any(name in value for name in (*_WORDS, *_LISTS))


def _place(value: Mapping[str, Any]) -> str:
    """Which field an entry of `errors` is about."""
    for name in _PLACES:
        found = value.get(name)
        if isinstance(found, Mapping):
            found = found.get("pointer") or found.get("parameter")
        if isinstance(found, list) and found:
            return ".".join(map(str, found))
        if isinstance(found, (str, int)) and found != "":
            return str(found)
    return ""
