"""Reads and writes JSON: UTF-8, without NaN and lone surrogates (RFC 8259)."""

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
"""An integer that may exceed 64 bits, with each digit replaced by 0. Searching for it is 10 times faster than a regex."""
_NO_NUMBERS = frozenset({"NaN", "-NaN", "sNaN", "-sNaN", "Infinity", "-Infinity"})
"""The text forms of decimals that are not numbers."""
_CONSTANT = re.compile(rb"-?\b(?:NaN|Infinity)\b")


class NotJson(ValueError):
    """The text is not JSON. The message gives the reason, without quoting a value."""


def without_bom(content: bytes) -> bytes:
    """The content without a byte order mark, which a parser may ignore (RFC 8259 8.1)."""
    return content.removeprefix(BOM)


def load_json(content: bytes) -> Any:
    """The value of a JSON text, with integers of any length. Raises NotJson with the reason.

    Integers of more than 4,300 digits are rejected, as by Python itself (`sys.set_int_max_str_digits`).
    """
    content = without_bom(content)
    long = _LONG_NUMBER in content.translate(_DIGITS)
    try:
        # orjson turns integers above 64 bits into floats, and rejects those above a float's range. So it validates the
        # text with such integers cut short, and json only has to read it.
        value = orjson.loads(_STRING_OR_LONG_NUMBER.sub(_cut, content) if long else content)
    except orjson.JSONDecodeError as exc:
        raise NotJson(reason(content, str(exc))) from None
    if not long:
        return value
    try:
        return json.loads(content, parse_float=_finite)
    except ValueError as exc:
        raise NotJson(f"a number is too large: {exc}") from None


def _cut(match: re.Match[bytes]) -> bytes:
    text = match.group()
    return text if text.startswith(b'"') else text[:18]


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("it is beyond the range of a float")
    return number


def check_json(content: bytes) -> bytes:
    """The content without a byte order mark, for a parser that would accept NaN. Raises NotJson for NaN and Infinity."""
    content = without_bom(content)
    if (b"NaN" in content or b"Infinity" in content) and (constant := _constant(content)):
        raise NotJson(_not_a_number(constant))
    return content


def reason(content: bytes, fallback: str) -> str:
    """Why a text is not JSON."""
    try:
        content.decode()
    except UnicodeDecodeError as exc:
        return f"byte {exc.start} of {len(content)} is not UTF-8, which JSON must be (RFC 8259 8.1)"
    constant = _constant(content)
    if constant:
        return _not_a_number(constant)
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
        problem = "it contains a lone surrogate, which UTF-8 cannot encode" if "surrogates" in str(exc) else str(exc)
        raise ParameterError(f"The value cannot be written as JSON: {problem}", hint="Correct the value.") from None
    # orjson writes NaN as null, so only a text with a null can contain one.
    location = _not_finite(value, "") if b"null" in text else None
    if location is not None:
        raise _not_finite_error(location)
    return text


def _dump_long_numbers(value: Any) -> bytes:
    """JSON with integers above 64 bits, which orjson does not write."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as exc:
        raise ParameterError(f"The value cannot be written as JSON: {exc}", hint="Correct the value.") from None


def require_finite(values: Any, plain: Any) -> None:
    """Raises ParameterError if JSON values contain null for a NaN or infinite number. `plain` are the Python values.

    Pydantic writes NaN and infinite floats as null, and such decimals as text.
    """
    if _has_null(values) and (location := _not_finite(plain, "")) is not None:
        raise _not_finite_error(location)


def encodable(text: str, what: str) -> str:
    """The text itself. Raises ParameterError, naming `what`, if it cannot be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ParameterError(
            f"{what} contains a lone surrogate, which UTF-8 cannot encode", hint="Correct the text."
        ) from None
    return text


def _not_finite_error(location: str) -> ParameterError:
    return ParameterError(
        f"The value{f' at {location!r}' if location else ''} is NaN or infinite, which JSON cannot represent (RFC 8259 6)",
        hint="Send null or text instead.",
    )


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_null(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_null(item) for item in value)
    return value is None or (isinstance(value, str) and value in _NO_NUMBERS)


def _constant(content: bytes) -> str:
    match = _CONSTANT.search(_STRING.sub(b'""', content))
    return match.group().decode() if match else ""


def _not_a_number(name: str) -> str:
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
        location = _not_finite(item, f"{path}.{key}" if path else str(key))
        if location is not None:
            return location
    return None
