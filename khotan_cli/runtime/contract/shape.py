"""The observed side of a contract: a walk through a JSON document along its declared type.

What is seen is collapsed over the items of arrays and the values of maps into places, one per JSONPath and declared type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from khotan_cli.runtime.contract.declared import Declared
from khotan_cli.runtime.contract.leaf import Grade, Issue, Leaf, Verdict, kind_of
from khotan_cli.runtime.contract.nodes import (
    Field,
    Guard,
    KeyPath,
    ListNode,
    MapNode,
    Node,
    ObjectNode,
    TupleNode,
    UnionNode,
    find,
    settled,
    takes,
)
from khotan_cli.runtime.contract.places import NOTHING, Place, child, located, same
from khotan_cli.runtime.contract.secrecy import holds_secret

MAX_EXTRAS = 50
"""Undeclared keys of one object that are told apart; further ones are counted together."""
_BREAKING = 1 << 40
"""Weight of one breaking fault in a cost; what lies below tells near members of a union from far ones."""
_WEIGHTS: Mapping[str, int] = {"breaking": _BREAKING + 3, "warning": 2, "info": 1}
_WRONG_TAG = 50


class Walk:
    """Judges a document. `failing`: whether Pydantic refuses it, so that custom rules are worth asking.

    Each judge returns a cost: 0 where all is as declared; at least `_BREAKING` where Pydantic would refuse. A place of
    None only asks for the cost.
    """

    def __init__(self, declared: Declared, *, failing: bool) -> None:
        self._declared = declared
        self._failing = failing
        self._costs: dict[tuple[int, int], int] = {}
        self._secret: dict[int, bool] = {}
        self._judges: Mapping[type[Any], Any] = {
            Leaf: self._leaf,
            ObjectNode: self._object,
            MapNode: self._map,
            ListNode: self._list,
            TupleNode: self._tuple,
            UnionNode: self._union,
            Guard: self._guard,
        }
        self.root = self._place("$", declared.root)

    def run(self, value: Any) -> Place:
        """Walk the document; returns its root."""
        self.root.around = 1
        self._visit(self._declared.root, value, self.root)
        return self.root

    def _visit(self, node: Node, value: Any, place: Place | None) -> int:
        if place is not None:
            place.present += 1
            if value is None:
                place.nulls += 1
        node = settled(node)
        cost: int = self._judges[type(node)](node, value, place)
        return cost

    def _cost(self, node: Node, value: Any) -> int:
        """Cost without recording; remembered, or unions inside unions would be weighed over and over."""
        node = settled(node)
        if not isinstance(value, (dict, list)):
            return self._visit(node, value, None)
        key = (id(node), id(value))
        if key not in self._costs:
            self._costs[key] = self._visit(node, value, None)
        return self._costs[key]

    def _place(self, path: str, node: Node) -> Place:
        target = settled(node)
        place = Place(path, self._declared.label(target))
        inner = target
        while isinstance(inner, Guard):
            inner = settled(inner.inner)
        place.nullable = isinstance(inner, UnionNode) and inner.nullable
        place.secret = holds_secret(target, self._secret)
        return place

    def _below(self, place: Place, key: Any, node: Node, path: str) -> Place:
        """The place of a member, made on first sight. Told apart by declared type, as members of a union differ."""
        target = settled(node)
        found = place.children.get((key, id(target)))
        if found is None:
            found = place.children[key, id(target)] = self._place(path, target)
        return found

    def _wrong(self, place: Place | None, verdict: Verdict, value: Any) -> int:
        if place is not None:
            place.blame(verdict.issue, verdict.grade, value, verdict.rule)
        return _WEIGHTS[verdict.grade]

    def _mismatch(self, place: Place | None, value: Any) -> int:
        return self._wrong(place, Verdict("type_mismatch", "breaking"), value)

    def _leaf(self, node: Leaf, value: Any, place: Place | None) -> int:
        verdict = node.judge(value)
        if verdict is None:
            return 0
        tag = _WRONG_TAG if verdict.issue == "enum" else 0  # an object with another literal is hardly meant
        return self._wrong(place, verdict, value) + tag

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
                cost += _WEIGHTS["breaking"]
                if below is not None:
                    below.blame("missing", "breaking", NOTHING)
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
        grade: Grade = {"forbid": "breaking", "allow": "info"}.get(node.policy, "warning")  # type: ignore[assignment]
        for key in value:
            if key in used or key in known:
                continue
            if node.extras is not None:
                below = None if place is None else self._below(place, "*", node.extras, f"{place.path}.*")
                if below is not None:
                    below.around += 1
                cost += self._visit(node.extras, value[key], below)
                continue
            cost += _WEIGHTS[grade]
            if place is not None:
                self._extra(place, key, value[key], grade)
        return cost

    def _extra(self, place: Place, key: str, value: Any, grade: Grade) -> None:
        known = place.children.get(("extra", key))
        if known is None:
            place.extras += 1
            one = place.extras <= MAX_EXTRAS
            made = Place(child(place.path, key) if one else f"{place.path}.*", "", declared=False, parent=place)
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
        for key, inner in value.items():
            verdict = None if node.keys is None else node.keys.judge(key)
            if verdict is not None and verdict.grade == "breaking" and node.keys is not None:
                cost += self._wrong(place, Verdict("constraint", "breaking", f"keys that are {node.keys.label}"), key)
            if below is not None:
                below.around += 1
            cost += self._visit(node.values, inner, below)
        return cost

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
            cost += self._wrong(place, Verdict("constraint", "breaking", f"{len(nodes)} items"), value)
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
                cost += _WEIGHTS["breaking"]
                if below is not None:
                    below.blame("missing", "breaking", NOTHING)
        return cost

    # -- alternatives and rules --------------------------------------------------------------------------------------

    def _union(self, node: UnionNode, value: Any, place: Place | None) -> int:
        if value is None and node.nullable:
            return 0
        if node.tag is not None and isinstance(value, dict):
            return self._tagged(node, value, place)
        if len(node.members) == 1:
            return self._member(node.members[0], value, place)
        if not isinstance(value, (dict, list)):
            return self._scalar(node.members, value, place)
        kind = kind_of(value)
        fitting = [member for member in node.members if takes(member, kind)]
        if not fitting:
            return self._mismatch(place, value)
        if len(fitting) > 1:
            costs = [self._cost(member, value) for member in fitting]
            best = min(range(len(fitting)), key=lambda i: (costs[i] >= _BREAKING, costs[i] & (_BREAKING - 1)))
            if place is None:
                return costs[best]
            return self._member(fitting[best], value, place)
        return self._member(fitting[0], value, place)

    def _member(self, member: Node, value: Any, place: Place | None) -> int:
        member = settled(member)
        cost: int = self._judges[type(member)](member, value, place)
        return cost

    def _tagged(self, node: UnionNode, value: Mapping[str, Any], place: Place | None) -> int:
        assert node.tag is not None
        tag = node.tag(value)
        if tag.member is not None:
            return self._member(tag.member, value, place)
        if not tag.key:
            return self._mismatch(place, value)
        if place is not None:
            path = place.path
            for key in tag.key:
                path = child(path, key)
            below = place.children.setdefault(("tag", tag.key), Place(path, tag.known, required=True, parent=place))
            below.present += tag.present
            issue: Issue = "enum" if isinstance(tag.found, str) else "type_mismatch"
            below.blame(issue if tag.present else "missing", "breaking", tag.found if tag.present else NOTHING)
        return _WEIGHTS["breaking"] + _WRONG_TAG

    def _scalar(self, members: Sequence[Node], value: Any, place: Place | None) -> int:
        """A string, number, boolean or null: right by any alternative that takes it, or wrong by the nearest."""
        best: Verdict | None = None
        kind = kind_of(value)
        for member in map(settled, members):
            if isinstance(member, Leaf):
                verdict = member.judge(value)
                near = kind in member.kinds
            else:
                near = isinstance(member, (Guard, UnionNode))
                fits = near and self._cost(member, value) < _BREAKING
                verdict = None if fits else Verdict("type_mismatch", "breaking")
                near = False
            if verdict is None:
                return 0
            if best is None or (verdict.grade != "breaking" and best.grade == "breaking"):
                best = verdict
            if near and verdict.grade == best.grade and best.issue == "type_mismatch":
                best = verdict
        return self._wrong(place, best or Verdict("type_mismatch", "breaking"), value)

    def _guard(self, node: Guard, value: Any, place: Place | None) -> int:
        refused = (place is None or self._failing) and node.rule.accepts(value) is False
        if not node.translates:
            cost = self._member(node.inner, value, place)
            if refused and cost < _BREAKING:
                cost += self._wrong(place, Verdict("constraint", "breaking", node.rule.broken(value)), value)
            return cost
        cost = self._cost(node.inner, value)
        if not refused and cost >= _BREAKING:
            return 0  # its function makes of it what the inner type wants: nothing can be said below
        if refused and (cost < _BREAKING or not self._same_errors(node, value)):
            return self._wrong(place, Verdict("constraint", "breaking", node.rule.broken(value)), value)
        return self._member(node.inner, value, place)

    def _same_errors(self, node: Guard, value: Any) -> bool:
        """Whether what Pydantic refuses is what the value itself shows: its function changed nothing that matters."""
        trial = Walk(self._declared, failing=True)
        trial.root = self._place("$", node.inner)
        trial._visit(node.inner, value, trial.root)
        shown = {p.path for p in trial.root.every() if any(f.grade == "breaking" for f in p.faults.values())}
        paths = [located(value, location, absent)[0] for location, absent in node.rule.locations(value)]
        return all(any(same(path, one) for one in shown) for path in paths)
