"""The nodes of a declared type, for the walk through a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from khotan_cli.runtime.contract.scalars import Leaf

KeyPath = tuple[str | int, ...]
"""The path of a field's value in its object: usually one key, several for a Pydantic AliasPath."""


@dataclass(slots=True, eq=False)
class Field:
    """A field of an object. `keys`: every path it may have, the preferred one first. `name`: its name in Python."""

    keys: Sequence[KeyPath]
    node: Node
    required: bool
    name: str = ""


@dataclass(slots=True, eq=False)
class ObjectNode:
    """A model, dataclass or TypedDict. `policy` for undeclared keys: "ignore", "allow" or "forbid".

    `extras`: the type of the values of undeclared keys, if `__pydantic_extra__` declares one. `ignored`: keys of computed
    fields, which may be sent and are not read. `is_model`: whether it is a Pydantic model, which treats a name that
    begins with an underscore as a private attribute.
    """

    name: str
    fields: Sequence[Field] = ()
    policy: str = "ignore"
    extras: Node | None = None
    ignored: frozenset[str] = frozenset()
    is_model: bool = False


@dataclass(slots=True, eq=False)
class MapNode:
    """A mapping whose keys are data."""

    keys: Leaf | None
    values: Node


@dataclass(slots=True, eq=False)
class ListNode:
    """An array whose items have the same declared type."""

    items: Node


@dataclass(slots=True, eq=False)
class TupleNode:
    """An array declared by position. `variadic` is the index of the repeated item of a variadic tuple."""

    items: Sequence[Node]
    variadic: int | None
    required: int


@dataclass(slots=True, eq=False)
class UnionNode:
    """Alternatives, including null if `nullable`. `tag` finds the alternative that an object names.

    `labelled`: whether Pydantic's error locations contain a part that names the alternative. `name`: the name of a type
    with several JSON forms, such as a NamedTuple, which is an array or an object. `discriminated`: whether the tag is
    declared, so that Pydantic checks only the named alternative.
    """

    members: Sequence[Node]
    nullable: bool = False
    tag: Callable[[Any], Tag] | None = None
    labelled: bool = False
    name: str = ""
    discriminated: bool = False


@dataclass(slots=True)
class Tag:
    """The result of a discriminator for a value: the member it names, or the invalid key (`found`: its value).

    `known` describes the declared tags, and `kinds` has their JSON types.
    """

    member: Node | None = None
    key: KeyPath = ()
    present: bool = False
    found: Any = None
    known: str = ""
    kinds: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False)
class JsonNode:
    """A string with JSON text of another type (`pydantic.Json`)."""

    inner: Node


@dataclass(slots=True, eq=False)
class Lenient:
    """A type whose invalid values Pydantic accepts: it drops them (`OnErrorOmit`) or replaces them by the default."""

    inner: Node
    outcome: str


@dataclass(slots=True, eq=False)
class Guard:
    """A container with a rule of its own: a validator function, or a limit of its length.

    `translates`: the rule may change the value before the inner node reads it. `alone`: the rule judges the container
    independently of its parts. `hides`: nothing inside may be shown, as in Secret[list[int]].
    """

    inner: Node
    rule: Leaf
    translates: bool
    alone: bool = False
    hides: bool = False


@dataclass(slots=True, eq=False)
class Ref:
    """A reference to a node that may not be complete yet, for types that contain themselves."""

    target: Node | None = None


Node = Leaf | ObjectNode | MapNode | ListNode | TupleNode | UnionNode | JsonNode | Lenient | Guard | Ref


def settled(node: Node) -> Node:
    """The node with references resolved."""
    while isinstance(node, Ref):
        assert node.target is not None
        node = node.target
    return node


def settled_or_none(node: Node) -> Node:
    """Like `settled`, but an incomplete reference is returned unchanged."""
    while isinstance(node, Ref) and node.target is not None:
        node = node.target
    return node


def dig(document: Any, path: KeyPath) -> tuple[bool, Any]:
    """Whether a value exists at a path of keys and indexes, and the value."""
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
    """Whether a node accepts values of a JSON type."""
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
    """The first of a field's key paths that exists, and its value."""
    for keys in declared.keys:
        present, inner = dig(value, keys)
        if present:
            return keys, True, inner
    return declared.keys[0], False, None
