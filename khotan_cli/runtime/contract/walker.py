"""The base of the walk through a JSON document along its declared type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from khotan_cli.runtime.contract.declared import Declared
from khotan_cli.runtime.contract.json_paths import NOTHING, PathStats
from khotan_cli.runtime.contract.nodes import Guard, Lenient, Node, UnionNode, settled
from khotan_cli.runtime.contract.scalars import Grade, Leaf, Verdict
from khotan_cli.runtime.contract.secrecy import holds_secret

BREAKING = 1 << 40
"""Weight of one breaking fault in a cost. Lower bits distinguish similar members of a union from dissimilar ones."""
WEIGHTS: Mapping[str, int] = {"breaking": BREAKING + 3, "warning": 2, "info": 1}
WRONG_TAG = 50


CHANGED = "not judged: its validator changes the value first"
"""The reason for an unjudged value of a declared type."""


class Walker:
    """Base of the judges of a document: costs, path stats and faults.

    `text`: whether the documents were read from CSV or XML, where numbers, booleans and dates are text. Each judge returns
    a cost: 0 if the value is as declared; at least `BREAKING` if Pydantic would reject it. With None instead of stats, it
    only computes the cost.
    """

    def __init__(self, declared: Declared, *, text: bool = False) -> None:
        self._declared = declared
        self._failing = False
        self._text = text
        self._soft = False
        """Whether the walk is inside a type whose invalid values Pydantic accepts, where nothing is breaking."""
        self._costs: dict[tuple[int, int, bool], int] = {}
        self._secret: dict[int, bool] = {}
        self._judges: Mapping[type[Any], Any] = {}
        self.root = self._stats("$", declared.root)

    def run(self, value: Any, *, failing: bool) -> PathStats:
        """Walk a document and return the root's stats. Several documents are counted together.

        `failing`: whether Pydantic rejects the document, so that custom rules must be checked. The document must live as
        long as the walk, which caches by the identity of its parts.
        """
        self._failing = failing
        self._costs.clear()  # a custom rule counts only if the document fails
        self.root.around += 1
        self._visit(self._declared.root, value, self.root)
        return self.root

    def _visit(self, node: Node, value: Any, stats: PathStats | None) -> int:
        if stats is not None:
            stats.present += 1
            if value is None:
                stats.nulls += 1
        node = settled(node)
        cost: int = self._judges[type(node)](node, value, stats)
        return cost

    def _cost(self, node: Node, value: Any) -> int:
        """The cost without recording faults. Cached, because nested unions would recompute it."""
        node = settled(node)
        if not isinstance(value, (dict, list)):
            return self._visit(node, value, None)
        key = (id(node), id(value), self._soft)
        if key not in self._costs:
            self._costs[key] = self._visit(node, value, None)
        return self._costs[key]

    def _stats(self, path: str, node: Node) -> PathStats:
        target = settled(node)
        stats = PathStats(path, self._declared.label(target))
        inner = target
        while isinstance(inner, (Guard, Lenient)):
            stats.hides = stats.hides or (isinstance(inner, Guard) and inner.hides)
            inner = settled(inner.inner)
        stats.nullable = isinstance(inner, UnionNode) and inner.nullable
        stats.secret = holds_secret(target, self._secret)
        return stats

    def _below(self, stats: PathStats, key: Any, node: Node, path: str) -> PathStats:
        """The stats of a member, created on first use. One for each declared type, because members of a union differ."""
        target = settled(node)
        found = stats.children.get((key, id(target)))
        if found is None:
            found = stats.children[key, id(target)] = self._stats(path, target)
            found.hides = found.hides or stats.hides
            found.secret = found.secret or stats.hides
        return found

    def _grade(self, grade: Grade) -> Grade:
        return "warning" if self._soft and grade == "breaking" else grade

    def _wrong(self, stats: PathStats | None, verdict: Verdict, value: Any) -> int:
        grade = self._grade(verdict.grade)
        if stats is not None:
            stats.add_fault(verdict.issue, grade, value, verdict.rule)
        return WEIGHTS[grade]

    def _absent(self, stats: PathStats | None) -> int:
        return self._wrong(stats, Verdict("missing", "breaking"), NOTHING)

    def _mismatch(self, stats: PathStats | None, value: Any) -> int:
        return self._wrong(stats, Verdict("type_mismatch", "breaking"), value)

    def _leaf(self, node: Leaf, value: Any, stats: PathStats | None) -> int:
        verdict = self._verdict(node, value)
        if verdict is None:
            if stats is not None and value is not None:
                if node.anything:
                    stats.accepts_any += 1
                elif node.changed(value):
                    stats.leave_open(CHANGED)
            return 0
        tag = WRONG_TAG if verdict.issue == "enum" else 0  # an object with a different literal is unlikely to be meant
        return self._wrong(stats, verdict, value) + tag

    def _verdict(self, node: Leaf, value: Any) -> Verdict | None:
        verdict = node.judge(value)
        converted = verdict is not None and verdict.grade == "warning" and verdict.issue == "type_mismatch"
        return None if self._text and converted and isinstance(value, str) else verdict

    def _member(self, member: Node, value: Any, stats: PathStats | None) -> int:
        """Judge a value that is already counted."""
        member = settled(member)
        cost: int = self._judges[type(member)](member, value, stats)
        return cost
