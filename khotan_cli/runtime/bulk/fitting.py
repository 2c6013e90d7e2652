"""Checks whether values fit their columns: sizes that SQLite does not check, and reasons for rejected values."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Enum, Float, Integer, Numeric, SmallInteger, String
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine
from sqlmodel.sql.sqltypes import UTCDateTime

from khotan_cli.errors import ValueRefused
from khotan_cli.runtime.bulk.coercion import (
    CONVERSION_ERRORS,
    NUL,
    Misfit,
    Reader,
    json_text,
    name_of,
    plain_type,
)

if TYPE_CHECKING:
    from khotan_cli.runtime.bulk.table_schema import Field

_CONVERT = "Convert it with transform=…."
_HINTS = {
    "16 bits": "Declare the column as Integer or BigInteger: sa_type=BigInteger, with a migration of your own.",
    "32 bits": "Declare the column as BigInteger: sa_type=BigInteger, with a migration of your own.",
    "64 bits": "Declare the column as Numeric or as a text: sa_type=Numeric, with a migration of your own.",
    "before the point": "Declare more digits: sa_type=Numeric(20, 4), with a migration of your own.",
    "characters": "Declare a longer column: max_length=…, with a migration of your own. Or shorten it with transform=….",
}
"""Hints for values that are too large, by the end of the reason."""


def bound(field: Field, rows: Sequence[Mapping[str, Any]]) -> Reader | None:
    """Return the conversion for a column's values. Values are converted one by one only if not all have an accepted type.

    Raises Misfit for a value that is too large for the column and that SQLite would store.
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
    """Raises ValueRefused, with column and reason, if a value of the rows does not fit its column."""
    try:
        yield
    except (DBAPIError, sqlite3.Error, *CONVERSION_ERRORS) as exc:
        if isinstance(exc, (DBAPIError, sqlite3.Error)) and not _of_a_value(exc):
            raise
        records = list(rows())
        unfit = ((field, reason) for field in fields for row in records if (reason := _misfit(field, row[field.name])))
        for field, reason in unfit:
            hint = next((hint for words, hint in _HINTS.items() if reason.endswith(words)), _CONVERT)
            raise ValueRefused(f"Invalid value for {table}.{field.column.name}: {reason}", hint=hint) from None
        if isinstance(exc, (DBAPIError, sqlite3.Error)):
            raise
        why = str(exc) if isinstance(exc, Misfit) else type(exc).__name__
        raise ValueRefused(f"{table}: a value is invalid for its column: {why}", hint=_CONVERT) from None


def _of_a_value(exc: DBAPIError | sqlite3.Error) -> bool:
    if isinstance(exc, DBAPIError):
        return str(getattr(exc.orig, "sqlstate", None) or "").startswith("22")
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return code is None or code & 0xFF in (sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG)


def _misfit(field: Field, value: Any) -> str:
    """Return why the value is invalid for the column, without the value; empty if it is valid."""
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
        return "a moment without a time zone" if naive else f"{name_of(value)} that does not fit {type(kind).__name__}"
    if isinstance(kind, Numeric) and not isinstance(kind, Float):
        return _too_many_digits(ready, kind)
    if isinstance(ready, int) and not isinstance(ready, bool):
        return _beyond(ready, kind) if isinstance(kind, Integer) or field.on_sqlite else ""
    if isinstance(ready, str):
        return _unwritable(ready, field.on_sqlite) or _too_long(ready, getattr(kind, "length", None))
    if field.on_sqlite and not isinstance(ready, (bool, float, bytes, bytearray, memoryview)):
        return f"{name_of(value)} that does not fit {type(kind).__name__}"
    return ""


def _beyond(number: int, kind: TypeEngine[Any]) -> str:
    bits = 64
    if isinstance(kind, Integer) and not isinstance(kind, BigInteger):
        bits = 16 if isinstance(kind, SmallInteger) else 32
    return "" if -(2 ** (bits - 1)) <= number < 2 ** (bits - 1) else f"a number beyond {bits} bits"


def _too_many_digits(value: Any, kind: Numeric[Any]) -> str:
    """PostgreSQL rounds to the scale and rejects values with more digits before the point (manual, 8.1.2)."""
    if kind.precision is None or not isinstance(value, (int, float, Decimal)) or not math.isfinite(value):
        return ""
    digits = kind.precision - (kind.scale or 0)
    return f"a number of more than {digits} digits before the point" if abs(value) >= 10**digits else ""


def _too_long(words: str, length: int | None) -> str:
    """Trailing blanks beyond the length are cut off, as in PostgreSQL (manual, 8.3)."""
    return f"a text of more than {length} characters" if length and len(words.rstrip(" ")) > length else ""


def _unwritable(words: str, on_sqlite: bool) -> str:
    try:
        words.encode()
    except UnicodeEncodeError:
        return "a text with half a surrogate pair, which UTF-8 cannot encode"
    return NUL if "\0" in words and not on_sqlite else ""
