"""JSON → Python values without loss: integers of any length stay integers (RFC 8259 6 sets no bound)."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def loads(content: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError (orjson.JSONDecodeError) for what is not JSON."""
    value = orjson.loads(content)
    raw = content.encode() if isinstance(content, str) else content
    # orjson turns an integer above 64 bits into a float; it has judged the text, so that json only has to read it.
    return value if _LONG_NUMBER.search(raw) is None else json.loads(raw)
