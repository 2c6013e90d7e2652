"""Example values of a contract report: short, on one line, without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from khotan_cli.runtime.redaction.masker import BULLETS, Masker

LENGTH = 80
_WIDTH, _DEPTH = 8, 4
_SENSITIVE = re.compile(
    r"(^|[._\-'])(pass(word|wd|phrase)?|secret|token|api[_-]?key|private[_-]?key|authorization|credentials?|cvc|cvv|ssn)'?\]?$"
    r"|[a-z](Password|Secret|Token|ApiKey|PrivateKey)'?\]?$",
)
"""Names of keys whose values are never shown."""


def is_sensitive(name: str) -> bool:
    """Whether a key, or the last key of a JSONPath, has a secret-like name."""
    return bool(_SENSITIVE.search(name) or _SENSITIVE.search(name.lower()))


def example_text(value: Any, path: str, masker: Masker, *, secret: bool = False) -> str:
    """A value as JSON, cut to 80 characters."""
    if value is not None and (secret or is_sensitive(path)):
        return f'"{BULLETS}"'
    text = json.dumps(masker.value(_excerpt(value, masker, 0)), ensure_ascii=False)
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "…"


def value_text(value: Any, path: str, masker: Masker, *, secret: bool = False) -> str:
    """A scalar as shown in findings: `'paid'`, `3`."""
    if secret or is_sensitive(path):
        return BULLETS
    if not isinstance(value, str):
        return json.dumps(value)
    text = masker.text(value)
    return repr(text if len(text) <= LENGTH // 2 else text[: LENGTH // 2 - 1] + "…")


def _excerpt(value: Any, masker: Masker, depth: int) -> Any:
    """The part of a value that an example needs, so that large values are not copied."""
    if isinstance(value, str):
        return masker.text(value)[
            : LENGTH + 1
        ]  # masked before it is cut, because a part of a secret would not be recognised
    if isinstance(value, Mapping):
        if depth >= _DEPTH:
            return {}
        return {
            key: BULLETS if inner is not None and is_sensitive(key) else _excerpt(inner, masker, depth + 1)
            for key, inner in list(value.items())[:_WIDTH]
        }
    if isinstance(value, list):
        return [_excerpt(item, masker, depth + 1) for item in value[:_WIDTH]] if depth < _DEPTH else []
    return value
