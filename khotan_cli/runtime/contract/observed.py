"""The observed side of a contract: a walk through a JSON document along its declared type.

Observations are collapsed over the items of arrays and the values of maps, one PathStats per JSONPath and declared type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from khotan_cli.runtime.contract.containers import ContainerWalk
from khotan_cli.runtime.contract.declared import Declared
from khotan_cli.runtime.contract.json_paths import NOTHING, PathStats, child, same
from khotan_cli.runtime.contract.locate import located
from khotan_cli.runtime.contract.nodes import (
    Guard,
    JsonNode,
    Lenient,
    ListNode,
    MapNode,
    Node,
    ObjectNode,
    TupleNode,
    UnionNode,
    settled,
    takes,
)
from khotan_cli.runtime.contract.scalars import Issue, Leaf, Verdict, kind_of
from khotan_cli.runtime.contract.walker import BREAKING, CHANGED, WEIGHTS, WRONG_TAG


class Walk(ContainerWalk):
    """Judges a document: `run` walks it and returns the stats of its root."""

    def __init__(self, declared: Declared, *, text: bool = False) -> None:
        super().__init__(declared, text=text)
        self._judges = {
            Leaf: self._leaf,
            ObjectNode: self._object,
            MapNode: self._map,
            ListNode: self._list,
            TupleNode: self._tuple,
            UnionNode: self._union,
            JsonNode: self._json,
            Lenient: self._lenient,
            Guard: self._guard,
        }

    # -- alternatives and rules --------------------------------------------------------------------------------------

    def _union(self, node: UnionNode, value: Any, stats: PathStats | None) -> int:
        if value is None and node.nullable:
            return 0
        if node.tag is not None and isinstance(value, dict):
            return self._tagged(node, value, stats)
        if len(node.members) == 1:
            return self._member(node.members[0], value, stats)
        if not isinstance(value, (dict, list)):
            return self._scalar(node.members, value, stats)
        kind = kind_of(value)
        fitting = [member for member in node.members if takes(member, kind)]
        if not fitting:
            return self._mismatch(stats, value)
        if len(fitting) > 1:
            costs = [self._cost(member, value) for member in fitting]
            best = min(range(len(fitting)), key=lambda i: (costs[i] >= BREAKING, costs[i] & (BREAKING - 1)))
            if stats is None:
                return costs[best]
            return self._member(fitting[best], value, stats)
        return self._member(fitting[0], value, stats)

    def _tagged(self, node: UnionNode, value: Mapping[str, Any], stats: PathStats | None) -> int:
        assert node.tag is not None
        tag = node.tag(value)
        if tag.member is not None:
            return self._member(tag.member, value, stats)
        if not tag.key:
            return self._mismatch(stats, value)
        if stats is not None:
            path = stats.path
            for key in tag.key:
                path = child(path, key)
            below = stats.children.setdefault(
                ("tag", tag.key), PathStats(path, tag.known, required=True, secret=stats.hides, parent=stats)
            )
            below.present += tag.present
            issue: Issue = "enum" if kind_of(tag.found) in tag.kinds else "type_mismatch"
            found = tag.found if tag.present else NOTHING
            below.add_fault(issue if tag.present else "missing", self._grade("breaking"), found)
        return WEIGHTS[self._grade("breaking")] + WRONG_TAG

    def _scalar(self, members: Sequence[Node], value: Any, stats: PathStats | None) -> int:
        """Judge a string, number, boolean or null: by any alternative that accepts it, else by the most similar one."""
        best: Verdict | None = None
        kind = kind_of(value)
        for member in map(settled, members):
            if isinstance(member, Leaf):
                verdict = self._verdict(member, value)
                near = kind in member.kinds
                if verdict is None:
                    return self._leaf(member, value, stats)
            else:
                near = False
                if isinstance(member, (Guard, UnionNode, JsonNode, Lenient)) and self._cost(member, value) < BREAKING:
                    return self._member(member, value, stats)
                verdict = Verdict("type_mismatch", "breaking")
            if best is None or (verdict.grade != "breaking" and best.grade == "breaking"):
                best = verdict
            if near and verdict.grade == best.grade and best.issue == "type_mismatch":
                best = verdict
        return self._wrong(stats, best or Verdict("type_mismatch", "breaking"), value)

    def _guard(self, node: Guard, value: Any, stats: PathStats | None) -> int:
        refused = (stats is None or self._failing) and node.rule.accepts(value) is False
        if not node.translates:
            cost = self._member(node.inner, value, stats)
            if refused and (takes(node.inner, kind_of(value)) if node.alone else cost < BREAKING):
                # If only an inner value is rejected, by a validator that reads other fields, Verdicts locates it.
                own = node.alone or any(not location for location, _ in node.rule.locations(value))
                verdict = Verdict("constraint", "breaking", node.rule.broken(value))
                cost += self._wrong(stats if own else None, verdict, value)
            return cost
        cost = self._cost(node.inner, value)
        if not refused and cost >= BREAKING:
            # The function converts the value for the inner type, so inner values cannot be judged.
            if stats is not None:
                stats.leave_open(CHANGED)
            return 0
        if refused and (cost < BREAKING or not self._same_errors(node, value)):
            return self._wrong(stats, Verdict("constraint", "breaking", node.rule.broken(value)), value)
        return self._member(node.inner, value, stats)

    def _lenient(self, node: Lenient, value: Any, stats: PathStats | None) -> int:
        """Pydantic accepts an invalid value of this type, so its faults and its loss are only warnings."""
        if self._soft or self._cost(node.inner, value) < BREAKING:
            return self._member(node.inner, value, stats)
        failing, self._failing, self._soft = self._failing, True, True
        try:
            cost = self._member(node.inner, value, stats)
        finally:
            self._failing, self._soft = failing, False
        return cost + self._wrong(stats, Verdict("dropped", "warning", node.outcome), value)

    def _same_errors(self, node: Guard, value: Any) -> bool:
        """Whether Pydantic's errors match the value itself, so that the function changed nothing relevant."""
        trial = Walk(self._declared, text=self._text)
        trial._failing = True
        trial.root = self._stats("$", node.inner)
        trial._visit(node.inner, value, trial.root)
        shown = {p.path for p in trial.root.every() if any(f.grade == "breaking" for f in p.faults.values())}
        paths = [located(node, value, location, absent).path for location, absent in node.rule.locations(value)]
        return all(any(same(path, one) for one in shown) for path in paths)
