"""Query strings. Values without a faithful text form are rejected, because a changed filter returns wrong records."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from khotan_cli.errors import ParameterError
from khotan_cli.runtime.content.json_text import dump_json, require_finite

QueryArrays = Literal["repeat", "brackets", "comma"]
Pair = tuple[str, str]


def plain_query(query: Mapping[str, Any]) -> dict[str, Any]:
    """The query with models, sets, generators, dataclasses and dates as plain values, each read once.

    All pages and attempts then send the same values. Raises ParameterError for a value that has no JSON form.
    """
    return {str(name): _plain(value, str(name)) for name, value in query.items()}


def refuse_nulls(query: Mapping[str, Any], as_json: Collection[str] = ()) -> None:
    """Raises ParameterError for a parameter that is None in a mapping: omitting it could select other records.

    Parameters that are sent as JSON may be null.
    """
    for name, value in query.items():
        if value is None and name not in as_json:
            raise _unsupported(str(name), "is None")


def encode_query(query: Mapping[str, Any], arrays: QueryArrays = "repeat", as_json: Collection[str] = ()) -> str:
    """`a=1&b=x%20y`: everything but unreserved characters is percent-encoded (RFC 3986 3.4).

    A top-level None is omitted. Lists follow `arrays`; "comma" keeps the separating commas literal and encodes those
    inside of items (RFC 6570 3.2.8). Mappings become `a[b]`, and lists inside of them `a[b][]`, except with "comma". The
    parameters named in `as_json` are sent as one JSON text each.

    Raises ParameterError for a value that changes its meaning as text: None, a boolean or an empty collection inside
    a mapping, an empty list, a list of objects or lists, NaN, and text that is not valid Unicode.
    """
    pairs: list[Pair] = []
    for name, value in plain_query(query).items():
        if name in as_json:
            pairs.append((_quoted(name, name, "[]"), _quoted(dump_json(value).decode(), name)))
        elif value is not None:
            pairs += _pairs(_quoted(name, name, "[]"), name, value, arrays, nested=False)
    return "&".join(f"{name}={text}" for name, text in pairs)


def scalar_text(value: Any) -> str | None:
    """A value as text for a URL or form: true/false, ISO 8601 dates, enum values; None for None.

    Raises ParameterError for bytes that are not UTF-8, and for NaN and infinite numbers.
    """
    if isinstance(value, Enum):
        return scalar_text(value.value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise ParameterError("A bytes value is not valid UTF-8", hint="Pass text.") from None
    if isinstance(value, (float, Decimal)) and not math.isfinite(value):
        raise ParameterError(f"The number {value} has no standard text form", hint="Pass text.")
    return str(value)


def is_scalar(value: Any) -> bool:
    """Whether a value can be one text in a path, a query or a form."""
    return not isinstance(value, (Mapping, BaseModel, list, tuple, AbstractSet, Iterator))


def _pairs(written: str, name: str, value: Any, arrays: QueryArrays, *, nested: bool) -> list[Pair]:
    if isinstance(value, Mapping):
        if nested and not value:
            raise _unsupported(name, "is an empty mapping")
        return [
            pair
            for key, inner in value.items()
            for pair in _pairs(f"{written}[{_quoted(key, name)}]", f"{name}[{key}]", inner, arrays, nested=True)
        ]
    if isinstance(value, list):
        return _list_pairs(written, name, value, arrays, nested=nested)
    return [(written, _scalar(name, value, nested=nested))]


def _list_pairs(written: str, name: str, items: Sequence[Any], arrays: QueryArrays, *, nested: bool) -> list[Pair]:
    if not items:
        raise _unsupported(name, "is an empty list")
    if any(isinstance(item, (Mapping, list)) for item in items):
        raise _unsupported(name, "is a list of objects or lists")
    texts = [_scalar(f"{name}[{index}]", item, nested=nested) for index, item in enumerate(items)]
    if arrays == "comma":
        return [(written, ",".join(texts))]
    # A service that reads `a[b]` as an object reads a single `a[b]=1` as a text, not as a list.
    return [(f"{written}[]" if arrays == "brackets" or nested else written, text) for text in texts]


def _scalar(name: str, value: Any, *, nested: bool) -> str:
    if value is None:
        raise _unsupported(name, "is None")
    if nested and isinstance(value, bool):
        raise _unsupported(name, f"is the boolean {value}")
    try:
        text = scalar_text(value)
    except ParameterError as exc:
        raise ParameterError(f"Query parameter {name!r}: {exc.message}", hint=exc.hint) from None
    return _quoted(text or "", name)


def _unsupported(name: str, problem: str) -> ParameterError:
    top = name.partition("[")[0]
    return ParameterError(
        f"Query parameter {name!r} {problem}, which a query string cannot represent",
        hint="Omit the parameter, pass the text that the service expects, or declare the parameter as JSON: "
        f"query_json=[{top!r}].",
        details={"parameter": name},
    )


def _quoted(text: str, name: str, safe: str = "") -> str:
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:
        raise ParameterError(
            f"Query parameter {name!r} contains a lone surrogate, which UTF-8 cannot encode", hint="Correct the text."
        ) from None


def _plain(value: Any, name: str) -> Any:
    """The value as JSON values. Bytes stay bytes, and NaN is kept for the check that reports it."""
    if isinstance(value, Enum):
        return _plain(value.value, name)
    if value is None or isinstance(value, (str, bool, int, float, bytes, bytearray)):
        return value
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else float(value)
    if isinstance(value, BaseModel):
        dumped = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
        require_finite(dumped, value.model_dump(by_alias=True, exclude_unset=True))
        return dumped
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{name}[{key}]") for key, item in value.items()}
    if isinstance(value, AbstractSet):
        # Sets are unordered; a stable order makes equal calls send equal requests.
        return sorted((_plain(item, name) for item in value), key=str)
    if isinstance(value, (list, tuple, range, Iterator)):
        return [_plain(item, name) for item in value]
    try:
        return to_jsonable_python(value, by_alias=True)
    except (PydanticSerializationError, ValueError):
        raise ParameterError(
            f"Query parameter {name!r} is a {type(value).__name__}, which has no text form", hint="Pass text."
        ) from None
