"""The schema of a table for bulk writes: columns, keys, defaults and conversions for each database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum as PythonEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Index,
    Integer,
    Numeric,
    String,
    Table,
    Time,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    inspect,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapper
from sqlmodel.sql.sqltypes import AutoString

from khotan_cli.errors import ConfigError, nearest
from khotan_cli.runtime.bulk.coercion import (
    EnumReader,
    Misfit,
    Reader,
    as_text,
    misfit,
    plain_type,
    postgres_float,
    reader_of,
)

_AS_JSON = (String, Integer, Boolean, Float, Numeric, DateTime, Date, Time, Uuid, JSON)
"""Types whose values PostgreSQL reads from JSON text as SQLAlchemy would have stored them."""
_READ_FROM_TEXT = (DateTime, Date, Time, Uuid)
"""Types whose values JSON writes as texts, which PostgreSQL reads and SQLAlchemy's types for SQLite do not."""


@dataclass(frozen=True)
class Field:
    """A written column: its name in records, the column, and the bind function of its values (None: unchanged).

    as_json: PostgreSQL reads the value from JSON without binding. takes: the types that need no conversion, None: any. read:
    converts other values or raises Misfit.
    """

    name: str
    column: Column[Any]
    bind: Reader | None
    as_json: bool
    takes: frozenset[type] | None
    read: Reader
    on_sqlite: bool


@dataclass(frozen=True)
class Filled:
    """A column that is missing in records: filled with a constant, or with a function called once per row."""

    field: Field
    value: Any = None
    call: Callable[[], Any] | None = None

    def get(self) -> Any:
        return self.value if self.call is None else self.call()


def table_of(model: Any) -> Table:
    """Return the table of a SQLModel or mapped class. Raises ConfigError for a class without a table."""
    if isinstance(model, Table):
        return model
    mapper = inspect(model, raiseerr=False)
    if not isinstance(mapper, Mapper) or not isinstance(mapper.local_table, Table):
        name = getattr(model, "__name__", repr(model))
        raise ConfigError(f"{name} is not a table", hint="Declare it as class Row(SQLModel, table=True).")
    return mapper.local_table


@lru_cache(maxsize=256)
def named_columns(model: Any) -> dict[str, Column[Any]]:
    """Columns by the name of their attribute."""
    if isinstance(model, Table):
        return {column.key: column for column in model.columns}
    mapper = inspect(model)
    table = table_of(model)
    return {attr.key: attr.columns[0] for attr in mapper.column_attrs if attr.columns[0].table is table}


def dialect_of(on_sqlite: bool) -> Dialect:
    return sqlite.dialect() if on_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]


def pg_type(column: Column[Any]) -> str:
    """The column's type as PostgreSQL declares it."""
    return str(column.type.compile(dialect=dialect_of(on_sqlite=False))).partition(" COLLATE")[0]


def plain_json(column: Column[Any]) -> bool:
    return isinstance(column.type, JSON) and pg_type(column).upper() == "JSON"


def field_of(name: str, column: Column[Any], on_sqlite: bool) -> Field:
    dialect = dialect_of(on_sqlite)
    kind = column.type
    plain = isinstance(kind, AutoString) or (isinstance(kind, _AS_JSON) and not isinstance(kind, (Enum, TypeDecorator)))
    bind: Reader | None = kind.dialect_impl(dialect).bind_processor(dialect)
    if isinstance(kind, Enum):
        # SQLAlchemy's own lets unknown texts through, and takes no values of members.
        bind = EnumReader(kind).stored
    as_json = plain and not on_sqlite
    if as_json:
        bind = postgres_float if isinstance(kind, Float) else None
    elif isinstance(kind, JSON) and bind is not None:
        bind = _unless_null(bind)  # as on PostgreSQL: None is NULL, not the JSON value null
    takes, read = reader_of(kind) or _dated(column) or (None, _as_it_is)
    return Field(name, column, bind, as_json, takes, read, on_sqlite)


def _unless_null(bind: Reader) -> Reader:
    return lambda value: None if value is None else bind(value)


def _as_it_is(value: Any) -> Any:
    return value


def _dated(column: Column[Any]) -> tuple[frozenset[type], Reader] | None:
    """For dates, times and UUIDs. A moment is always read: its column may have no time zones."""
    kind = plain_type(column.type)
    if not isinstance(kind, _READ_FROM_TEXT):
        return None
    wanted, given = kind.python_type, as_python(column)

    def read(value: Any) -> Any:
        if type(value) is wanted:
            return given(value)
        # Pydantic takes numbers for seconds since the epoch; PostgreSQL does not, and reads 20260102 as a date.
        bare = isinstance(value, (int, float)) or (isinstance(value, str) and wanted is not UUID and _is_number(value))
        found = value if bare else given(value)
        if found is None or isinstance(found, wanted):
            return found
        raise misfit(value, f"is not a {type(kind).__name__.lower()}")

    return frozenset((type(None),) if wanted is datetime else (wanted, type(None))), read


def _is_number(words: str) -> bool:
    return words.strip().lstrip("+-").replace(".", "", 1).isdigit()


def as_python(column: Column[Any]) -> Callable[[Any], Any]:
    """Return a function that converts a record's value to the Python type of the column's values.

    JSON has texts for dates and UUIDs, and a service may send numbers as texts: after conversion they are equal. A datetime
    with an offset keeps its wall time in a column without time zones, as in PostgreSQL; other columns keep it in UTC. Values
    that cannot be converted stay unchanged: the database decides.
    """
    kind = plain_type(column.type)
    if isinstance(kind, Enum):
        return _or_as_it_is(EnumReader(kind).member)
    try:
        wanted = kind.python_type
    except NotImplementedError:
        return _as_it_is
    if wanted is str:
        return _or_as_it_is(as_text)
    if wanted is datetime:
        zoned = bool(getattr(kind, "timezone", False))
        read = _reader(datetime)
        return lambda value: _moment(read(value), zoned)
    return _reader(wanted)


def _or_as_it_is(read: Reader) -> Reader:
    def leniently(value: Any) -> Any:
        try:
            return read(value)
        except Misfit:
            return value

    return leniently


def key_readers(model: Any, key: Sequence[str]) -> list[Callable[[Any], Any]]:
    """`as_python` for each column of a key."""
    columns = named_columns(model)
    return [as_python(columns[name]) for name in key]


def _reader(wanted: type[Any]) -> Callable[[Any], Any]:
    adapter: TypeAdapter[Any] | None = None

    def read(value: Any) -> Any:
        nonlocal adapter
        if type(value) is wanted or value is None:
            return value
        if isinstance(value, PythonEnum):
            value = value.value
        adapter = adapter or TypeAdapter(wanted)
        try:
            return adapter.validate_python(value)
        except ValidationError:
            return value

    return read


def _moment(value: Any, zoned: bool) -> Any:
    if not isinstance(value, datetime) or value.tzinfo is None:
        return value
    try:
        return value.astimezone(UTC) if zoned else value.replace(tzinfo=None)
    except OverflowError:  # at an end of the calendar
        return value


def check_key(model: Any, key: Sequence[str]) -> None:
    """Raises ConfigError unless the key consists of columns with a unique constraint or a primary key."""
    table, columns = table_of(model), named_columns(model)
    if not key:
        raise ConfigError("Missing key: the column or columns that identify a record", hint='Add key="id".')
    for name in key:
        if name not in columns:
            raise ConfigError(f"{table.name} has no column {name!r} for the key", hint=_near(name, columns))
    wanted = {columns[name].name for name in key}
    unique = [{column.name for column in table.primary_key.columns}]
    unique += [{c.name for c in each.columns} for each in table.constraints if isinstance(each, UniqueConstraint)]
    indexes = [index for index in table.indexes if index.unique]
    unique += [{c.name for c in index.columns} for index in indexes if not _for_some_rows(index)]
    if wanted in unique:
        return
    partial = next((index.name for index in indexes if {c.name for c in index.columns} == wanted), None)
    why = f": the index {partial} is partial or uses an expression" if partial else ""
    raise ConfigError(
        f"The key {', '.join(key)} of {table.name} is not unique in the database{why}",
        hint="Make it the primary key, or add a UniqueConstraint on exactly these columns.",
    )


def _for_some_rows(index: Index) -> bool:
    partial = any(index.dialect_options[name].get("where") is not None for name in ("postgresql", "sqlite"))
    return partial or not all(isinstance(part, Column) for part in index.expressions)


def check_fields(model: Any, fields: Sequence[str]) -> None:
    """Raises ConfigError for a field that is not a column."""
    columns = named_columns(model)
    for name in fields:
        if name not in columns:
            raise ConfigError(f"{table_of(model).name} has no column {name!r}", hint=_near(name, columns))


def filled_on_insert(model: Any, fields: Sequence[str], on_sqlite: bool) -> list[Filled]:
    """Return the defaults of columns that are missing in records. Raises ConfigError for a required column without one."""
    filled: list[Filled] = []
    for name, column in named_columns(model).items():
        if name in fields or column.computed is not None or column.identity is not None:
            continue
        declared = _model_default(model, name)
        if column.default is not None:
            filled.append(_default(name, column, column.default, on_sqlite))
        elif declared is not None:
            filled.append(Filled(field_of(name, column, on_sqlite), call=declared))
        elif not column.nullable and column.server_default is None and not _counts_itself(column):
            raise ConfigError(
                f"{table_of(model).name}.{name} is required, but the records have no {name!r}",
                hint="Add it with transform=…, give the column a default, or make it nullable.",
            )
    return filled


def _model_default(model: Any, name: str) -> Callable[[], Any] | None:
    """Return the model's default for a field with an explicit column, or None if there is none or it is None."""
    info = getattr(model, "model_fields", {}).get(name)
    if info is None or info.is_required() or (info.default is None and info.default_factory is None):
        return None
    return lambda: info.get_default(call_default_factory=True)


def has_default(model: Any, name: str) -> bool:
    """Whether a new row gets a value for a column that is missing in its record."""
    column = named_columns(model).get(name)
    if column is None:
        return False
    return column.default is not None or column.server_default is not None or _model_default(model, name) is not None


def writable(column: Column[Any]) -> bool:
    """Whether values can be written to the column. The database computes generated columns itself."""
    return column.computed is None and not (column.identity is not None and column.identity.always)


def filled_on_update(model: Any, fields: Sequence[str], on_sqlite: bool) -> list[Filled]:
    """Return the columns with an `onupdate` that are missing in records."""
    return [
        _default(name, column, column.onupdate, on_sqlite)
        for name, column in named_columns(model).items()
        if name not in fields and column.onupdate is not None
    ]


def _default(name: str, column: Column[Any], default: Any, on_sqlite: bool) -> Filled:
    field = field_of(name, column, on_sqlite)
    if default.is_scalar:
        return Filled(field, value=default.arg)
    if default.is_callable:
        # SQLAlchemy wraps a function so that it takes the execution context.
        return Filled(field, call=lambda: default.arg(None))
    raise ConfigError(
        f"The default of {column.table.name}.{name} is an SQL expression, which a bulk write cannot use",
        hint="Use a server_default or a Python function.",
    )


def _counts_itself(column: Column[Any]) -> bool:
    table = column.table
    return isinstance(table, Table) and table.autoincrement_column is column


def _near(name: str, columns: dict[str, Column[Any]]) -> str:
    near = nearest(str(name), columns)
    return f"Did you mean {near!r}?" if near else f"Its columns: {', '.join(columns)}"
