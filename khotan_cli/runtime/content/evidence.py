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

from khotan_cli.runtime.content.json_text import NotJson, load_json
from khotan_cli.runtime.content.parsers import start_of
from khotan_cli.runtime.redaction.masker import masker_of

LONGEST = 300
"""Characters of an excerpt."""
_WORDS = (
    "message", "errordescription", "detail", "details", "longmessage", "title", "description", "reason", "error", "errors",
    "msg", "fault", "faultstring", "errormessage", "errordetails",
)  # fmt: skip
"""Members that hold words, the most telling first; compared in lower case and without `_`, `-` and a prefix such as `o:`."""
_PARTS = re.compile(r"error|fault|detail|issue|violation|invalid|problem|messages\Z")
"""Members that hold further reasons."""
_BY_FIELD = frozenset({"errors", "validationerrors", "fielderrors", "details", "invalidparams"})
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
        text = start_of(response, LONGEST * 20)
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
        if _only_by_field(value):
            yield from (f"{key}: {'; '.join(texts)}" for key, texts in list(value.items())[:10])
            return
        place = _place(value) if depth else ""
        by_name: dict[str, Any] = {}
        for name, inner in value.items():
            by_name.setdefault(_plain(name), inner)
        words = [text for name in _WORDS if (text := _words_of(by_name.get(name)))]
        for index, text in enumerate(words):
            yield f"{place}: {text}" if place and index == 0 else text
        yield from _parts(value, depth)


def _parts(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    """The words of the lists and objects inside of an object: those that are named like reasons, at any depth."""
    for name, inner in value.items():
        if isinstance(inner, Mapping) and not _PARTS.search(_plain(name)):
            if depth < _DEEPEST:
                yield from _parts(inner, depth + 1)
        elif isinstance(inner, list) and not _PARTS.search(_plain(name)):
            for item in inner[:10]:
                if isinstance(item, Mapping) and depth < _DEEPEST:
                    yield from _parts(item, depth + 1)
        elif isinstance(inner, Mapping) and (not _telling(inner) or (_plain(name) in _BY_FIELD and _by_field(inner))):
            yield from (f"{key}: {'; '.join(_said(item, depth + 1))}" for key, item in list(inner.items())[:10])
        elif isinstance(inner, (list, Mapping)) and not _words_of(inner):
            yield from _said(inner, depth + 1)


def _plain(name: Any) -> str:
    return str(name).rpartition(":")[2].lower().replace("_", "").replace("-", "")


def _words_of(value: Any) -> str:
    """A text, or the `value` of a text with its language (OData)."""
    if isinstance(value, Mapping) and len(value) <= 2:
        value = value.get("value")
    return value if isinstance(value, str) else ""


def _telling(value: Mapping[str, Any]) -> bool:
    """Whether an object is a reason, and not a map from fields to reasons."""
    return any(_plain(name) in _WORDS or _PARTS.search(_plain(name)) for name in value)


def _by_field(value: Mapping[str, Any]) -> bool:
    """Whether an object maps fields to texts or lists, though a field may be called `title`."""
    listed = any(isinstance(item, list) for item in value.values())
    return listed and all(isinstance(item, (str, list)) for item in value.values()) and "message" not in value


def _only_by_field(value: Mapping[str, Any]) -> bool:
    """Whether a document maps fields to lists of texts and holds nothing else, as Django REST framework answers."""
    lists = all(
        isinstance(item, list) and item and all(isinstance(text, str) for text in item) for item in value.values()
    )
    return bool(value) and lists and not all(_PARTS.search(_plain(name)) for name in value)


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
