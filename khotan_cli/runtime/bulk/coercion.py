"""Converts values to the types of columns, with the same rules on both databases. `fitting.py` explains rejected values.

SQLite stores any value in any column: a text in a numeric column, or an enum's value where SQLAlchemy expects its name. This
module rejects what PostgreSQL rejects. Values are checked one by one only if not all have the right type already.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum as PythonEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from sqlalchemy import JSON, Boolean, Enum, Float, Integer, Numeric, String
from sqlalchemy.types import TypeEngine
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

from khotan_cli.errors import UsageError

if TYPE_CHECKING:
    pass

Reader = Callable[[Any], Any]
CONVERSION_ERRORS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
"""Exceptions that SQLAlchemy's types, orjson and Pydantic raise for values that they cannot convert."""

NUL = "a text with a NUL character, which PostgreSQL cannot store"
_TRUE = frozenset(("t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"))
_FALSE = frozenset(("f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"))
"""Texts that PostgreSQL reads as truth values (manual, 8.6)."""
_NAMES: tuple[tuple[Any, str], ...] = (
    (bool, "a truth value"), ((int, float, Decimal), "a number"), (str, "a text"), (datetime, "a moment"),
    (date, "a date"), (time, "a time"), (UUID, "a UUID"), (Mapping, "an object"), ((list, tuple, set), "a list"),
    ((bytes, bytearray, memoryview), "bytes"),
)  # fmt: skip


def fields_of(record: Any, index: int, *, unset: bool = True) -> Mapping[str, Any]:
    """Return the values of a record. For a model, unset fields are omitted unless `unset` is False.

    Raises UsageError if it is not a record.
    """
    if type(record) is dict or (isinstance(record, Mapping) and not isinstance(record, BaseModel)):
        return record
    if isinstance(record, BaseModel):
        return record.model_dump(exclude_unset=unset)
    raise UsageError(
        f"Record {index} must be a mapping or a model, not {type(record).__name__}",
        hint="Convert it to a mapping with the names of the columns.",
    )


def incomparable_key(keys: Sequence[str], identity: Sequence[Any], index: int) -> UsageError:
    name = next(name for name, value in zip(keys, identity, strict=True) if not isinstance(value, Hashable))
    return UsageError(f"Record {index}: the key field {name!r} must be a single value", hint="Use a str or a number.")


class Misfit(ValueError):
    """The value is invalid for its column. The message gives the reason without the value."""


def misfit(value: Any, why: str) -> Misfit:
    return Misfit(f"{name_of(value)} that {why}")


def plain_type(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type, or the underlying type of SQLModel's own types."""
    return kind.impl_instance if isinstance(kind, (AutoString, UTCDateTime)) else kind


def reader_of(kind: TypeEngine[Any]) -> tuple[frozenset[type], Reader] | None:
    """Return the types that the column accepts unchanged, and a function that converts others or raises Misfit."""
    kind, nothing = plain_type(kind), type(None)
    if isinstance(kind, Boolean):
        return frozenset((bool, nothing)), _boolean
    if isinstance(kind, Integer):
        return frozenset((int, nothing)), _integer
    if isinstance(kind, Float):
        return frozenset((int, nothing)), _float
    if isinstance(kind, Numeric):
        return frozenset((int, nothing)), _decimal
    if isinstance(kind, String) and not isinstance(kind, Enum):
        return frozenset((str, nothing)), as_text
    if isinstance(kind, JSON):
        return frozenset((str, int, bool, nothing)), _json
    return None


def _unwrapped(value: Any) -> Any:
    return value.value if isinstance(value, PythonEnum) else value


def _boolean(value: Any) -> Any:
    value = _unwrapped(value)
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower() if type(value) in (int, str) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise misfit(value, "is not a truth value")


def _integer(value: Any) -> Any:
    value = _unwrapped(value)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    digits = str(value) if isinstance(value, (str, Decimal)) else ""
    for base in (10, 0):  # 0: 0x1f, as PostgreSQL reads it too
        try:
            return int(digits if digits.isascii() else "", base)
        except ValueError:
            continue
    raise misfit(value, "is not a whole number")


def _number(value: Any) -> Any:
    value = _unwrapped(value)
    if value is None or (isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)):
        return value
    try:
        return Decimal(value if isinstance(value, str) and value.isascii() else "")
    except ArithmeticError:
        raise misfit(value, "is not a number") from None


def _float(value: Any) -> Any:
    """SQLite would store NULL for NaN."""
    number = _number(value)
    if number is None:
        return None
    if math.isnan(number):
        raise misfit(value, "is NaN, which cannot be stored")
    return float(number)


def _decimal(value: Any) -> Any:
    number = _number(value)
    if number is not None and not isinstance(number, int) and not math.isfinite(number):
        raise misfit(value, "is NaN or infinite, which a decimal column cannot store")
    return number


def _json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False, default=to_jsonable_python)
    except ValueError:
        raise misfit(value, "contains NaN or infinity, which JSON does not support") from None
    except TypeError:
        pass  # values that are not JSON are reported when they are written
    return value


def postgres_float(value: Any) -> Any:
    """A float as PostgreSQL reads it from JSON, which has no infinity: its name as a text (manual, 8.1.3)."""
    return value if value is None or math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def as_text(value: Any) -> Any:
    value = _unwrapped(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    written = None if isinstance(value, (bytes, bytearray)) else jsonable(value)
    if isinstance(written, str):
        return written
    raise misfit(value, "is not a text")


def jsonable(value: Any) -> Any:
    """A value as JSON has it; bytes as PostgreSQL reads them."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    return to_jsonable_python(value)


class EnumReader:
    """Converts a member, name or value of an enum to the member or to the database's value."""

    def __init__(self, kind: Enum) -> None:
        self._stored: dict[str, str] = {}
        self._members: dict[Any, Any] = {text: text for text in kind.enums}
        self.kind: type[PythonEnum] | None = kind.enum_class
        if self.kind is None:
            self._stored = dict(self._members)
            return
        known: list[Any] = list(self.kind)
        if len(known) != len(kind.enums):  # aliases are not left out
            known = list(self.kind.__members__.values())
        self._stored = {member.name: text for member, text in zip(known, kind.enums, strict=False)}
        self._members = dict(zip(kind.enums, known, strict=False))
        for word in ("name", "value"):
            for member in known:
                self._members.setdefault(getattr(member, word), member)

    def member(self, value: Any) -> Any:
        """The member, or the text of an enum without a class. Raises Misfit."""
        if value is None or (self.kind is not None and isinstance(value, self.kind)):
            return value
        try:
            return self._members[_unwrapped(value)]
        except (KeyError, TypeError):
            raise misfit(value, f"is not one of {', '.join(self._stored)}") from None

    def stored(self, value: Any) -> str | None:
        """What the database has for it. Raises Misfit."""
        if value is None:
            return None
        member = self.member(value)
        return self._stored[member if self.kind is None else member.name]


def json_text(value: Any) -> str:
    """JSON of plain values, integers of any length included."""
    try:
        return orjson.dumps(value, default=jsonable, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()
    except TypeError as exc:
        if "64-bit" not in str(exc):
            raise
        return json.dumps(value, default=jsonable, ensure_ascii=False)


def name_of(value: Any) -> str:
    """What the value is, in words: "a number", "a text"."""
    return next((name for kind, name in _NAMES if isinstance(value, kind)), type(value).__name__)
