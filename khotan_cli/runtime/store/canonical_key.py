"""Canonical keys: several parts as one unambiguous text that sorts like the parts.

Parts are joined with U+0001. U+0000, U+0001 and U+0002 in a part are escaped as U+0002 and the character plus 0x40. Texts then
compare by code point like the tuples of parts. A key of one ordinary part is that part.
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
    """Return the canonical text of a key. Raises UsageError if it is empty or a part is not a str or whole number."""
    parts = [key] if isinstance(key, (str, int)) else list(key)
    if not parts:
        raise UsageError("The key is empty", hint="Use a str, a whole number, or several of them.")
    return SEPARATOR.join([_part(part) for part in parts])


def decode_key(text: str) -> tuple[str, ...]:
    """Return the parts of a canonical text."""
    return tuple(_plain(part) for part in text.split(SEPARATOR))


def _part(part: object) -> str:
    if isinstance(part, bool) or not isinstance(part, (str, int)):
        raise UsageError(
            f"A key part must be a str or a whole number, not {type(part).__name__}",
            hint="Convert it, or remove it.",
        )
    text = str(part)
    if not text:
        raise UsageError("A key part is empty", hint="Skip the record, or set the part.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("A key part is not valid Unicode", hint="Remove the half surrogate pair from it.") from None
    return text.translate(_ESCAPED)


def _plain(part: str) -> str:
    if _ESCAPE not in part:
        return part
    head, *rest = part.split(_ESCAPE)
    return head + "".join(chr(ord(piece[0]) - 0x40) + piece[1:] for piece in rest)


def key_text(key: Sequence[Any]) -> str:
    """Return a key as text. Equal values of a column's type have equal texts."""
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
