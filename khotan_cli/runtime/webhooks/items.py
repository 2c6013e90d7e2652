"""Extracts the items of a body that holds several events, each as its original JSON text. Does no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.content.json_path import dig

EACH = "*"
"""Path segment that stands for every element of a list."""
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
"""Numbers stay text: items are cut out, not parsed, and an integer may have any number of digits."""
_BLANKS = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class Item:
    """One item of a body. text: its original JSON. problem: why the path does not match it, or None."""

    text: str
    problem: str | None = None


def check_items(path: Any) -> None:
    """Raises ConfigError if the path is not a str or has an empty segment."""
    if not isinstance(path, str) or (path and not all(path.split("."))):
        raise ConfigError(
            f"Invalid items={path!r}: expected a path to a list",
            hint='Use a path such as "events" or "events.*.item", or "*" if the body itself is the list.',
        )


def split_items(content: bytes, path: str) -> list[Item] | None:
    """Return the items of a JSON document in order, or None if the document has no value at the path.

    path: dotted names; `*` stands for every element of a list, and a list at the end stands for its elements. An element
    that does not match the rest of the path becomes an item with a problem. Raises ValueError if the content is not JSON.
    """
    text = content.decode().strip(" \t\n\r")
    try:
        _DECODER.decode(text)
        return _split(text, path.split("."))
    except RecursionError:
        raise ValueError("The content is nested too deep") from None


def _split(text: str, names: list[str]) -> list[Item] | None:
    items = [Item(text)]
    inside_list = False
    for position, name in enumerate(names):
        children: list[Item] = []
        for item in items:
            parts = None if item.problem else _step(item.text, name)
            if parts is not None:
                children += [Item(part) for part in parts]
            elif inside_list:
                rest = ".".join(names[position:])
                children.append(item if item.problem else Item(item.text, f"The item has no value at {rest}"))
            else:
                return None
        inside_list |= name == EACH
        items = children
    if names[-1] == EACH:
        return items
    nested = [item if item.problem else _flat(item) for item in items]
    return [part for entry in nested for part in (entry if isinstance(entry, list) else [entry])]


def _step(text: str, name: str) -> list[str] | None:
    if name == EACH:
        return list(_elements(text)) if text.startswith("[") else None
    if not text.startswith("{"):
        return None
    value = None
    for key, member in _members(text):  # the last of several equal names wins, as in Python's json
        if key == name:
            value = member
    return None if value is None else [value]


def _flat(item: Item) -> Item | list[Item]:
    return [Item(part) for part in _elements(item.text)] if item.text.startswith("[") else item


def _elements(text: str) -> Iterator[str]:
    at = _after_blanks(text, 1)
    while text[at] != "]":
        _, end = _DECODER.raw_decode(text, at)
        yield text[at:end]
        at = _after_comma(text, end)


def _members(text: str) -> Iterator[tuple[str, str]]:
    at = _after_blanks(text, 1)
    while text[at] != "}":
        name, end = _DECODER.raw_decode(text, at)
        start = _after_blanks(text, _after_blanks(text, end) + 1)  # the colon
        _, end = _DECODER.raw_decode(text, start)
        yield name, text[start:end]
        at = _after_comma(text, end)


def _after_blanks(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    assert blanks is not None
    return blanks.end()


def _after_comma(text: str, at: int) -> int:
    at = _after_blanks(text, at)
    return _after_blanks(text, at + 1) if text[at] == "," else at


def first_item(document: Any, path: str) -> tuple[Any, list[str]]:
    """Return a document with items, and the path of its first item. A document without items is wrapped as the first item."""
    if not path:
        return document, []
    names = path.split(".")
    first = ["0" if name == EACH else name for name in names]
    if isinstance(dig(document, ".".join(first)), list) or EACH not in names:
        first.append("0")
    if dig(document, ".".join(first)) is None:
        for name in reversed(first):
            document = [document] if name == "0" else {name: document}
    return document, first
