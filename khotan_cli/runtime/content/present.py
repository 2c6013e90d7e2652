"""What of a model is sent. Absent and null are two things: what is set is sent, null too; what is unset is left out."""

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
    """Models and what they contain as JSON values, unset fields left out; bytes and None stay as they are.

    Raises ParameterError for a value that has no JSON form.
    """
    if value is None or isinstance(value, (str, int, float, bool, bytes, bytearray)):
        return value
    return dump_set(_ANY, value)


def dump_set(adapter: TypeAdapter[Any], value: Any) -> Any:
    """The JSON values of a body. A field with a single possible value, such as a discriminator, counts as set.

    A dataclass does not know which fields were given: those that are None by default and hold None are left out.
    Raises ParameterError for a value that has no JSON form.
    """
    whole = _completed(value)
    try:
        found = adapter.dump_python(whole, mode="json", by_alias=True, exclude_unset=True, warnings=False)
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
    require_finite(found, adapter.dump_python(whole, by_alias=True, exclude_unset=True, warnings=False))
    return found


def query_fields(model: BaseModel) -> dict[str, Any]:
    """The parameters of a query model: what is set, and defaults that are neither None nor empty. None is left out.

    None inside of a mapping or of a nested model stays, so that the query encoder can refuse it.
    """
    unset = set(type(model).model_fields) - model.model_fields_set
    defaults = model.model_dump(mode="json", by_alias=True, exclude_none=True, include=unset)
    given = model.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    require_finite(given, model.model_dump(by_alias=True, exclude_unset=True, warnings=False))
    found = {name: value for name, value in defaults.items() if value not in ([], {})} | given
    order = list(model.model_dump(mode="json", by_alias=True))
    return {name: found[name] for name in order if found.get(name) is not None}


def _completed(value: Any) -> Any:
    """The value with constants of models marked as set; the caller's own objects stay as they are."""
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
        made = {key: _completed(item) for key, item in value.items()}
        return made if any(made[key] is not item for key, item in value.items()) else value
    if isinstance(value, (list, tuple)):
        items = [_completed(item) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        if any(item is None and field.default is None for field, item in fields):
            return {f.name: _completed(item) for f, item in fields if not (item is None and f.default is None)}
    return value
