"""Selects the fields of a model to send. Set fields are sent, including null; unset fields are omitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError

from khotan_cli.errors import ParameterError
from khotan_cli.runtime.content.json_text import require_finite

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def jsonable(value: Any) -> Any:
    """Models and their contents as JSON values, without unset fields. Bytes and None are unchanged.

    Raises ParameterError for a value that has no JSON form.
    """
    if value is None or isinstance(value, (str, int, float, bool, bytes, bytearray)):
        return value
    return dump_set(_ANY, value)


def dump_set(adapter: TypeAdapter[Any], value: Any) -> Any:
    """The JSON values of a body. A field with a single possible value, such as a discriminator, counts as set.

    Dataclasses do not record which fields were set: fields that are None by default and by value are omitted.
    Raises ParameterError for a value that has no JSON form.
    """
    whole = _completed(value)
    try:
        dumped = adapter.dump_python(whole, mode="json", by_alias=True, exclude_unset=True, warnings=False)
    except UnicodeEncodeError:
        raise ParameterError(
            "The body cannot be written as JSON: it contains a lone surrogate, which UTF-8 cannot encode",
            hint="Correct the text.",
        ) from None
    except (PydanticSerializationError, ValueError) as exc:
        if "surrogates not allowed" in str(exc):
            raise ParameterError(
                "The body cannot be written as JSON: it contains a lone surrogate, which UTF-8 cannot encode",
                hint="Correct the text.",
            ) from None
        raise ParameterError(f"The body cannot be written as JSON: {exc}", hint="Correct the value.") from None
    require_finite(dumped, adapter.dump_python(whole, by_alias=True, exclude_unset=True, warnings=False))
    return dumped


def query_fields(model: BaseModel) -> dict[str, Any]:
    """The parameters of a query model: set fields, and defaults that are neither None nor empty. None is omitted.

    None inside a mapping or a nested model is kept, so that the query encoder can reject it.
    """
    unset = set(type(model).model_fields) - model.model_fields_set
    defaults = model.model_dump(mode="json", by_alias=True, exclude_none=True, include=unset)
    set_fields = model.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    require_finite(set_fields, model.model_dump(by_alias=True, exclude_unset=True, warnings=False))
    fields = {name: value for name, value in defaults.items() if value not in ([], {})} | set_fields
    order = list(model.model_dump(mode="json", by_alias=True))
    return {name: fields[name] for name in order if fields.get(name) is not None}


def _completed(value: Any) -> Any:
    """The value with constant fields of models marked as set. The caller's objects are not changed."""
    if isinstance(value, BaseModel):
        changed: dict[str, Any] = {}
        for name, field in type(value).model_fields.items():
            old = getattr(value, name, None)
            if name in value.model_fields_set:
                new = _completed(old)
                if new is not old:
                    changed[name] = new
            elif get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
                changed[name] = old
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, Mapping):
        completed = {key: _completed(item) for key, item in value.items()}
        return completed if any(completed[key] is not item for key, item in value.items()) else value
    if isinstance(value, (list, tuple)):
        items = [_completed(item) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        if any(item is None and field.default is None for field, item in fields):
            return {f.name: _completed(item) for f, item in fields if not (item is None and f.default is None)}
    return value
