"""Judges objects, maps and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from khotan_cli.runtime.contract.declared import Declared
from khotan_cli.runtime.contract.json_paths import PathStats, child
from khotan_cli.runtime.contract.nodes import (
    Field,
    JsonNode,
    KeyPath,
    ListNode,
    MapNode,
    Node,
    ObjectNode,
    TupleNode,
    find,
    settled,
)
from khotan_cli.runtime.contract.scalars import Grade, Leaf, Verdict
from khotan_cli.runtime.contract.walker import WEIGHTS, Walker

MAX_EXTRAS = 50
"""Maximum number of undeclared keys of an object that are reported separately; others are counted together."""
_EXTRA_GRADES: Mapping[str, Grade] = {"forbid": "breaking", "allow": "info"}


class ContainerWalk(Walker):
    """Judges values that have parts."""

    def __init__(self, declared: Declared, *, text: bool = False) -> None:
        super().__init__(declared, text=text)
        self._read: dict[str, Any] = {}

    # -- objects -----------------------------------------------------------------------------------------------------

    def _object(self, node: ObjectNode, value: Any, stats: PathStats | None) -> int:
        if not isinstance(value, dict):
            return self._mismatch(stats, value)
        cost, used = 0, set[Any]()
        for declared in node.fields:
            keys: KeyPath = declared.keys[0]
            if len(declared.keys) == 1 and len(keys) == 1:
                key = keys[0]
                present = key in value
                inner = value[key] if present else None
            else:
                keys, present, inner = find(declared, value)
                key = keys[0]
            below = None
            if stats is not None:
                below = self._field_stats(stats, declared, keys)
                below.around += 1
            if present:
                used.add(key)
                cost += self._visit(declared.node, inner, below)
            elif declared.required:
                cost += self._absent(below)
        if len(used) < len(value):
            cost += self._others(node, value, used, stats)
        return cost

    def _field_stats(self, stats: PathStats, declared: Field, keys: KeyPath) -> PathStats:
        found = stats.children.get((declared, keys))
        if found is None:
            path = stats.path
            for key in keys:
                path = child(path, key)
            found = stats.children[declared, keys] = self._stats(path, declared.node)
            found.required = declared.required
        return found

    def _others(self, node: ObjectNode, value: Mapping[str, Any], used: set[Any], stats: PathStats | None) -> int:
        """Judge keys that belong to no field."""
        cost = 0
        known = set(node.ignored)
        if node.policy != "forbid":
            known.update(str(path[0]) for declared in node.fields for path in declared.keys)
        grade: Grade = self._grade(_EXTRA_GRADES.get(node.policy, "warning"))
        for key in value:
            if key in used or key in known:
                continue
            if node.extras is not None:
                below = None if stats is None else self._below(stats, "*", node.extras, f"{stats.path}.*")
                if below is not None:
                    below.around += 1
                cost += self._visit(node.extras, value[key], below)
                continue
            cost += WEIGHTS[grade]
            if stats is not None:
                self._extra(stats, key, value[key], grade, _no_key(node, key))
        return cost

    def _extra(self, stats: PathStats, key: str, value: Any, grade: Grade, expected: str) -> None:
        known = stats.children.get(("extra", key))
        if known is None:
            stats.extras += 1
            one = stats.extras <= MAX_EXTRAS
            path, expected = (child(stats.path, key), expected) if one else (f"{stats.path}.*", "")
            made = PathStats(path, expected, declared=False, secret=stats.hides, hides=stats.hides, parent=stats)
            known = stats.children.setdefault(("extra", key) if one else ("extras", ""), made)
        known.present += 1
        known.add_fault("extra", grade, value)

    def _map(self, node: MapNode, value: Any, stats: PathStats | None) -> int:
        if not isinstance(value, dict):
            return self._mismatch(stats, value)
        cost, below = 0, None
        if stats is not None:
            below = self._below(stats, "*", node.values, f"{stats.path}.*")
            self._seen(stats, bool(value), node.values)
        keys = None if stats is None or node.keys is None else self._keys(stats, node.keys)
        for key, inner in value.items():
            if keys is not None:
                keys.around += 1
            verdict = None if node.keys is None else node.keys.judge(key)
            if verdict is not None and verdict.grade == "breaking" and node.keys is not None:
                cost += self._wrong(keys, Verdict("constraint", "breaking", verdict.rule or node.keys.label), key)
            if below is not None:
                below.around += 1
            cost += self._visit(node.values, inner, below)
        return cost

    def _keys(self, stats: PathStats, keys: Leaf) -> PathStats:
        """The stats of a map's keys. JSONPath has no path for keys, so they use the path of the map."""
        found = stats.children.get("keys")
        if found is None:
            secret = stats.secret or keys.secret
            found = stats.children["keys"] = PathStats(stats.path, "map key", secret=secret)
        return found

    def _json(self, node: JsonNode, value: Any, stats: PathStats | None) -> int:
        if not isinstance(value, str):
            return self._mismatch(stats, value)
        try:
            if value not in self._read:  # kept, because costs are cached by the identity of a value
                self._read[value] = from_json(value)
        except ValueError:
            return self._wrong(stats, Verdict("format", "breaking", "valid JSON"), value)
        return self._member(node.inner, self._read[value], stats)

    # -- arrays ------------------------------------------------------------------------------------------------------

    def _list(self, node: ListNode, value: Any, stats: PathStats | None) -> int:
        if not isinstance(value, list):
            return self._mismatch(stats, value)
        cost, below = 0, None
        if stats is not None:
            below = self._below(stats, "[*]", node.items, f"{stats.path}[*]")
            below.around += len(value)
            self._seen(stats, bool(value), node.items)
        for item in value:
            cost += self._visit(node.items, item, below)
        return cost

    def _seen(self, stats: PathStats, filled: bool, items: Node) -> None:
        items = settled(items)
        if filled:
            stats.filled = True
        elif not (isinstance(items, Leaf) and items.anything):
            stats.unseen = self._declared.label(items)

    def _tuple(self, node: TupleNode, value: Any, stats: PathStats | None) -> int:
        if not isinstance(value, list):
            return self._mismatch(stats, value)
        count, cost, nodes = len(value), 0, node.items
        if node.variadic is not None:
            tail = len(nodes) - node.variadic - 1
            fill = max(0, count - len(nodes) + 1)
            nodes = [*nodes[: node.variadic], *([nodes[node.variadic]] * fill), *nodes[len(nodes) - tail :]]
        elif count > len(nodes):
            cost += self._wrong(stats, Verdict("constraint", "breaking", _most(len(nodes))), value)
        needed = node.required if node.variadic is None else len(nodes)
        for index, inner in enumerate(nodes):
            below = None
            if stats is not None:
                repeated = node.variadic is not None and node.variadic <= index
                key = "[*]" if repeated else f"[{index}]"
                below = self._below(stats, key, inner, f"{stats.path}{key}")
                below.around += 1
            if index < count:
                cost += self._visit(inner, value[index], below)
            elif index < needed:
                cost += self._absent(below)
        return cost


def _most(count: int) -> str:
    return f"at most {count} item{'' if count == 1 else 's'}"


def _no_key(node: ObjectNode, key: str) -> str:
    """The expectation for an undeclared key; "" for the default text."""
    if not (node.is_model and key.startswith("_")):
        return ""
    return f"no such key: its field needs alias={key!r}, because Pydantic treats names that begin with '_' as private"
