"""Whether a paginator reads what a declared response can have: judged when a plug loads, before a walk can go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.content.json_path import Path, path_text
from khotan_cli.runtime.paging.base import Paginator, is_header
from khotan_cli.runtime.paging.declared_path import can_be_list, is_open, items_type, list_item, types_at

_MAY_BE_OBJECT = frozenset({"path"})
"""Options whose value may be an object: a link with its `href`."""


class Declared(Protocol):
    """What a plug declares of an endpoint that may be paginated."""

    paginator: Paginator | None
    item: Any

    def model_for(self, status: int) -> Any: ...


def check_paginators(plug: str, default: Paginator | None, endpoints: Mapping[str, Declared]) -> None:
    """Raises ConfigError for a paginator that reads what its endpoint's response model cannot have.

    The plug's own paginator is for those endpoints that return lists, which their models do not say for certain: it is
    refused where it fits none of those that hold items in its place.
    """
    misfits: list[str] = []
    fits = False
    for name, endpoint in endpoints.items():
        declared = endpoint.model_for(200)
        if endpoint.paginator is not None:
            problems = contradictions(endpoint.paginator, declared, endpoint.item)
            if problems:
                raise _refused(f"{plug}.{name}: its paginator", problems)
        elif default is not None and _has_items(default, declared):
            problems = contradictions(default, declared, endpoint.item)
            fits = fits or not problems
            misfits += [f"{name}: {problem}" for problem in problems]
    if misfits and not fits:
        raise _refused(f"{plug}: the plug's paginator", misfits)


def contradictions(paginator: Paginator, declared: Any, item: Any = None) -> list[str]:
    """What the paginator reads, and a response of the declared type cannot have; a sentence each."""
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
        # Which list holds the items is seen in the response; only a response that can hold none is refused.
        single = isinstance(declared, type) and issubclass(declared, BaseModel)
        closed = single and declared.model_config.get("extra") != "allow"
        return [f"{name} has no list of items"] if closed and not _any_list(declared) else []
    found = types_at(declared, path)
    if not found:
        return [f"items={path_text(path)!r}, but {name} has no such field"]
    if not any(can_be_list(member) for member in found):
        return [f"items={path_text(path)!r}, but that is no list in {name}"]
    return []


def _value_problems(option: str, path: Path, declared: Any, name: str) -> list[str]:
    found = types_at(declared, path)
    if not found:
        return [f"{option}={path_text(path)!r}, but {name} has no such field"]
    if option not in _MAY_BE_OBJECT and all(_is_container(member) for member in found):
        return [f"{option}={path_text(path)!r}, but that is an object or a list in {name}"]
    return []


def _has_items(paginator: Paginator, declared: Any) -> bool:
    """Whether a type surely has a list in the paginator's place."""
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


def _refused(whose: str, problems: list[str]) -> ConfigError:
    return ConfigError(
        f"{whose} does not fit the declared response: {'; '.join(problems)}",
        hint="Correct the paginator's paths, or declare the field that the service sends.",
    )
