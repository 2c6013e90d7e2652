"""Digests of each field that a system holds, so that a write of the same values is detected."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from khotan_cli.runtime.store.field_state import holds_value

_BYTES = 6
_MAX_INT = 2**63
"""orjson cannot serialize larger integers."""


def field_digests(record: Mapping[str, Any]) -> dict[str, str]:
    """Return a digest (12 hex digits) of each top-level field."""
    return {str(name): digest(value) for name, value in record.items()}


def digest(value: Any) -> str:
    """Return the digest of a JSON value. It does not depend on the order of keys; 1 and 1.0 are equal."""
    text = orjson.dumps(
        _plain(value), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=to_jsonable_python
    )
    return hashlib.blake2b(text, digest_size=_BYTES).hexdigest()


def holds(known: Mapping[str, str] | None, wanted: Mapping[str, str]) -> bool:
    """Whether a system is known to hold all wanted values. known: field state, see store/field_state.py."""
    return known is not None and bool(wanted) and all(holds_value(known.get(name), d) for name, d in wanted.items())


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return value if abs(value) < _MAX_INT else f"{value:x}"
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
