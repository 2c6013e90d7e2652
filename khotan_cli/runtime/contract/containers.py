"""The walk's judges of objects, maps and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from khotan_cli.runtime.contract.declared import Declared
from khotan_cli.runtime.contract.json_paths import Place, child
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
"""Undeclared keys of one object that are told apart; further ones are counted together."""
_EXTRA_GRADES: Mapping[str, Grade] = {"forbid": "breaking", "allow": "info"}


class ContainerWalk(Walker):
    """Judges values with parts."""

    def __init__(self, declared: Declared, *, text: bool = False) -> None:
        super().__init__(declared, text=text)
        self._read: dict[str, Any] = {}

    # -- objects -----------------------------------------------------------------------------------------------------

    def _object(self, node: ObjectNode, value: Any, place: Place | None) -> int:
        if not isinstance(value, dict):
            return self._mismatch(place, value)
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
            if place is not None:
                below = self._field_place(place, declared, keys)
                below.around += 1
            if present:
                used.add(key)
                cost += self._visit(declared.node, inner, below)
            elif declared.required:
                cost += self._absent(below)
        if len(used) < len(value):
            cost += self._others(node, value, used, place)
        return cost

    def _field_place(self, place: Place, declared: Field, keys: KeyPath) -> Place:
        found = place.children.get((declared, keys))
        if found is None:
            path = place.path
            for key in keys:
                path = child(path, key)
            found = place.children[declared, keys] = self._place(path, declared.node)
            found.required = declared.required
        return found

    def _others(self, node: ObjectNode, value: Mapping[str, Any], used: set[Any], place: Place | None) -> int:
        """Keys that no field took."""
        cost = 0
        known = set(node.ignored)
        if node.policy != "forbid":
            known.update(str(path[0]) for declared in node.fields for path in declared.keys)
        grade: Grade = self._grade(_EXTRA_GRADES.get(node.policy, "warning"))
        for key in value:
            if key in used or key in known:
                continue
            if node.extras is not None:
                below = None if place is None else self._below(place, "*", node.extras, f"{place.path}.*")
                if below is not None:
                    below.around += 1
                cost += self._visit(node.extras, value[key], below)
                continue
            cost += WEIGHTS[grade]
            if place is not None:
                self._extra(place, key, value[key], grade, _no_key(node, key))
        return cost

    def _extra(self, place: Place, key: str, value: Any, grade: Grade, expected: str) -> None:
        known = place.children.get(("extra", key))
        if known is None:
            place.extras += 1
            one = place.extras <= MAX_EXTRAS
            path, expected = (child(place.path, key), expected) if one else (f"{place.path}.*", "")
            made = Place(path, expected, declared=False, secret=place.hides, hides=place.hides, parent=place)
            known = place.children.setdefault(("extra", key) if one else ("extras", ""), made)
        known.present += 1
        known.blame("extra", grade, value)

    def _map(self, node: MapNode, value: Any, place: Place | None) -> int:
        if not isinstance(value, dict):
            return self._mismatch(place, value)
        cost, below = 0, None
        if place is not None:
            below = self._below(place, "*", node.values, f"{place.path}.*")
            self._seen(place, bool(value), node.values)
        keys = None if place is None or node.keys is None else self._keys(place, node.keys)
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

    def _keys(self, place: Place, keys: Leaf) -> Place:
        """The keys of a map, which JSONPath has no path for: they are counted apart from the map, at its path."""
        found = place.children.get("keys")
        if found is None:
            secret = place.secret or keys.secret
            found = place.children["keys"] = Place(place.path, "map key", secret=secret)
        return found

    def _json(self, node: JsonNode, value: Any, place: Place | None) -> int:
        if not isinstance(value, str):
            return self._mismatch(place, value)
        try:
            if value not in self._read:  # kept: costs are remembered by the identity of a value
                self._read[value] = from_json(value)
        except ValueError:
            return self._wrong(place, Verdict("format", "breaking", "valid JSON"), value)
        return self._member(node.inner, self._read[value], place)

    # -- arrays ------------------------------------------------------------------------------------------------------

    def _list(self, node: ListNode, value: Any, place: Place | None) -> int:
        if not isinstance(value, list):
            return self._mismatch(place, value)
        cost, below = 0, None
        if place is not None:
            below = self._below(place, "[*]", node.items, f"{place.path}[*]")
            below.around += len(value)
            self._seen(place, bool(value), node.items)
        for item in value:
            cost += self._visit(node.items, item, below)
        return cost

    def _seen(self, place: Place, filled: bool, items: Node) -> None:
        items = settled(items)
        if filled:
            place.filled = True
        elif not (isinstance(items, Leaf) and items.anything):
            place.unseen = self._declared.label(items)

    def _tuple(self, node: TupleNode, value: Any, place: Place | None) -> int:
        if not isinstance(value, list):
            return self._mismatch(place, value)
        count, cost, nodes = len(value), 0, node.items
        if node.variadic is not None:
            tail = len(nodes) - node.variadic - 1
            fill = max(0, count - len(nodes) + 1)
            nodes = [*nodes[: node.variadic], *([nodes[node.variadic]] * fill), *nodes[len(nodes) - tail :]]
        elif count > len(nodes):
            cost += self._wrong(place, Verdict("constraint", "breaking", _most(len(nodes))), value)
        needed = node.required if node.variadic is None else len(nodes)
        for index, inner in enumerate(nodes):
            below = None
            if place is not None:
                repeated = node.variadic is not None and node.variadic <= index
                key = "[*]" if repeated else f"[{index}]"
                below = self._below(place, key, inner, f"{place.path}{key}")
                below.around += 1
            if index < count:
                cost += self._visit(inner, value[index], below)
            elif index < needed:
                cost += self._absent(below)
        return cost


def _most(count: int) -> str:
    return f"at most {count} item{'' if count == 1 else 's'}"


def _no_key(node: ObjectNode, key: str) -> str:
    """What was expected in place of an undeclared key; "" for no such key."""
    if not (node.is_model and key.startswith("_")):
        return ""
    return f"no such key: its field needs alias={key!r}, as Pydantic keeps names that begin with '_' private"
