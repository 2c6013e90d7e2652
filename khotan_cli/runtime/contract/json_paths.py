"""Paths of a JSON document, collapsed over items, with statistics of the observed values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from khotan_cli.runtime.contract.scalars import Grade, Issue, kind_of

NOTHING = object()
"""Stands for the value of an absent key."""
MAX_VALUES = 3
_PLAIN = re.compile(r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*")
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_STEP = re.compile(r"\['(?:\\.|[^'\\])*'\]|\[[^\]]*\]|\.[^.\[]+")


def child(path: str, key: str | int) -> str:
    """JSONPath of a member or an item (RFC 9535 2.3.1, 2.5.1)."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if _PLAIN.fullmatch(key):
        return f"{path}.{key}"
    escaped = "".join(_ESCAPES.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in key)
    return f"{path}['{escaped}']"


@dataclass(slots=True)
class Fault:
    """One kind of difference at a path: its count, the JSON types of the values, and one example."""

    grade: Grade
    count: int = 0
    kinds: Counter[str] = field(default_factory=Counter[str])
    example: Any = NOTHING
    rules: list[str] = field(default_factory=list[str])
    """The broken rules; empty if the declared type describes them."""
    values: list[Any] = field(default_factory=list[Any])
    """A few of the values, for enums."""


@dataclass(slots=True, eq=False)
class PathStats:
    """Statistics of one path and declared type.

    `around`: the number of possible values (objects with that field, items); `present`: the number of actual ones.
    """

    path: str
    expected: str
    declared: bool = True
    required: bool = False
    secret: bool = False
    hides: bool = False
    """Whether everything below is secret too."""
    around: int = 0
    present: int = 0
    nulls: int = 0
    nullable: bool = False
    unseen: str = ""
    """The type of items that could not be checked because the array or map was always empty."""
    filled: bool = False
    faults: dict[Issue, Fault] = field(default_factory=dict[Issue, Fault])
    children: dict[Any, PathStats] = field(default_factory=dict[Any, "PathStats"])
    extras: int = 0
    accepts_any: int = 0
    """Number of values whose type accepts anything (`Any`)."""
    unjudged: int = 0
    """Number of values that the declared type does not judge; `why` is the reason."""
    why: str = ""
    parent: PathStats | None = None
    """The enclosing object, if its count is the number of possible values."""

    def leave_open(self, why: str) -> None:
        """Record a value that is not judged."""
        self.unjudged += 1
        self.why = why

    def add_fault(self, issue: Issue, grade: Grade, value: Any, rule: str = "") -> None:
        fault = self.faults.get(issue)
        if fault is None:
            fault = self.faults[issue] = Fault(grade)
        fault.count += 1
        if value is not NOTHING:
            fault.kinds[kind_of(value)] += 1
        if issue == "enum" and len(fault.values) < MAX_VALUES and value not in fault.values:
            fault.values.append(value)
        if fault.count == 1 or (grade == "breaking" and fault.grade != "breaking"):
            fault.grade, fault.example = grade, value
        if rule and rule not in fault.rules and len(fault.rules) < MAX_VALUES:
            fault.rules.append(rule)

    def every(self) -> Iterator[PathStats]:
        """These stats and all stats below."""
        waiting: list[PathStats] = [self]
        while waiting:
            stats = waiting.pop()
            yield stats
            waiting.extend(stats.children.values())


@lru_cache(maxsize=8192)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(_STEP.findall(path))


def related(path: str, other: str) -> bool:
    """Whether one collapsed path equals the other or is a prefix of it. A wildcard matches any key or index."""
    return all(
        a == b or "*" in (a.strip(".[]"), b.strip(".[]")) for a, b in zip(_steps(path), _steps(other), strict=False)
    )


def same(path: str, other: str) -> bool:
    """Whether two collapsed paths are equal. A wildcard matches any key or index."""
    return len(_steps(path)) == len(_steps(other)) and related(path, other)


def below(path: str, other: str) -> bool:
    """Whether a collapsed path equals the other or is below it."""
    return len(_steps(path)) >= len(_steps(other)) and related(path, other)
