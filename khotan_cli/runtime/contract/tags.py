"""How the members of a union are told apart by the value of a key, declared as a discriminator or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from khotan_cli.runtime.contract.nodes import Guard, KeyPath, Node, ObjectNode, Tag, dig, settled_or_none
from khotan_cli.runtime.contract.scalars import Leaf, kind_of, literal_text


def is_path_list(alias: Any) -> bool:
    """Whether Pydantic gives several paths, not one."""
    return isinstance(alias[0], (list, tuple))


def by_key(paths: Sequence[KeyPath], choices: Mapping[Any, Node]) -> Callable[[Any], Tag]:
    """Finds the member that a value names at one of the paths. Numbers and booleans are compared as Pydantic does: 1 == True."""
    known = " | ".join(literal_text(name) for name in choices)
    kinds = frozenset(kind_of(name) for name in choices)

    def find(value: Any) -> Tag:
        for path in paths:
            present, found = dig(value, path)
            if present:
                member = choices.get(found) if isinstance(found, (str, int, float)) else None
                return Tag(member, path, True, found, known, kinds)
        return Tag(None, _awaited(paths, choices), False, None, known, kinds)

    return find


def _awaited(paths: Sequence[KeyPath], choices: Mapping[Any, Node]) -> KeyPath:
    """Where the tag is awaited: Pydantic names its field first, but the document has the field's alias."""
    for member in choices.values():
        inner = _plain(settled_or_none(member))
        fields = inner.fields if isinstance(inner, ObjectNode) else ()
        found = next((one.keys[0] for one in fields if one.keys[0] in paths), None)
        if found is not None:
            return found
    return paths[0]


def _plain(member: Node) -> Node:
    """A member without the validators that leave its keys as they came."""
    while isinstance(member, Guard) and not member.translates:
        member = settled_or_none(member.inner)
    return member


def implied_tag(members: Sequence[Node]) -> Callable[[Any], Tag] | None:
    """The key that tells the members apart where each requires another literal in it, as an undeclared discriminator."""
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
