"""Distinguishes the members of a union by the value of a key, with or without a declared discriminator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from khotan_cli.runtime.contract.nodes import Guard, KeyPath, Node, ObjectNode, Tag, dig, settled_or_none
from khotan_cli.runtime.contract.scalars import Leaf, kind_of, literal_text


def is_path_list(alias: Any) -> bool:
    """Whether an alias is a list of paths, not a single path."""
    return isinstance(alias[0], (list, tuple))


def by_key(paths: Sequence[KeyPath], choices: Mapping[Any, Node]) -> Callable[[Any], Tag]:
    """A function that finds the member named at one of the paths. Compares as Pydantic does: 1 == True."""
    known = " | ".join(literal_text(name) for name in choices)
    kinds = frozenset(kind_of(name) for name in choices)

    def find(value: Any) -> Tag:
        for path in paths:
            present, found = dig(value, path)
            if present:
                member = choices.get(found) if isinstance(found, (str, int, float)) else None
                return Tag(member, path, True, found, known, kinds)
        return Tag(None, _expected_path(paths, choices), False, None, known, kinds)

    return find


def _expected_path(paths: Sequence[KeyPath], choices: Mapping[Any, Node]) -> KeyPath:
    """The expected path of the tag. Pydantic lists the field's name first, but the document has the alias."""
    for member in choices.values():
        inner = _plain(settled_or_none(member))
        fields = inner.fields if isinstance(inner, ObjectNode) else ()
        found = next((one.keys[0] for one in fields if one.keys[0] in paths), None)
        if found is not None:
            return found
    return paths[0]


def _plain(member: Node) -> Node:
    """A member without validators that do not change its keys."""
    while isinstance(member, Guard) and not member.translates:
        member = settled_or_none(member.inner)
    return member


def implied_tag(members: Sequence[Node]) -> Callable[[Any], Tag] | None:
    """An undeclared discriminator: the key in which each member requires a different literal. None without such a key."""
    objects = [member for member in map(settled_or_none, members) if not isinstance(member, Leaf)]
    if len(objects) < 2 or len(objects) != len(members):
        return None
    found: dict[str, dict[Any, Node]] = {}
    shared: set[str] = set()
    for member in objects:
        inner = _plain(member)
        if not isinstance(inner, ObjectNode):
            return None
        for one in inner.fields:
            node = settled_or_none(one.node)
            if one.required and isinstance(node, Leaf) and len(one.keys) == 1 and len(one.keys[0]) == 1:
                key = str(one.keys[0][0])
                for literal in node.literals:
                    if found.setdefault(key, {}).setdefault(literal, member) is not member:
                        shared.add(key)
    for key, choices in found.items():
        if key not in shared and {id(member) for member in choices.values()} == {id(member) for member in objects}:
            return by_key([(key,)], choices)
    return None
