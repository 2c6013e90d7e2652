"""Three ways to page through a list, one per collection."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence

from khotan_cli.sandbox.data import Record

DEFAULT_LIMIT, MAX_LIMIT = 20, 100


class Invalid(ValueError):
    """A parameter is not acceptable. `param` names it."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


def by_offset(records: Sequence[Record], query: Mapping[str, str]) -> Record:
    """`limit` and `offset` → items, total, limit, offset."""
    limit, offset = _limit(query), _integer(query, "offset", 0, minimum=0)
    return {"items": list(records[offset : offset + limit]), "total": len(records), "limit": limit, "offset": offset}


def by_cursor(records: Sequence[Record], query: Mapping[str, str]) -> Record:
    """`limit` and an opaque `cursor` → orders, next_cursor (null after the last page)."""
    limit, start = _limit(query), _opened(query["cursor"]) if "cursor" in query else 0
    end = start + limit
    return {"orders": list(records[start:end]), "next_cursor": _cursor(end) if end < len(records) else None}


def by_keyset(records: Sequence[Record], query: Mapping[str, str]) -> Record:
    """`limit` and `starting_after`, the id of the last record seen → data, has_more."""
    limit, start = _limit(query), 0
    if "starting_after" in query:
        ids = [record["id"] for record in records]
        if query["starting_after"] not in ids:
            raise Invalid("starting_after", "starting_after is not the id of a record.")
        start = ids.index(query["starting_after"]) + 1
    return {"data": list(records[start : start + limit]), "has_more": start + limit < len(records)}


def _limit(query: Mapping[str, str]) -> int:
    return _integer(query, "limit", DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT)


def _integer(query: Mapping[str, str], name: str, default: int, *, minimum: int, maximum: int | None = None) -> int:
    text = query.get(name)
    if text is None:
        return default
    bounds = f"from {minimum} to {maximum}" if maximum is not None else f"of {minimum} or more"
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Invalid(name, f"{name} must be an integer {bounds}.")
    value = int(text)
    if value < minimum or (maximum is not None and value > maximum):
        raise Invalid(name, f"{name} must be an integer {bounds}.")
    return value


def _cursor(position: int) -> str:
    return urlsafe_b64encode(f"at:{position}".encode()).decode().rstrip("=")


def _opened(cursor: str) -> int:
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (Base64Error, UnicodeError, ValueError):
        text = ""
    head, _, number = text.partition(":")
    if head != "at" or not number.isdigit():
        raise Invalid("cursor", "cursor is not one that this API handed out.")
    return int(number)
