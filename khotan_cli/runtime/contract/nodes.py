"""What a declared type is made of, as the walk through a JSON document needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from khotan_cli.runtime.contract.scalars import Leaf

KeyPath = tuple[str | int, ...]
"""Where a field's value stands in its object: usually one key, several for a Pydantic AliasPath."""


@dataclass(slots=True, eq=False)
class Field:
    """A field of an object. `keys`: every place it may come in, the preferred one first. `name`: its name in Python."""

    keys: Sequence[KeyPath]
    node: Node
    required: bool
    name: str = ""


@dataclass(slots=True, eq=False)
class ObjectNode:
    """A model, dataclass or TypedDict. `policy` for undeclared keys: "ignore", "allow" or "forbid".

    `extras`: what the values of undeclared keys must be, where `__pydantic_extra__` says so. `ignored`: keys of
    computed fields, which may come and are not read. `is_model`: whether it is a Pydantic model, which reads a field's name
    that begins with an underscore as a private attribute.
    """

    name: str
    fields: Sequence[Field] = ()
    policy: str = "ignore"
    extras: Node | None = None
    ignored: frozenset[str] = frozenset()
    is_model: bool = False


@dataclass(slots=True, eq=False)
class MapNode:
    """A mapping with keys that are data."""

    keys: Leaf | None
    values: Node


@dataclass(slots=True, eq=False)
class ListNode:
    """An array whose items are all declared alike."""

    items: Node


@dataclass(slots=True, eq=False)
class TupleNode:
    """An array declared by position; `rest` is for the positions from `variadic` on, of a variadic tuple."""

    items: Sequence[Node]
    variadic: int | None
    required: int


@dataclass(slots=True, eq=False)
class UnionNode:
    """Alternatives, null being one where `nullable`. `tag` finds the alternative that an object names itself.

    `labelled`: whether Pydantic's error locations hold a part that names the alternative. `name`: the name of a type that is
    one type for its user, such as a NamedTuple, which comes as an array or as an object. `discriminated`: whether the tag is
    declared, so that Pydantic looks into the named alternative only.
    """

    members: Sequence[Node]
    nullable: bool = False
    tag: Callable[[Any], Tag] | None = None
    labelled: bool = False
    name: str = ""
    discriminated: bool = False


@dataclass(slots=True)
class Tag:
    """What a discriminator says of a value: the member it names, or the key that fails to (`found`: its value).

    `known` lists the declared tags in words, and `kinds` holds their JSON types.
    """

    member: Node | None = None
    key: KeyPath = ()
    present: bool = False
    found: Any = None
    known: str = ""
    kinds: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False)
class JsonNode:
    """A string that holds JSON text of another type (`pydantic.Json`)."""

    inner: Node


@dataclass(slots=True, eq=False)
class Lenient:
    """A type whose invalid values Pydantic accepts: it drops them (`OnErrorOmit`), or puts the default in their place."""

    inner: Node
    outcome: str


@dataclass(slots=True, eq=False)
class Guard:
    """A container with a rule that its parts do not show: a validator function, a bound on its length.

    `translates`: the rule may change what comes before the inner node sees it. `alone`: the rule judges the container
    whatever its parts are. `hides`: nothing inside is to be shown, as in Secret[list[int]].
    """

    inner: Node
    rule: Leaf
    translates: bool
    alone: bool = False
    hides: bool = False


@dataclass(slots=True, eq=False)
class Ref:
    """A node that is still being made, for types that contain themselves."""

    target: Node | None = None


Node = Leaf | ObjectNode | MapNode | ListNode | TupleNode | UnionNode | JsonNode | Lenient | Guard | Ref


def settled(node: Node) -> Node:
    """The node itself, references followed."""
    while isinstance(node, Ref):
        assert node.target is not None
        node = node.target
    return node


def settled_or_none(node: Node) -> Node:
    """Like `settled`, but a reference that is still being made stays one."""
    while isinstance(node, Ref) and node.target is not None:
        node = node.target
    return node


def dig(document: Any, path: KeyPath) -> tuple[bool, Any]:
    """Whether there is a value at a path of keys and indexes, and which."""
    value: Any = document
    for part in path:
        if isinstance(part, int):
            if not isinstance(value, list) or not -len(value) <= part < len(value):
                return False, None
        elif not isinstance(value, Mapping) or part not in value:
            return False, None
        inner: Any = value
        value = inner[part]
    return True, value


def takes(node: Node, kind: str) -> bool:
    """Whether a node is one for values of a JSON type."""
    node = settled(node)
    if isinstance(node, (ObjectNode, MapNode)):
        return kind == "object"
    if isinstance(node, (ListNode, TupleNode)):
        return kind == "array"
    if isinstance(node, JsonNode):
        return kind == "string"
    if isinstance(node, Lenient):
        return takes(node.inner, kind)
    if isinstance(node, Guard):
        return node.translates or takes(node.inner, kind)
    if isinstance(node, UnionNode):
        return any(takes(member, kind) for member in node.members)
    return isinstance(node, Leaf) and kind in node.kinds


def find(declared: Field, value: Mapping[str, Any]) -> tuple[KeyPath, bool, Any]:
    """The first of a field's keys that is there, and its value."""
    for keys in declared.keys:
        present, inner = dig(value, keys)
        if present:
            return keys, True, inner
    return declared.keys[0], False, None
