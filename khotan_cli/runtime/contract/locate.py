"""Finds the path of a Pydantic error in a document by following its location along the declared type.

A part of a location is a key, an index, or the name of a union's member. Only the type distinguishes them: the tag `card`
of `{"type": "card", "card": {…}}` is also the name of a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from khotan_cli.runtime.contract.json_paths import NOTHING, child
from khotan_cli.runtime.contract.nodes import (
    Field,
    Guard,
    JsonNode,
    Lenient,
    ListNode,
    MapNode,
    Node,
    ObjectNode,
    TupleNode,
    UnionNode,
    dig,
    settled,
    takes,
)
from khotan_cli.runtime.contract.scalars import kind_of

Parts = tuple[int | str, ...]
_KEY = "[key]"


@dataclass(slots=True)
class Spot:
    """A position in a document: collapsed JSONPath, the value (NOTHING if absent), and the remaining parts.

    `union`: path of the first union without a tag on the path; each of its members reports its own errors.
    """

    path: str
    value: Any
    node: Node | None
    union: str = ""
    rest: Parts = ()
    rearranged: bool = False
    """Whether a validator on the path may have changed the value, so that the error's value may not be in the document."""


def located(node: Node, data: Any, location: Sequence[int | str], absent: bool) -> Spot:
    """The position of an error. `absent`: whether the error says that the last part of its location is missing."""
    spot = Spot("$", data, node, rest=tuple(location))
    while spot.rest:
        inner = None if spot.node is None else settled(spot.node)
        if isinstance(inner, (Guard, Lenient)):
            spot.rearranged = spot.rearranged or (isinstance(inner, Guard) and inner.translates)
            spot.node = inner.inner
        elif isinstance(inner, JsonNode):
            spot.node, spot.value = inner.inner, _read(spot.value)
        elif isinstance(inner, UnionNode):
            _enter(inner, spot, absent)
        elif not _step(inner, spot, absent) and not _step_anyway(spot, absent):
            spot.rest = spot.rest[1:]
    return spot


def _enter(union: UnionNode, spot: Spot, absent: bool) -> None:
    """Continue in the member of a union that a location refers to, after the part that names it."""
    label = spot.rest[0] if union.labelled else None
    rest = spot.rest[1:] if union.labelled else spot.rest
    spot.rest = rest
    if union.discriminated and isinstance(spot.value, Mapping) and union.tag is not None:
        spot.node = union.tag(spot.value).member
        return
    if union.labelled:
        spot.union = spot.union or spot.path
    fitting = [member for member in union.members if takes(member, kind_of(spot.value))] or list(union.members)
    named = [member for member in fitting if label is not None and _name(member) == label]
    members = named or fitting
    leading = (one for one in members if len(members) == 1 or _leads(one, spot.value, rest, absent))
    spot.node = next(leading, None)


def _name(member: Node) -> str:
    member = settled(member)
    while isinstance(member, (Guard, Lenient)):
        member = settled(member.inner)
    return member.name if isinstance(member, (ObjectNode, UnionNode)) else ""


def _leads(member: Node, value: Any, rest: Parts, absent: bool) -> bool:
    """Whether a type has the parts of a location."""
    if not rest:
        return True
    trial = Spot("$", value, member, rest=rest)
    while trial.rest:
        inner = None if trial.node is None else settled(trial.node)
        if isinstance(inner, (Guard, Lenient)):
            trial.node = inner.inner
        elif isinstance(inner, JsonNode):
            trial.node, trial.value = inner.inner, _read(trial.value)
        elif isinstance(inner, UnionNode):
            _enter(inner, trial, absent)
        elif not _step(inner, trial, absent):
            return False
    return True


def _step(node: Node | None, spot: Spot, absent: bool) -> bool:
    """Go to the member or item of the first part. Returns whether the type has it."""
    part, value = spot.rest[0], spot.value
    if isinstance(node, ObjectNode):
        return _field_step(node, spot, absent)
    if isinstance(node, MapNode) and isinstance(value, Mapping):
        if spot.rest[1:] == (_KEY,):
            spot.value, spot.node, spot.rest = part, None, ()
        elif part in value:
            _go(spot, f"{spot.path}.*", value[part], node.values, 1)
        else:
            return False
        return True
    if isinstance(part, int) and isinstance(node, (ListNode, TupleNode)):
        found = value[part] if isinstance(value, list) and part < len(value) else NOTHING
        if isinstance(node, ListNode):
            _go(spot, f"{spot.path}[*]", found, node.items, 1)
        else:
            repeated = node.variadic is not None and node.variadic <= part
            inner = node.items[part] if part < len(node.items) and not repeated else None
            if repeated and node.variadic is not None:
                inner = node.items[node.variadic]
            _go(spot, f"{spot.path}[*]" if repeated else f"{spot.path}[{part}]", found, inner, 1)
        return True
    return False


def _field_step(node: ObjectNode, spot: Spot, absent: bool) -> bool:
    for field in node.fields:
        keys = next((keys for keys in field.keys if spot.rest[: len(keys)] == tuple(keys)), None)
        used = len(keys or ())
        if keys is None and field.name == spot.rest[0]:  # loc_by_alias=False
            keys, used = tuple(_there(field, spot.value)), 1
        if keys is not None:
            path = spot.path
            for key in keys:
                path = child(path, key)
            present, value = dig(spot.value, tuple(keys))
            if not present and spot.rearranged and not (absent and used == len(spot.rest)):
                return False
            _go(spot, path, value if present else NOTHING, field.node, used)
            return True
    if node.extras is not None and isinstance(spot.value, Mapping) and spot.rest[0] in spot.value:
        _go(spot, f"{spot.path}.*", spot.value[spot.rest[0]], node.extras, 1)
        return True
    return False


def _there(field: Field, value: Any) -> Sequence[int | str]:
    return next((keys for keys in field.keys if dig(value, tuple(keys))[0]), field.keys[0])


def _step_anyway(spot: Spot, absent: bool) -> bool:
    """Continue by the document alone if the type does not help: below a validator's type, or at an undeclared key."""
    part, value = spot.rest[0], spot.value
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        _go(spot, f"{spot.path}[*]", value[part], None, 1)
    elif isinstance(value, Mapping) and part in value:
        _go(spot, child(spot.path, part), value[part], None, 1)
    elif absent and len(spot.rest) == 1 and isinstance(part, str):
        _go(spot, child(spot.path, part), NOTHING, None, 1)
    else:
        return False
    return True


def _go(spot: Spot, path: str, value: Any, node: Node | None, used: int) -> None:
    spot.path, spot.value, spot.node, spot.rest = path, value, node, spot.rest[used:]


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return from_json(value)
    except ValueError:
        return value
