"""The base of the walk through a JSON document along its declared type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from khotan_cli.runtime.contract.declared import Declared
from khotan_cli.runtime.contract.json_paths import NOTHING, Place
from khotan_cli.runtime.contract.nodes import Guard, Lenient, Node, UnionNode, settled
from khotan_cli.runtime.contract.scalars import Grade, Leaf, Verdict
from khotan_cli.runtime.contract.secrecy import holds_secret

BREAKING = 1 << 40
"""Weight of one breaking fault in a cost; what lies below tells near members of a union from far ones."""
WEIGHTS: Mapping[str, int] = {"breaking": BREAKING + 3, "warning": 2, "info": 1}
WRONG_TAG = 50


CHANGED = "not judged: its validator changes the value first"
"""Why a value of a declared type stays open."""


class Walker:
    """What every judge of a document needs: costs, places and blame.

    `text`: whether the documents were read from CSV or XML, where numbers, booleans and dates are text. Each judge returns a
    cost: 0 where all is as declared; at least `BREAKING` where Pydantic would refuse. A place of None only asks for the cost.
    """

    def __init__(self, declared: Declared, *, text: bool = False) -> None:
        self._declared = declared
        self._failing = False
        self._text = text
        self._soft = False
        """Inside a type whose invalid values Pydantic accepts: nothing is breaking there."""
        self._costs: dict[tuple[int, int, bool], int] = {}
        self._secret: dict[int, bool] = {}
        self._judges: Mapping[type[Any], Any] = {}
        self.root = self._place("$", declared.root)

    def run(self, value: Any, *, failing: bool) -> Place:
        """Walk a document; returns the root. Further documents are counted together with it.

        `failing`: whether Pydantic refuses the document, so that custom rules are worth asking. The document must live as long
        as the walk, which remembers parts of it by their identity.
        """
        self._failing = failing
        self._costs.clear()  # a custom rule counts only where the document fails
        self.root.around += 1
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
        key = (id(node), id(value), self._soft)
        if key not in self._costs:
            self._costs[key] = self._visit(node, value, None)
        return self._costs[key]

    def _place(self, path: str, node: Node) -> Place:
        target = settled(node)
        place = Place(path, self._declared.label(target))
        inner = target
        while isinstance(inner, (Guard, Lenient)):
            place.hides = place.hides or (isinstance(inner, Guard) and inner.hides)
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
            found.hides = found.hides or place.hides
            found.secret = found.secret or place.hides
        return found

    def _grade(self, grade: Grade) -> Grade:
        return "warning" if self._soft and grade == "breaking" else grade

    def _wrong(self, place: Place | None, verdict: Verdict, value: Any) -> int:
        grade = self._grade(verdict.grade)
        if place is not None:
            place.blame(verdict.issue, grade, value, verdict.rule)
        return WEIGHTS[grade]

    def _absent(self, place: Place | None) -> int:
        return self._wrong(place, Verdict("missing", "breaking"), NOTHING)

    def _mismatch(self, place: Place | None, value: Any) -> int:
        return self._wrong(place, Verdict("type_mismatch", "breaking"), value)

    def _leaf(self, node: Leaf, value: Any, place: Place | None) -> int:
        verdict = self._verdict(node, value)
        if verdict is None:
            if place is not None and value is not None:
                if node.anything:
                    place.accepts_any += 1
                elif node.changed(value):
                    place.leave_open(CHANGED)
            return 0
        tag = WRONG_TAG if verdict.issue == "enum" else 0  # an object with another literal is hardly meant
        return self._wrong(place, verdict, value) + tag

    def _verdict(self, node: Leaf, value: Any) -> Verdict | None:
        verdict = node.judge(value)
        converted = verdict is not None and verdict.grade == "warning" and verdict.issue == "type_mismatch"
        return None if self._text and converted and isinstance(value, str) else verdict

    def _member(self, member: Node, value: Any, place: Place | None) -> int:
        """Judge a value of which the place is counted already."""
        member = settled(member)
        cost: int = self._judges[type(member)](member, value, place)
        return cost
