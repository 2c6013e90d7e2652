"""Takes the items out of a body that holds several events, each as it is written. Sans-IO."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.content.json_path import dig

EACH = "*"
"""In a path: every element of a list."""
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
"""Numbers stay text: an item is cut out, not read, and an integer may have any number of digits."""
_BLANKS = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class Item:
    """One item of a body. text: its JSON as it is written. problem: why it is not what the path leads to."""

    text: str
    problem: str | None = None


def check_items(path: Any) -> None:
    """Raises ConfigError for what is no text, and for a path with an empty segment."""
    if not isinstance(path, str) or (path and not all(path.split("."))):
        raise ConfigError(
            f"items={path!r} is not a path to a list",
            hint='Like "events", "events.*.item", or "*" where the body itself is the list.',
        )


def split_items(content: bytes, path: str) -> list[Item] | None:
    """The items of a JSON document, in their order. None where the document has nothing at the path.

    path: dotted names; `*` stands for every element of a list, and a list at the end stands for its elements. An element
    that lacks what the path goes on with is an item of its own, with a problem. Raises ValueError where the content is not JSON.
    """
    text = content.decode().strip(" \t\n\r")
    try:
        _DECODER.decode(text)
        return _split(text, path.split("."))
    except RecursionError:
        raise ValueError("The content is nested too deep") from None


def _split(text: str, names: list[str]) -> list[Item] | None:
    found = [Item(text)]
    inside = False
    for position, name in enumerate(names):
        reached: list[Item] = []
        for item in found:
            parts = None if item.problem else _step(item.text, name)
            if parts is not None:
                reached += [Item(part) for part in parts]
            elif inside:
                where = ".".join(names[position:])
                reached.append(item if item.problem else Item(item.text, f"The item has nothing at {where}"))
            else:
                return None
        inside |= name == EACH
        found = reached
    if names[-1] == EACH:
        return found
    lists = [item if item.problem else _flat(item) for item in found]
    return [part for one in lists for part in (one if isinstance(one, list) else [one])]


def _step(text: str, name: str) -> list[str] | None:
    if name == EACH:
        return list(_elements(text)) if text.startswith("[") else None
    if not text.startswith("{"):
        return None
    value = None
    for key, member in _members(text):  # of a repeated name the last counts, as for every JSON reader in Python
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
    found = _BLANKS.match(text, at)
    assert found is not None
    return found.end()


def _after_comma(text: str, at: int) -> int:
    at = _after_blanks(text, at)
    return _after_blanks(text, at + 1) if text[at] == "," else at


def first_item(document: Any, path: str) -> tuple[Any, list[str]]:
    """A document with items, and where its first one is. One that has no items yet is taken for an item and put into one."""
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
