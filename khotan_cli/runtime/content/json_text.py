"""JSON as khotan reads and writes it everywhere: UTF-8, without NaN, without lone surrogates (RFC 8259)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
from pydantic_core import from_json

from khotan_cli.errors import ParameterError

BOM = b"\xef\xbb\xbf"
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRING_OR_LONG_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|[0-9]{19,}', re.DOTALL)
_DIGITS = bytes(ord("0") if chr(code).isdigit() and code < 128 else ord(" ") for code in range(256))
_LONG_NUMBER = b"0" * 19
"""Digits of an integer that 64 bits may not hold, each turned into 0: a search for it is ten times faster than an expression."""
_NO_NUMBERS = frozenset({"NaN", "-NaN", "sNaN", "-sNaN", "Infinity", "-Infinity"})
"""What a decimal that is no number looks like as text."""
_CONSTANT = re.compile(rb"-?\b(?:NaN|Infinity)\b")


class NotJson(ValueError):
    """The text is not JSON; the message says why, without quoting a value."""


def without_bom(content: bytes) -> bytes:
    """The content without a byte order mark, which a parser may ignore (RFC 8259 8.1)."""
    return content.removeprefix(BOM)


def load_json(content: bytes) -> Any:
    """The value of a JSON text, integers of any length included. Raises NotJson with the reason.

    Python itself refuses integers of more than 4,300 digits (`sys.set_int_max_str_digits`); so does this.
    """
    content = without_bom(content)
    long = _LONG_NUMBER in content.translate(_DIGITS)
    try:
        # orjson turns an integer above 64 bits into a float, and refuses one above a float's range: it judges the text with
        # such integers cut short, so that json only has to read it.
        value = orjson.loads(_STRING_OR_LONG_NUMBER.sub(_cut, content) if long else content)
    except orjson.JSONDecodeError as exc:
        raise NotJson(reason(content, str(exc))) from None
    if not long:
        return value
    try:
        return json.loads(content, parse_float=_finite)
    except ValueError as exc:
        raise NotJson(f"a number is too large: {exc}") from None


def _cut(found: re.Match[bytes]) -> bytes:
    text = found.group()
    return text if text.startswith(b'"') else text[:18]


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("it is beyond the range of a float")
    return number


def check_json(content: bytes) -> bytes:
    """The content without a byte order mark, for a parser that would accept NaN. Raises NotJson for NaN and Infinity."""
    content = without_bom(content)
    if (b"NaN" in content or b"Infinity" in content) and (found := _constant(content)):
        raise NotJson(_no_number(found))
    return content


def reason(content: bytes, fallback: str) -> str:
    """Why a text is not JSON, in words."""
    try:
        content.decode()
    except UnicodeDecodeError as exc:
        return f"byte {exc.start} of {len(content)} is not UTF-8, which JSON must be (RFC 8259 8.1)"
    found = _constant(content)
    if found:
        return _no_number(found)
    if "surrogate" in fallback or "hex escape" in fallback or _lone_surrogate(content):
        return "it contains a lone surrogate escape, which is not a character (RFC 8259 8.2)"
    return fallback


def dump_json(value: Any) -> bytes:
    """The JSON text of a value. Raises ParameterError for NaN, infinite numbers, lone surrogates and unknown types."""
    try:
        text = orjson.dumps(value)
    except TypeError as exc:
        if "64-bit" in str(exc):
            return _dump_long_numbers(value)
        why = "it contains a lone surrogate, which UTF-8 cannot encode" if "surrogates" in str(exc) else str(exc)
        raise ParameterError(f"The value cannot be written as JSON: {why}", hint="Correct the value.") from None
    # orjson writes NaN as null: only a text with a null can hide one.
    place = _not_finite(value, "") if b"null" in text else None
    if place is not None:
        raise _no_form(place)
    return text


def _dump_long_numbers(value: Any) -> bytes:
    """JSON with integers above 64 bits, which orjson does not write."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as exc:
        raise ParameterError(f"The value cannot be written as JSON: {exc}", hint="Correct the value.") from None


def require_finite(values: Any, plain: Any) -> None:
    """Raises ParameterError where JSON values hold null for a number that has no JSON form; `plain` are the Python values.

    Pydantic writes floats that are NaN or infinite as null, and such decimals as text.
    """
    if _has_null(values) and (place := _not_finite(plain, "")) is not None:
        raise _no_form(place)


def encodable(text: str, what: str) -> str:
    """The text. Raises ParameterError that names `what` where the text cannot be sent as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ParameterError(
            f"{what} contains a lone surrogate, which UTF-8 cannot encode", hint="Correct the text."
        ) from None
    return text


def _no_form(place: str) -> ParameterError:
    return ParameterError(
        f"The value{f' at {place!r}' if place else ''} is NaN or infinite, which JSON has no number for (RFC 8259 6)",
        hint="Send null or text instead.",
    )


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_null(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_null(item) for item in value)
    return value is None or (isinstance(value, str) and value in _NO_NUMBERS)


def _constant(content: bytes) -> str:
    found = _CONSTANT.search(_STRING.sub(b'""', content))
    return found.group().decode() if found else ""


def _no_number(name: str) -> str:
    return f"{name} is not a JSON number (RFC 8259 6)"


def _lone_surrogate(content: bytes) -> bool:
    try:
        from_json(content)
    except ValueError as exc:
        return "surrogate" in str(exc)
    return False


def _not_finite(value: Any, path: str) -> str | None:
    if isinstance(value, (float, Decimal)):
        return None if math.isfinite(value) else path
    if isinstance(value, Mapping):
        inner: Any = value.items()
    elif isinstance(value, (list, tuple)):
        inner = enumerate(value)
    else:
        return None
    for key, item in inner:
        found = _not_finite(item, f"{path}.{key}" if path else str(key))
        if found is not None:
            return found
    return None
