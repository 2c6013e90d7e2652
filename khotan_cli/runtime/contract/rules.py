"""The rules that Pydantic's error types stand for, in words that never quote what came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS: Mapping[str, str] = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "finite_number": "a finite number",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "matching the pattern {pattern}",
    "string_not_ascii": "only ASCII characters",
    "bytes_too_short": "at least {min_length} bytes",
    "bytes_too_long": "at most {max_length} bytes",
    "decimal_max_digits": "at most {max_digits} digits",
    "decimal_max_places": "at most {decimal_places} decimal places",
    "decimal_whole_digits": "at most {whole_digits} digits before the decimal point",
    "date_past": "in the past",
    "date_future": "in the future",
    "datetime_past": "in the past",
    "datetime_future": "in the future",
    "timezone_naive": "without a time zone",
    "timezone_aware": "with a time zone",
    "timezone_offset": "with a UTC offset of {tz_expected} seconds",
    "url_too_long": "at most {max_length} characters",
    "url_scheme": "with the scheme {expected_schemes}",
}
"""Pydantic's error types that stand for a declared bound; the values come from the error's context."""
_PLURALS = ("items", "characters", "bytes", "digits", "decimal places", "seconds")


def is_bound(error: str) -> bool:
    """Whether an error type stands for a declared bound: the JSON type is right, the value is outside the bound."""
    return error in _WORDS


def rule_words(error: Mapping[str, Any]) -> str:
    """The rule that one of Pydantic's errors names: `at most 3 items`. "" for other errors, whose texts may quote the value."""
    words = _WORDS.get(error["type"], "")
    try:
        text = words.format(**error.get("ctx", {}))
    except (KeyError, IndexError):
        return ""
    for plural in _PLURALS:
        text = text.replace(f" 1 {plural}", f" 1 {plural[:-1]}")
    return text
