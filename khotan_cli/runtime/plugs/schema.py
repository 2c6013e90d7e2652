"""The declared side of a contract: a type's JSON Schema, as the walk through a response needs it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID

from pydantic import AliasChoices, AliasPath, AnyUrl, BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

Schema = Mapping[str, Any]
NAMES = "x-khotan-names"
"""Added to a property: every key by which it may come (alias choices, populate_by_name)."""
_FORMATS: Mapping[str, type[Any]] = {
    "date-time": datetime,
    "date": date,
    "time": time,
    "duration": timedelta,
    "uuid": UUID,
    "uri": AnyUrl,
    "ipv4": IPv4Address,
    "ipv6": IPv6Address,
}


class _WithNames(GenerateJsonSchema):
    def model_schema(self, schema: Any) -> JsonSchemaValue:
        made = super().model_schema(schema)
        properties = made.get("properties", {})
        for names in _field_names(schema["cls"]):
            key = next((name for name in names if name in properties), None)
            if key is not None and len(names) > 1:
                properties[key] = {**properties[key], NAMES: names}
        return made


def _field_names(model: type[Any]) -> list[list[str]]:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    found: list[list[str]] = []
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        names = [str(c.path[0]) if isinstance(c, AliasPath) else c for c in choices if c is not None]
        found.append([*names, name] if by_name or not names else names)
    return found


class Declared:
    """The JSON Schema of a type (validation mode, aliases), references resolved on demand."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self.root: Schema = adapter.json_schema(schema_generator=_WithNames, mode="validation")
        self._definitions: Mapping[str, Schema] = self.root.get("$defs", {})

    def resolve(self, schema: Schema) -> Schema:
        """The schema behind `$ref` and a single `allOf`."""
        while True:
            reference = schema.get("$ref")
            if isinstance(reference, str):
                schema = self._definitions[reference.rpartition("/")[2]]
            elif len(schema.get("allOf", ())) == 1:
                schema = schema["allOf"][0]
            else:
                return schema

    def members(self, schema: Schema) -> list[Schema]:
        """The alternatives of a union, nested ones flattened; the schema itself where it is none."""
        schema = self.resolve(schema)
        inner = schema.get("anyOf") or schema.get("oneOf")
        return [member for part in inner for member in self.members(part)] if inner else [schema]

    def describe(self, schema: Schema) -> str:
        """A type in words: `integer`, `string (date-time)`, `'a' | 'b'`, `array of Charge`, `string | null`."""
        return " | ".join(dict.fromkeys(self._one(member) for member in self.members(schema)))

    def _one(self, schema: Schema) -> str:
        if "const" in schema:
            return repr(schema["const"])
        if "enum" in schema:
            return " | ".join(repr(value) for value in schema["enum"])
        kind = schema.get("type")
        if kind == "object":
            return str(schema.get("title", "object")) if "properties" in schema else "object"
        if kind == "array":
            return f"array of {self.describe(schema['items'])}" if schema.get("items") else "array"
        if kind == "string" and schema.get("format"):
            return f"string ({schema['format']})"
        return str(kind) if kind else "any"


def kind_of(value: Any) -> str:
    """JSON type of a value: null, boolean, integer, number, string, array, object."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def fits_format(text: str, name: str) -> bool:
    """Whether a string has a JSON Schema format; formats that are not checked fit."""
    declared = _FORMATS.get(name)
    if declared is None:
        return True
    if name in ("date-time", "date") and "-" not in text[1:]:
        return False  # Pydantic also takes Unix time in a string; as a date-time it is not true to the declaration
    try:
        _adapter(declared).validate_python(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=32)
def _adapter(declared: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(declared)
