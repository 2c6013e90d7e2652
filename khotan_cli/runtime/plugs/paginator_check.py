"""Checks, when a plug loads, that a paginator reads only fields that the declared response can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.content.json_path import Path, path_text
from khotan_cli.runtime.paging.base import Paginator, is_header
from khotan_cli.runtime.paging.declared_path import can_be_list, is_open, items_type, list_item, types_at

_MAY_BE_OBJECT = frozenset({"path"})
"""Options whose value may be an object: a link with `href`."""


class Declared(Protocol):
    """The declaration of an endpoint that may be paginated."""

    paginator: Paginator | None
    item: Any

    def model_for(self, status: int) -> Any: ...


def check_paginators(plug: str, default: Paginator | None, endpoints: Mapping[str, Declared]) -> None:
    """Raises ConfigError for a paginator that reads fields its endpoint's response model cannot have.

    The plug's default paginator applies to the endpoints that return lists, which models do not always tell: it is
    rejected only if it fits none of the endpoints with items at its path.
    """
    mismatches: list[str] = []
    fits = False
    for name, endpoint in endpoints.items():
        declared = endpoint.model_for(200)
        if endpoint.paginator is not None:
            problems = contradictions(endpoint.paginator, declared, endpoint.item)
            if problems:
                raise _mismatch_error(f"{plug}.{name}: the paginator", problems)
        elif default is not None and _has_items(default, declared):
            problems = contradictions(default, declared, endpoint.item)
            fits = fits or not problems
            mismatches += [f"{name}: {problem}" for problem in problems]
    if mismatches and not fits:
        raise _mismatch_error(f"{plug}: the plug's paginator", mismatches)


def contradictions(paginator: Paginator, declared: Any, item: Any = None) -> list[str]:
    """The fields that the paginator reads but the declared type cannot have, one sentence each."""
    problems: list[str] = []
    if declared is not None and not is_open(declared):
        name = getattr(declared, "__name__", str(declared))
        problems += _items_problems(paginator, declared, name)
        paths = {"has_more": paginator.has_more, "is_last": paginator.is_last, **paginator.value_paths}
        for option, path in paths.items():
            if path is not None and not is_header(path):
                problems += _value_problems(option, path, declared, name)
    id_field: Path | None = getattr(paginator, "id_field", None)
    element = item if item is not None else None if declared is None else items_type(declared, paginator.items_path)
    if id_field is not None and element is not None and not is_open(element) and not types_at(element, id_field):
        problems.append(f"id_field={path_text(id_field)!r}, but {_name(element)} has no such field")
    return problems


def _items_problems(paginator: Paginator, declared: Any, name: str) -> list[str]:
    path = paginator.items_path
    if path is None:
        # The response shows which list holds the items, so only a response without any list is rejected.
        single = isinstance(declared, type) and issubclass(declared, BaseModel)
        closed = single and declared.model_config.get("extra") != "allow"
        return [f"{name} has no list of items"] if closed and not _any_list(declared) else []
    types = types_at(declared, path)
    if not types:
        return [f"items={path_text(path)!r}, but {name} has no such field"]
    if not any(can_be_list(member) for member in types):
        return [f"items={path_text(path)!r}, but that is no list in {name}"]
    return []


def _value_problems(option: str, path: Path, declared: Any, name: str) -> list[str]:
    types = types_at(declared, path)
    if not types:
        return [f"{option}={path_text(path)!r}, but {name} has no such field"]
    if option not in _MAY_BE_OBJECT and all(_is_container(member) for member in types):
        return [f"{option}={path_text(path)!r}, but that is an object or a list in {name}"]
    return []


def _has_items(paginator: Paginator, declared: Any) -> bool:
    """Whether a type certainly has a list at the paginator's path."""
    return declared is not None and not is_open(declared) and items_type(declared, paginator.items_path) is not None


def _any_list(declared: type[BaseModel]) -> bool:
    return any(can_be_list(member) for name in declared.model_fields for member in _types_of_field(declared, name))


def _types_of_field(declared: type[BaseModel], name: str) -> list[Any]:
    info = declared.model_fields[name]
    alias = info.validation_alias if isinstance(info.validation_alias, str) else info.alias or name
    return types_at(declared, (alias,)) or [Any]


def _is_container(member: Any) -> bool:
    return list_item(member) is not None or (isinstance(member, type) and issubclass(member, (BaseModel, Mapping)))


def _name(declared: Any) -> str:
    return str(getattr(declared, "__name__", declared))


def _mismatch_error(subject: str, problems: list[str]) -> ConfigError:
    return ConfigError(
        f"{subject} does not match the declared response: {'; '.join(problems)}",
        hint="Correct the paginator's paths, or declare the field that the service sends.",
    )
