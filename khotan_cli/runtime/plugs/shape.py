"""The observed side of a contract: a walk through a response, collapsed over the items of arrays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from khotan_cli.runtime.plugs.schema import NAMES, Declared, Schema, fits_format, kind_of

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_DEPTH = 100
"""Levels that are walked; what lies deeper counts as unchecked."""
NOTHING = object()


@dataclass
class Place:
    """What was seen at one path: how many values, of which JSON types, and what was wrong with how many.

    `seen` counts the objects or arrays around it; `expected` is the declared type in words, "" where none is.
    """

    expected: str = ""
    seen: int = 0
    present: int = 0
    kinds: Counter[str] = field(default_factory=Counter[str])
    wrong: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, Any] = field(default_factory=dict[str, Any])
    extra: str = ""
    """For an undeclared key: "ignore", "allow" or "forbid", as the model's config says."""
    required: bool = False
    nullable: bool = False

    def blame(self, issue: str, value: Any) -> None:
        self.wrong[issue] += 1
        self.examples.setdefault(issue, value)

    def actual(self) -> str:
        """The observed types in words: `string`, or `string ×3, null ×1` where they are mixed."""
        if len(self.kinds) == 1 and self.present == self.seen:
            return next(iter(self.kinds))
        parts = [f"{kind} ×{count}" for kind, count in self.kinds.most_common()]
        if self.seen > self.present:
            parts.append(f"absent ×{self.seen - self.present}")
        return ", ".join(parts) or "absent"


def child(path: str, key: str) -> str:
    """JSONPath of a member (RFC 9535 2.3.1)."""
    if _PLAIN.fullmatch(key):
        return f"{path}.{key}"
    escaped = key.replace("\\", "\\\\").replace("'", "\\'")
    return f"{path}['{escaped}']"


class Walk:
    """Compares every value with what is declared for its place. `places` maps collapsed JSONPaths to what was seen."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self.places: dict[str, Place] = {}
        self.unchecked: set[str] = set()

    def visit(self, schema: Schema, value: Any, path: str = "$", depth: int = 0) -> int:
        """Walk a value; returns how many things are wrong with it."""
        members = self._declared.members(schema)
        place = self._place(path, schema)
        place.nullable = any(member.get("type") == "null" for member in members)
        place.present += 1
        place.kinds[kind_of(value)] += 1
        if depth > MAX_DEPTH:
            self.unchecked.add(path)
            return 0
        member = self._choose(members, value, depth, schema)
        if member is None:
            place.blame("type_mismatch", value)
            return 1
        issue = leaf_issue(member, value)
        if issue:
            place.blame(issue, value)
            return 1
        if isinstance(value, dict) and member.get("type") == "object":
            return self._object(member, value, path, depth)
        if isinstance(value, list) and member.get("type") == "array":
            return self._array(member, value, path, depth)
        return 0

    def _place(self, path: str, schema: Schema) -> Place:
        place = self.places.get(path)
        if place is None:
            place = self.places[path] = Place(self._declared.describe(schema))
        return place

    def _object(self, schema: Schema, value: Mapping[str, Any], path: str, depth: int) -> int:
        properties: Mapping[str, Schema] = schema.get("properties", {})
        required = schema.get("required", ())
        wrong, known = 0, set[str]()
        for key, inner in properties.items():
            names = inner.get(NAMES, (key,))
            found = next((name for name in names if name in value), None)
            known.update(names)
            below = child(path, found or key)
            place = self._place(below, inner)
            place.seen += 1
            place.required = key in required
            if found is not None:
                wrong += self.visit(inner, value[found], below, depth + 1)
            elif place.required:
                place.blame("missing", NOTHING)
                wrong += 1
        others = schema.get("additionalProperties")
        if isinstance(others, Mapping) or (others is True and not properties):
            return wrong + self._map(others, value, known, path, depth)
        policy = {True: "allow", False: "forbid"}.get(others, "ignore") if isinstance(others, bool) else "ignore"
        if "properties" not in schema and others is None:
            return wrong  # a bare `dict` or `object` declares nothing about its keys
        for key in value:
            if key not in known:
                wrong += self._extra(child(path, key), value[key], policy)
        return wrong

    def _extra(self, path: str, value: Any, policy: str) -> int:
        place = self.places.setdefault(path, Place())
        place.present += 1
        place.kinds[kind_of(value)] += 1
        place.extra = policy
        place.blame("extra", value)
        return 1 if policy == "forbid" else 0

    def _map(self, schema: Any, value: Mapping[str, Any], known: set[str], path: str, depth: int) -> int:
        """The values of a mapping, collapsed like those of an array."""
        if not isinstance(schema, Mapping) or not schema:
            return 0
        wrong = 0
        for key, inner in value.items():
            if key not in known:
                below = f"{path}.*"
                self._place(below, schema).seen += 1
                wrong += self.visit(schema, inner, below, depth + 1)
        return wrong

    def _array(self, schema: Schema, value: list[Any], path: str, depth: int) -> int:
        prefix, rest = schema.get("prefixItems", ()), schema.get("items")
        wrong = 0
        if not value and rest:
            self.unchecked.add(f"{path}[*]")
        for index, item in enumerate(value):
            inner = prefix[index] if index < len(prefix) else rest
            if isinstance(inner, Mapping):
                below = f"{path}[{index}]" if index < len(prefix) else f"{path}[*]"
                self._place(below, inner).seen += 1
                wrong += self.visit(inner, item, below, depth + 1)
        return wrong

    def _choose(self, members: list[Schema], value: Any, depth: int, union: Schema) -> Schema | None:
        """The member of a union that a value is judged by: of its JSON type, and with the fewest things wrong."""
        fitting = [member for member in members if fits_kind(member, value)]
        if len(fitting) <= 1:
            return fitting[0] if fitting else None
        tagged = self._by_discriminator(union, value)
        if tagged is not None:
            return tagged

        def faults(member: Schema) -> int:
            if leaf_issue(member, value):
                return 1_000_000
            trial = Walk(self._declared)
            wrong = trial.visit(member, value, "$", depth + 1) * 1000
            return wrong + sum(1 for place in trial.places.values() if place.extra)

        return min(fitting, key=faults)

    def _by_discriminator(self, union: Schema, value: Any) -> Schema | None:
        found = self._declared.resolve(union).get("discriminator")
        if not isinstance(found, Mapping) or not isinstance(value, Mapping):
            return None
        reference = found.get("mapping", {}).get(str(value.get(found.get("propertyName", ""))))
        return self._declared.resolve({"$ref": reference}) if reference else None


def fits_kind(schema: Schema, value: Any) -> bool:
    """Whether a value has the JSON type that a (resolved, single) schema asks for."""
    if "const" in schema or "enum" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        return any(kind_of(value) == kind_of(one) for one in allowed)
    wanted, kind = schema.get("type"), kind_of(value)
    if wanted is None or wanted == kind:
        return True
    if wanted == "number":
        return kind == "integer"
    return wanted == "integer" and isinstance(value, float) and value.is_integer()


def leaf_issue(schema: Schema, value: Any) -> str | None:
    """`enum` or `format` where a value of the right JSON type is not one that is declared."""
    if "const" in schema or "enum" in schema:
        allowed = schema.get("enum", [schema.get("const")])
        return None if any(value == one and kind_of(value) == kind_of(one) for one in allowed) else "enum"
    if isinstance(value, str) and schema.get("format") and not fits_format(value, schema["format"]):
        return "format"
    return None
