"""The types that a declared response model can have at a path: the list of items, a cursor, a flag."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel
from typing_extensions import TypeAliasType

from khotan_cli.runtime.content.json_path import Path, path_keys

USUAL_LISTS = ("data", "items", "results", "records", "value", "values", "entries")
"""Usual names of a list of items."""
NEVER_ITEMS = frozenset({"errors", "error", "warnings", "messages"})
"""Names of lists that never contain items, even if they are the only list."""
_SCALAR_MODULES = frozenset({"builtins", "datetime", "decimal", "uuid"})
_UNION_ORIGINS = (Union, types.UnionType)


def types_at(declared: Any, path: Path) -> list[Any]:
    """The types that a value at a path can have; [Any] if the declaration leaves it open, [] if the path does not exist."""
    current = _members(declared)
    for key in path_keys(path):
        current = [member for found in current for below in _below(found, key) for member in _members(below)]
        if any(member is Any for member in current):
            return [Any]
    return current


def can_be_list(declared: Any) -> bool:
    """Whether a value of a type can be a list."""
    return declared is Any or list_item(declared) is not None


def list_item(declared: Any) -> Any:
    """The type of the items of a list type; None for other types."""
    origin = get_origin(declared) or declared
    if (
        isinstance(origin, type)
        and issubclass(origin, (Sequence, AbstractSet))
        and not issubclass(origin, (str, bytes))
    ):
        return next(iter(get_args(declared)), Any)
    return None


def items_type(declared: Any, path: Path | None) -> Any:
    """The declared type of a page's items: at a path, or in its only or usual list. None if it is unknown."""
    if path is not None:
        lists = [item for found in types_at(declared, path) if (item := list_item(found)) is not None]
        return lists[0] if lists else None
    for member in _members(declared):
        if (item := list_item(member)) is not None:
            return item
        lists_by_name = declared_lists(member)
        name = chosen_list(lists_by_name)
        if name is not None:
            return lists_by_name[name]
    return None


def declared_lists(model: Any) -> dict[str, Any]:
    """The fields of a model that are lists: name in JSON → type of an item."""
    found: dict[str, Any] = {}
    for name, annotation in _fields(model):
        items = [item for member in _members(annotation) if (item := list_item(member)) is not None]
        if items:
            found[name] = items[0]
    return found


def chosen_list(lists: Mapping[str, Any]) -> str | None:
    """The list with the items: the one with a usual name, else the only one; None if that is ambiguous."""
    usual = next((name for name in USUAL_LISTS if name in lists), None)
    if usual is not None:
        return usual
    others = [name for name in lists if name.lower() not in NEVER_ITEMS]
    return others[0] if len(others) == 1 else None


def is_open(declared: Any) -> bool:
    """Whether a type does not describe the JSON: Any, None, bytes, or a model that transforms its input first."""
    members = _members(declared)
    return not members or any(member is Any or member in (bytes, str) or _reshapes(member) for member in members)


def _members(declared: Any) -> list[Any]:
    """The members of a type, without aliases, annotations and None: those of a union, or a root model's root."""
    if declared is None or declared is type(None):
        return []
    if isinstance(declared, (str, ForwardRef, TypeVar)) or declared is object:
        return [Any]
    origin = get_origin(declared)
    if isinstance(declared, TypeAliasType):
        return _members(declared.__value__)
    if isinstance(origin, TypeAliasType):
        return [Any]
    if origin is Annotated:
        return _members(get_args(declared)[0])
    if origin in _UNION_ORIGINS:
        return [member for argument in get_args(declared) for member in _members(argument)]
    if isinstance(declared, type) and issubclass(declared, RootModel):
        return _members(declared.model_fields["root"].annotation)
    return [declared]


def _below(declared: Any, key: str) -> list[Any]:
    """The types of the values that a type can have under a key."""
    if declared is Any or _reshapes(declared):
        return [Any]
    origin, arguments = get_origin(declared) or declared, get_args(declared)
    if isinstance(origin, type) and issubclass(origin, BaseModel):
        found = [annotation for name, annotation in _fields(declared) if name == key]
        return found or ([Any] if origin.model_config.get("extra") == "allow" else [])
    if is_typeddict(origin) or dataclasses.is_dataclass(origin):
        return [annotation for name, annotation in _fields(origin) if name == key]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [arguments[1]] if len(arguments) == 2 else [Any]
    item = list_item(declared)
    if item is not None and key.lstrip("-").isdigit():
        return [item]
    scalar = isinstance(origin, type) and (origin.__module__ in _SCALAR_MODULES or issubclass(origin, Enum))
    return [] if item is not None or scalar or origin is Literal else [Any]


def _fields(model: Any) -> list[tuple[str, Any]]:
    """The fields of a model, TypedDict or dataclass, by each name that they can have in JSON."""
    origin = get_origin(model) or model
    if isinstance(origin, type) and issubclass(origin, BaseModel):
        by_name = bool(origin.model_config.get("populate_by_name") or origin.model_config.get("validate_by_name"))
        fields: list[tuple[str, Any]] = []
        for name, info in origin.model_fields.items():
            aliases = _aliases(info.validation_alias if info.validation_alias is not None else info.alias)
            names = {*aliases, name} if by_name or not aliases else aliases
            fields += [
                (json_name, info.annotation if json_name not in _paths(info.validation_alias) else Any)
                for json_name in names
            ]
        return fields
    if is_typeddict(origin) or (isinstance(origin, type) and dataclasses.is_dataclass(origin)):
        try:
            return list(get_type_hints(origin).items())
        except (NameError, TypeError):
            return [(name, Any) for name in getattr(origin, "__annotations__", {})]
    return []


def _aliases(alias: Any) -> set[str]:
    if isinstance(alias, str):
        return {alias}
    if isinstance(alias, AliasChoices):
        return {name for choice in alias.choices for name in _aliases(choice)}
    if isinstance(alias, AliasPath):
        return {str(alias.path[0])}
    return set()


def _paths(alias: Any) -> set[str]:
    """First keys of aliases that are paths. The field's type does not describe the values below them."""
    if isinstance(alias, AliasPath):
        return {str(alias.path[0])}
    if isinstance(alias, AliasChoices):
        return {name for choice in alias.choices for name in _paths(choice)}
    return set()


def _reshapes(declared: Any) -> bool:
    """Whether a model transforms its input before validation, so that its fields may differ from the JSON."""
    origin = get_origin(declared) or declared
    if not (isinstance(origin, type) and issubclass(origin, BaseModel)):
        return False
    validators = origin.__pydantic_decorators__.model_validators.values()
    return any(validator.info.mode in ("before", "wrap") for validator in validators)
