"""Which declared types hold secrets, so that no example shows them."""

from __future__ import annotations

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
)
from khotan_cli.runtime.contract.scalars import Leaf


def holds_secret(node: Node, known: dict[int, bool]) -> bool:
    """Whether values of a type are secret, or hold some: an example of a container shows what is inside.

    `known` remembers the answers by the id of the node.
    """
    node = settled(node)
    if id(node) not in known:
        known[id(node)] = False  # meanwhile, for a type that holds itself
        hidden = node.secret if isinstance(node, Leaf) else isinstance(node, Guard) and node.hides
        known[id(node)] = hidden or any(holds_secret(inner, known) for inner in _inside(node))
    return known[id(node)]


def _inside(node: Node) -> list[Node]:
    """What a node is made of; nothing for a leaf."""
    found: list[Node | None] = []
    if isinstance(node, (JsonNode, Lenient)):
        found = [node.inner]
    elif isinstance(node, Guard):
        found = [node.inner, node.rule]
    elif isinstance(node, ObjectNode):
        found = [*(field.node for field in node.fields), node.extras]
    elif isinstance(node, MapNode):
        found = [node.keys, node.values]
    elif isinstance(node, ListNode):
        found = [node.items]
    elif isinstance(node, TupleNode):
        found = list(node.items)
    elif isinstance(node, UnionNode):
        found = list(node.members)
    return [inner for inner in found if inner is not None]
