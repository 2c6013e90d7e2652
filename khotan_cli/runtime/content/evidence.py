"""The service's own error text from a response, with secrets masked and its length limited."""

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

MAX_LENGTH = 300
"""Maximum number of characters of an excerpt."""
_WORDS = (
    "message", "errordescription", "detail", "details", "longmessage", "title", "description", "reason", "error", "errors",
    "msg", "fault", "faultstring", "errormessage", "errordetails",
)  # fmt: skip
"""Members with text, most informative first. Names are compared in lower case, without `_`, `-` and prefixes (`o:`)."""
_PARTS = re.compile(r"error|fault|detail|issue|violation|invalid|problem|messages\Z")
"""Members with further reasons."""
_BY_FIELD = frozenset({"errors", "validationerrors", "fielderrors", "details", "invalidparams"})
_FIELD_NAMES = ("field", "path", "loc", "pointer", "param", "name", "property", "location", "source")
_MAX_DEPTH = 6


def excerpt(response: httpx.Response, body: Any = None) -> str:
    """The service's own error text in a response; empty if there is none.

    `body` is the parsed error model, or the decoded body. The text is taken from the usual members: message, error,
    detail, errors (RFC 9457 3; RFC 6749 5.2). Other bodies are quoted from their start.
    """
    value = body.model_dump(mode="json", by_alias=True) if isinstance(body, BaseModel) else body
    if value is None or isinstance(value, bytes):
        with suppress(NotJson):
            value = load_json(response.content)
    texts = list(dict.fromkeys(filter(None, _texts(value, 0)))) if isinstance(value, (Mapping, list)) else []
    text = "; ".join(texts)
    if not text and isinstance(value, (Mapping, list)) and value:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    if not text and isinstance(value, str):
        text = value
    if not text and response.content and not isinstance(value, (Mapping, list)):
        text = start_of(response, MAX_LENGTH * 20)
    if "<" in text and re.search(r"<(!doctype|html|body|\w+[ >/])", text, re.IGNORECASE):
        text = html.unescape(re.sub(r"(?is)<(script|style|head)\b.*?</\1>|<[^>]*>", " ", text))
    return one_line(masker_of(response).text(text))


def one_line(text: str) -> str:
    """The text on one line, without control characters, for terminals."""
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text[:MAX_LENGTH] + ("…" if len(text) > MAX_LENGTH else "")


def _texts(value: Any, depth: int) -> Iterator[str]:
    """The error texts of a document, most informative first."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value[:10]:
            yield from _texts(item, depth + 1)
    elif isinstance(value, Mapping):
        if _only_by_field(value):
            yield from (f"{key}: {'; '.join(texts)}" for key, texts in list(value.items())[:10])
            return
        field = _field(value) if depth else ""
        by_name: dict[str, Any] = {}
        for name, inner in value.items():
            by_name.setdefault(_plain(name), inner)
        words = [text for name in _WORDS if (text := _words_of(by_name.get(name)))]
        for index, text in enumerate(words):
            yield f"{field}: {text}" if field and index == 0 else text
        yield from _parts(value, depth)


def _parts(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    """The error texts of lists and objects inside an object: those named like reasons, at any depth."""
    for name, inner in value.items():
        if isinstance(inner, Mapping) and not _PARTS.search(_plain(name)):
            if depth < _MAX_DEPTH:
                yield from _parts(inner, depth + 1)
        elif isinstance(inner, list) and not _PARTS.search(_plain(name)):
            for item in inner[:10]:
                if isinstance(item, Mapping) and depth < _MAX_DEPTH:
                    yield from _parts(item, depth + 1)
        elif isinstance(inner, Mapping) and (not _is_reason(inner) or (_plain(name) in _BY_FIELD and _by_field(inner))):
            yield from (f"{key}: {'; '.join(_texts(item, depth + 1))}" for key, item in list(inner.items())[:10])
        elif isinstance(inner, (list, Mapping)) and not _words_of(inner):
            yield from _texts(inner, depth + 1)


def _plain(name: Any) -> str:
    return str(name).rpartition(":")[2].lower().replace("_", "").replace("-", "")


def _words_of(value: Any) -> str:
    """A text, or the `value` of an OData text with a language."""
    if isinstance(value, Mapping) and len(value) <= 2:
        value = value.get("value")
    return value if isinstance(value, str) else ""


def _is_reason(value: Mapping[str, Any]) -> bool:
    """Whether an object is a reason, not a map from fields to reasons."""
    return any(_plain(name) in _WORDS or _PARTS.search(_plain(name)) for name in value)


def _by_field(value: Mapping[str, Any]) -> bool:
    """Whether an object maps fields to texts or lists, even if a field is named `title`."""
    listed = any(isinstance(item, list) for item in value.values())
    return listed and all(isinstance(item, (str, list)) for item in value.values()) and "message" not in value


def _only_by_field(value: Mapping[str, Any]) -> bool:
    """Whether a document only maps fields to lists of texts, as Django REST framework does."""
    lists = all(
        isinstance(item, list) and item and all(isinstance(text, str) for text in item) for item in value.values()
    )
    return bool(value) and lists and not all(_PARTS.search(_plain(name)) for name in value)


def _field(value: Mapping[str, Any]) -> str:
    """The field that an entry of `errors` is about; empty if it names none."""
    for name in _FIELD_NAMES:
        field = value.get(name)
        if isinstance(field, Mapping):
            field = field.get("pointer") or field.get("parameter")
        if isinstance(field, list) and field:
            return ".".join(map(str, field))
        if isinstance(field, (str, int)) and field != "":
            return str(field)
    return ""
