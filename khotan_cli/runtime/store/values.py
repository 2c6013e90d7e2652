"""What a column takes of a record's value, the same on both databases, and which value it was that one did not take.

SQLite stores what it is given: a text in a column of numbers, an enum's value where SQLAlchemy looks for its name. Here it
refuses what PostgreSQL refuses. Columns whose values are of the right types already are not looked at one by one.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum as PythonEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from sqlalchemy import JSON, BigInteger, Boolean, Enum, Float, Integer, Numeric, SmallInteger, String
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

from khotan_cli.errors import UsageError, ValueRefused

if TYPE_CHECKING:
    from khotan_cli.runtime.store.columns import Field

Reader = Callable[[Any], Any]
CONVERSION_ERRORS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
"""What conversions of values that they do not take raise: SQLAlchemy's types, orjson, Pydantic."""

NUL = "a text with a NUL character, which PostgreSQL cannot store"
_CONVERT = "Convert it with transform=…."
_HINTS = {
    "16 bits": "Declare the column as Integer or BigInteger: sa_type=BigInteger, with a migration of your own.",
    "32 bits": "Declare the column as BigInteger: sa_type=BigInteger, with a migration of your own.",
    "64 bits": "Declare the column as Numeric or as a text: sa_type=Numeric, with a migration of your own.",
    "before the point": "Declare more digits: sa_type=Numeric(20, 4), with a migration of your own.",
    "characters": "Declare a longer column: max_length=…, with a migration of your own. Or shorten it with transform=….",
}
"""What to do about a value that is too large, by the end of the reason."""
_TRUE = frozenset(("t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"))
_FALSE = frozenset(("f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"))
"""Texts that PostgreSQL reads as truth values (manual, 8.6)."""
_NAMES: tuple[tuple[Any, str], ...] = (
    (bool, "a truth value"), ((int, float, Decimal), "a number"), (str, "a text"), (datetime, "a moment"),
    (date, "a date"), (time, "a time"), (UUID, "a UUID"), (Mapping, "an object"), ((list, tuple, set), "a list"),
    ((bytes, bytearray, memoryview), "bytes"),
)  # fmt: skip


def fields_of(record: Any, index: int, *, unset: bool = True) -> Mapping[str, Any]:
    """The values of a record; of a model without those that it did not set, unless `unset` is False.

    Raises UsageError for what is no record.
    """
    if type(record) is dict or (isinstance(record, Mapping) and not isinstance(record, BaseModel)):
        return record
    if isinstance(record, BaseModel):
        return record.model_dump(exclude_unset=unset)
    raise UsageError(
        f"Record {index} is neither a mapping nor a model, but of the type {type(record).__name__}",
        hint="Make it one, with the names of the columns.",
    )


def incomparable_key(keys: Sequence[str], identity: Sequence[Any], index: int) -> UsageError:
    name = next(name for name, value in zip(keys, identity, strict=True) if not isinstance(value, Hashable))
    return UsageError(
        f"Record {index} has no single value for {name!r}, which is part of the key", hint="A text, or a number."
    )


class Misfit(ValueError):
    """A value that its column does not take; the text says why, without the value."""


def misfit(value: Any, why: str) -> Misfit:
    return Misfit(f"{_name(value)} that {why}")


def plain_type(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type itself, or what is below one of SQLModel's own."""
    return kind.impl_instance if isinstance(kind, (AutoString, UTCDateTime)) else kind


def reader_of(kind: TypeEngine[Any]) -> tuple[frozenset[type], Reader] | None:
    """Types that the column takes as they are, and a function that makes one of another value, or raises Misfit."""
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
    raise misfit(value, "is no truth value")


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
    raise misfit(value, "is no whole number")


def _number(value: Any) -> Any:
    value = _unwrapped(value)
    if value is None or (isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)):
        return value
    try:
        return Decimal(value if isinstance(value, str) and value.isascii() else "")
    except ArithmeticError:
        raise misfit(value, "is no number") from None


def _float(value: Any) -> Any:
    """SQLite would store NULL for NaN."""
    number = _number(value)
    if number is None:
        return None
    if math.isnan(number):
        raise misfit(value, "is NaN, which is not stored")
    return float(number)


def _decimal(value: Any) -> Any:
    number = _number(value)
    if number is not None and not isinstance(number, int) and not math.isfinite(number):
        raise misfit(value, "is NaN or infinite, which a decimal column does not hold")
    return number


def _json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False, default=to_jsonable_python)
    except ValueError:
        raise misfit(value, "holds NaN or infinity, which JSON does not have") from None
    except TypeError:
        pass  # what cannot be written as JSON is told from where it is written
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
    raise misfit(value, "is no text")


def jsonable(value: Any) -> Any:
    """A value as JSON has it; bytes as PostgreSQL reads them."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    return to_jsonable_python(value)


class EnumReader:
    """Members of an enum by what a record has: the member, its name, or its value; and what the database has."""

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
            raise misfit(value, f"is none of {', '.join(self._stored)}") from None

    def stored(self, value: Any) -> str | None:
        """What the database has for it. Raises Misfit."""
        if value is None:
            return None
        found = self.member(value)
        return self._stored[found if self.kind is None else found.name]


def json_text(value: Any) -> str:
    """JSON of plain values, integers of any length included."""
    try:
        return orjson.dumps(value, default=jsonable, option=orjson.OPT_PASSTHROUGH_SUBCLASS).decode()
    except TypeError as exc:
        if "64-bit" not in str(exc):
            raise
        return json.dumps(value, default=jsonable, ensure_ascii=False)


def bound(field: Field, rows: Sequence[Mapping[str, Any]]) -> Reader | None:
    """How the values of a column reach the database: read one by one only where not all are of its types.

    Raises Misfit for a value that is too large for the column, which SQLite would store.
    """
    if field.on_sqlite:
        _check_size(field, rows)
    if field.takes is not None and field.takes.issuperset(map(type, map(itemgetter(field.name), rows))):
        return field.bind
    return always_read(field)


def always_read(field: Field) -> Reader | None:
    return field.bind if field.takes is None else after(field.read, field.bind)


def after(first: Reader, then: Reader | None) -> Reader:
    return first if then is None else lambda value: then(first(value))


def _check_size(field: Field, rows: Sequence[Mapping[str, Any]]) -> None:
    kind = plain_type(field.column.type)
    if not isinstance(kind, (Integer, String, Numeric)) or isinstance(kind, (Enum, Float)):
        return
    for row in rows:
        value = row[field.name]
        too_large = _size_misfit(value, kind)
        if too_large:
            raise Misfit(too_large)


def _size_misfit(value: Any, kind: TypeEngine[Any]) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and isinstance(kind, Integer):
        return _beyond(value, kind)
    if isinstance(kind, Numeric):
        return _too_many_digits(value, kind)
    length = getattr(kind, "length", None)
    return _too_long(value, length) if length and isinstance(value, str) else ""


@contextmanager
def naming(table: str, fields: Iterable[Field], rows: Callable[[], Iterable[Mapping[str, Any]]]) -> Iterator[None]:
    """Raise ValueRefused where a value of the rows does not fit: which column did not take it, and why."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, *CONVERSION_ERRORS) as exc:
        if isinstance(exc, (DBAPIError, sqlite3.Error)) and not _of_a_value(exc):
            raise
        records = list(rows())
        unfit = ((field, reason) for field in fields for row in records if (reason := _misfit(field, row[field.name])))
        for field, reason in unfit:
            hint = next((hint for words, hint in _HINTS.items() if reason.endswith(words)), _CONVERT)
            raise ValueRefused(f"{table}.{field.column.name} takes no such value: {reason}", hint=hint) from None
        if isinstance(exc, (DBAPIError, sqlite3.Error)):
            raise
        why = str(exc) if isinstance(exc, Misfit) else type(exc).__name__
        raise ValueRefused(f"{table}: a value does not fit its column: {why}", hint=_CONVERT) from None


def _of_a_value(exc: DBAPIError | sqlite3.Error) -> bool:
    if isinstance(exc, DBAPIError):
        return str(getattr(exc.orig, "sqlstate", None) or "").startswith("22")
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return code is None or code & 0xFF in (sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG)


def _misfit(field: Field, value: Any) -> str:
    """Why the column does not take the value, without it; empty where it does."""
    if value is None:
        return ""
    kind = plain_type(field.column.type)
    try:
        ready = value if field.takes is None or type(value) in field.takes else field.read(value)
        if not field.as_json and field.bind is not None:
            ready = field.bind(ready)
        if not field.on_sqlite and not isinstance(ready, (int, str)):
            json_text(ready)
    except Misfit as exc:
        return str(exc)
    except CONVERSION_ERRORS:
        naive = isinstance(field.column.type, UTCDateTime) and getattr(value, "tzinfo", None) is None
        return "a moment without a time zone" if naive else f"{_name(value)} that does not fit {type(kind).__name__}"
    if isinstance(kind, Numeric) and not isinstance(kind, Float):
        return _too_many_digits(ready, kind)
    if isinstance(ready, int) and not isinstance(ready, bool):
        return _beyond(ready, kind) if isinstance(kind, Integer) or field.on_sqlite else ""
    if isinstance(ready, str):
        return _unwritable(ready, field.on_sqlite) or _too_long(ready, getattr(kind, "length", None))
    if field.on_sqlite and not isinstance(ready, (bool, float, bytes, bytearray, memoryview)):
        return f"{_name(value)} that does not fit {type(kind).__name__}"
    return ""


def _beyond(number: int, kind: TypeEngine[Any]) -> str:
    bits = 64
    if isinstance(kind, Integer) and not isinstance(kind, BigInteger):
        bits = 16 if isinstance(kind, SmallInteger) else 32
    return "" if -(2 ** (bits - 1)) <= number < 2 ** (bits - 1) else f"a number beyond {bits} bits"


def _too_many_digits(value: Any, kind: Numeric[Any]) -> str:
    """PostgreSQL rounds to the scale, and refuses what then has more digits before the point (manual, 8.1.2)."""
    if kind.precision is None or not isinstance(value, (int, float, Decimal)) or not math.isfinite(value):
        return ""
    digits = kind.precision - (kind.scale or 0)
    return f"a number of more than {digits} digits before the point" if abs(value) >= 10**digits else ""


def _too_long(words: str, length: int | None) -> str:
    """Blanks beyond the length are cut off, by PostgreSQL too (manual, 8.3)."""
    return f"a text of more than {length} characters" if length and len(words.rstrip(" ")) > length else ""


def _unwritable(words: str, on_sqlite: bool) -> str:
    try:
        words.encode()
    except UnicodeEncodeError:
        return "a text with half a surrogate pair, which UTF-8 cannot write"
    return NUL if "\0" in words and not on_sqlite else ""


def _name(value: Any) -> str:
    return next((name for kind, name in _NAMES if isinstance(value, kind)), type(value).__name__)
