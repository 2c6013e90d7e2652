"""Finds the declared types that contain secrets, so that examples do not show them."""

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
    """Whether values of a type are secret or contain secrets, because an example of a container shows its contents.

    `known` caches the results by the id of the node.
    """
    node = settled(node)
    if id(node) not in known:
        known[id(node)] = False  # preliminary, for a type that contains itself
        hidden = node.secret if isinstance(node, Leaf) else isinstance(node, Guard) and node.hides
        known[id(node)] = hidden or any(holds_secret(inner, known) for inner in _inside(node))
    return known[id(node)]


def _inside(node: Node) -> list[Node]:
    """The inner nodes of a node; empty for a leaf."""
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
