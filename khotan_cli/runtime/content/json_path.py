"""Paths into JSON documents: `paging.next`, `pages.0.id`, `@odata\\.nextLink`, or a tuple of keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, Final

Path = str | tuple[str | int, ...]
"""Keys joined by dots, where `\\.` is a dot inside a key; or a tuple of unescaped keys."""

_SEPARATOR = re.compile(r"(?<!\\)\.")


class Absence(Enum):
    """Why a document has no value at a path."""

    ABSENT = "is absent"
    """The last object on the path has no such key, or the list is too short."""
    BEHIND_NULL = "is behind a null"
    """A value before the end of the path is null."""


ABSENT: Final = Absence.ABSENT
BEHIND_NULL: Final = Absence.BEHIND_NULL


class NotAContainer(Exception):
    """A path continues below a value that is neither an object nor null. `at`: the path of that value."""

    def __init__(self, at: str, value: Any) -> None:
        super().__init__(f"{at!r} is {type_name(value)}")
        self.at, self.value = at, value


def path_keys(path: Path) -> tuple[str, ...]:
    """The keys of a path. Raises ValueError for an empty path or an empty key."""
    return _keys(path) if isinstance(path, str) else _checked(path, tuple(str(key) for key in path))


@lru_cache(maxsize=1024)
def _keys(path: str) -> tuple[str, ...]:
    return _checked(path, tuple(key.replace("\\.", ".") for key in _SEPARATOR.split(path)))


def _checked(path: Path, keys: tuple[str, ...]) -> tuple[str, ...]:
    if not keys or not all(keys):
        raise ValueError(f"Invalid path {path!r}: a key is empty")
    return keys


def path_text(path: Path | Sequence[str]) -> str:
    """A path as text, dots inside keys escaped."""
    return path if isinstance(path, str) else ".".join(str(key).replace(".", "\\.") for key in path)


def value_at(document: Any, path: Path) -> Any:
    """The value at a path, or an `Absence`. Raises NotAContainer if a value on the path cannot have keys."""
    keys = path_keys(path)
    value = document
    for depth, key in enumerate(keys):
        if isinstance(value, Mapping):
            if key not in value:
                return ABSENT
            value = value[key]
        elif value is None:
            return BEHIND_NULL
        elif isinstance(value, list) and _is_index(key):
            if not -len(value) <= int(key) < len(value):
                return ABSENT
            value = value[int(key)]
        else:
            raise NotAContainer(path_text(keys[:depth]), value)
    return value


def dig(document: Any, path: Path) -> Any:
    """The value at a path, or None if there is none for any reason."""
    try:
        value = value_at(document, path)
    except NotAContainer:
        return None
    return None if isinstance(value, Absence) else value


def type_name(value: Any) -> str:
    """The JSON type of a value, for messages."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    names = {
        bool: "a boolean",
        str: "a string",
        list: "a list",
        int: "a number",
        float: "a number",
        bytes: "binary data",
    }
    return names.get(type(value), type(value).__name__)


def _is_index(key: str) -> bool:
    return key.lstrip("-").isdigit()
