"""Checks whether JSON transfers records to PostgreSQL exactly: field types match column types, numbers are finite."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import JSON, Boolean, Column, Date, DateTime, Float, Integer, Numeric, String, Time, Uuid

from khotan_cli.runtime.bulk.coercion import plain_type

_EXACT_TYPES: tuple[tuple[type[Any], frozenset[type]], ...] = (
    (Boolean, frozenset({bool})),
    (Integer, frozenset({int})),
    (Float, frozenset({int, float})),
    (Numeric, frozenset({int, Decimal})),
    (String, frozenset({str})),
    (DateTime, frozenset({datetime})),
    (Date, frozenset({date})),
    (Time, frozenset({time})),
    (Uuid, frozenset({UUID})),
)
"""Column type → Python types whose JSON PostgreSQL reads as the same value."""


@dataclass(frozen=True)
class JsonFields:
    """Fields of a model whose values must be checked: floats, and fields stored as JSON."""

    floats: tuple[str, ...]
    documents: tuple[str, ...]

    @classmethod
    def of(cls, model: type[BaseModel], columns: Mapping[str, Column[Any]]) -> Self | None:
        """Return None if a field's type differs from its column's, such as a str for a date: values are then read singly."""
        floats, documents = list[str](), list[str]()
        for name, column in columns.items():
            kind = plain_type(column.type)
            if isinstance(kind, JSON):
                documents.append(name)
                continue
            declared = _types(model.model_fields[name].annotation)
            exact = next((types_ for of, types_ in _EXACT_TYPES if isinstance(kind, of)), frozenset())
            if not declared or not declared <= exact:
                return None
            if float in declared or Decimal in declared:
                floats.append(name)
        return cls(tuple(floats), tuple(documents))

    def are_exact(self, records: Sequence[Any]) -> bool:
        """Whether no value is infinite or NaN, which JSON would turn into null."""
        for name in self.floats:
            if not all(value is None or math.isfinite(value) for value in map(attrgetter(name), records)):
                return False
        return not any(_has_non_finite(value) for name in self.documents for value in map(attrgetter(name), records))


def _types(annotation: Any) -> frozenset[type]:
    """Return the plain types of an annotation without None; empty if one of them is not a plain type."""
    if annotation is None or annotation is type(None):
        return frozenset()
    origin = get_origin(annotation)
    if origin is Annotated:
        return _types(get_args(annotation)[0])
    if origin is Literal:
        return frozenset(type(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        member_types = [_types(member) for member in members]
        return frozenset().union(*member_types) if all(member_types) else frozenset()
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return frozenset(type(member.value) for member in annotation)
    return frozenset({annotation}) if isinstance(annotation, type) else frozenset()


def _has_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_has_non_finite(inner) for inner in value.values())
    if isinstance(value, (list, tuple, set)):
        return any(_has_non_finite(inner) for inner in value)
    return isinstance(value, BaseModel) and _has_non_finite(value.__dict__)
