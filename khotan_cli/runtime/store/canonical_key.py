"""Canonical keys: several parts as one text, unambiguous, and sorted as the parts are.

Parts are joined by U+0001; where a part holds U+0000, U+0001 or U+0002 it is escaped as U+0002 and the character plus
0x40. Texts compare by code point then as the tuples of parts do. A key of one ordinary part is that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import orjson

from khotan_cli.errors import UsageError

SEPARATOR = "\x01"
_ESCAPE = "\x02"
_ESCAPED = str.maketrans({char: _ESCAPE + chr(ord(char) + 0x40) for char in "\x00\x01\x02"})

KeyPart = str | int
Key = KeyPart | Sequence[KeyPart]


def encode_key(key: Key) -> str:
    """The canonical text of a key. Raises UsageError for one that is empty, or has a part that is no text or whole number."""
    parts = [key] if isinstance(key, (str, int)) else list(key)
    if not parts:
        raise UsageError("A key is empty", hint="Give a text, a whole number, or several of them.")
    return SEPARATOR.join([_part(part) for part in parts])


def decode_key(text: str) -> tuple[str, ...]:
    """The parts of a canonical text."""
    return tuple(_plain(part) for part in text.split(SEPARATOR))


def _part(part: object) -> str:
    if isinstance(part, bool) or not isinstance(part, (str, int)):
        raise UsageError(
            f"A part of a key is {type(part).__name__}, not a text or a whole number",
            hint="Convert it, or leave it out.",
        )
    text = str(part)
    if not text:
        raise UsageError("A part of a key is empty", hint="Leave the record out, or give the part a value.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("A part of a key is not valid Unicode", hint="It holds half a character.") from None
    return text.translate(_ESCAPED)


def _plain(part: str) -> str:
    if _ESCAPE not in part:
        return part
    head, *rest = part.split(_ESCAPE)
    return head + "".join(chr(ord(piece[0]) - 0x40) + piece[1:] for piece in rest)


def key_text(key: Sequence[Any]) -> str:
    """A key as text: equal values of a column's type have equal texts."""
    if len(key) == 1 and isinstance(key[0], (str, int)) and not isinstance(key[0], (bool, Enum)):
        return str(key[0])
    return orjson.dumps([_text_of(part) for part in key], default=str).decode()


def _text_of(part: Any) -> Any:
    if isinstance(part, Enum):
        return part.value
    if isinstance(part, datetime):
        return part.replace(tzinfo=UTC) if part.tzinfo is None else part.astimezone(UTC)
    if isinstance(part, Decimal):
        return format(part.normalize(), "f")
    return part
