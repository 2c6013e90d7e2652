"""Error mapping: exceptions of SQLAlchemy and the drivers → khotan's. Messages quote neither statements nor values."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from khotan_cli.errors import (
    ConfigError,
    DatabaseBusy,
    DatabaseNotMigrated,
    DatabaseUnreachable,
    KhotanError,
    StoreError,
    ValueRefused,
)
from khotan_cli.runtime.database.url import describe_url

_LONGEST_MESSAGE = 200
_BY_HAND = "Check the database's log, or try again."
_CONVERT = "Convert it with transform=…. PostgreSQL does not always name the column: compare the types."
_GENERATED = "Declare the column on the model: sa_column=Column(…, Computed('…')). Then values in records are ignored."
_LARGER = "Give the column a larger type, or remove the value with transform=…."
_NO_NUL = "PostgreSQL cannot store NUL characters: remove them with transform=…."
_NO_SUCH = "Create it with your own migrations, or with await ctx.ensure_table(…)."
_OLDER = "The table is older than its model: add the column with your own migrations."
_OTHERWISE = "Correct the record, or skip it with transform=…."

_State = tuple[str, type[StoreError], str, str]
"""SQLSTATE, or the start of one → kind of error, what happened, what to do."""

# PostgreSQL manual, appendix A.
_BY_STATE: tuple[_State, ...] = (
    (
        "42501",
        StoreError,
        "denied access: this user lacks a privilege",
        "Grant the privilege, or use another user in DATABASE_URL.",
    ),
    (
        "42P10",
        StoreError,
        "has no unique constraint on the key",
        "Add the constraint of the model with your own migrations.",
    ),
    ("428C9", StoreError, "rejected a value for a generated column", _GENERATED),
    ("25006", StoreError, "is read-only", "Use the primary server in DATABASE_URL, not a replica."),
    ("40", DatabaseBusy, "aborted a transaction that conflicted with another one", "Try again."),
    ("55P03", DatabaseBusy, "aborted a transaction that conflicted with another one", "Try again."),
    ("53300", DatabaseUnreachable, "has no connection left", "Raise max_connections, or run fewer processes."),
    ("53", StoreError, "has no disk space or memory left", "Free disk space or memory on the database server."),
    ("57014", StoreError, "cancelled a statement that took too long", _BY_HAND),
    (
        "22001",
        ValueRefused,
        "rejected a value: a text is too long",
        f"Shorten the text, or lengthen the column. {_CONVERT}",
    ),
    ("22003", ValueRefused, "rejected a value: a number is out of range", _LARGER),
    ("22007", ValueRefused, "rejected a value: it is not a date or time", f"Dates are ISO 8601. {_CONVERT}"),
    ("22008", ValueRefused, "rejected a value: the date or time does not exist", f"Dates are ISO 8601. {_CONVERT}"),
    ("22021", ValueRefused, "rejected a value: a text is not UTF-8, or contains a NUL character", _NO_NUL),
    ("22P05", ValueRefused, "rejected a value: a text contains a NUL character", _NO_NUL),
    ("22P02", ValueRefused, "rejected a value: it does not have the column's type", _CONVERT),
    ("22", ValueRefused, "rejected a value", _CONVERT),
)
_OF_THE_STATEMENT = ("42601", "42702", "42703", "42803", "42804", "42846", "42883", "42P01", "42P08", "42P18")
"""Errors in a statement. Their messages quote names and types, never values."""
_OUTAGES = ("08", "28", "3D", "57", "58")
"""Classes of SQLSTATE with which a server rejects or closes a connection."""

# Primary result code (sqlite.org/rescode.html) → the same.
_BY_CODE: Mapping[int, tuple[type[StoreError], str, str]] = {
    sqlite3.SQLITE_NOTADB: (DatabaseUnreachable, "is not an SQLite database", "Check DATABASE_URL."),
    sqlite3.SQLITE_CORRUPT: (StoreError, "is damaged", "Restore it from a backup."),
    sqlite3.SQLITE_READONLY: (
        DatabaseUnreachable,
        "cannot be written",
        "Check the permissions of the file and its folder.",
    ),
    **dict.fromkeys(
        (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL),
        (
            DatabaseUnreachable,
            "is locked by another process",
            "End the process that holds it, or try again.",
        ),
    ),
    sqlite3.SQLITE_CANTOPEN: (
        DatabaseUnreachable,
        "cannot be opened",
        "Check the path, and the permissions of its folder.",
    ),
    sqlite3.SQLITE_FULL: (StoreError, "cannot grow: the disk is full", "Free some space."),
    sqlite3.SQLITE_IOERR: (
        DatabaseUnreachable,
        "cannot be read or written: disk error",
        "Check the disk, and the folder's file system.",
    ),
    sqlite3.SQLITE_TOOBIG: (ValueRefused, "rejected a value: it is too long", _OTHERWISE),
    sqlite3.SQLITE_MISMATCH: (ValueRefused, "rejected a value: an id must be a whole number", _OTHERWISE),
}
_CLOSED = ("no active connection", "connection closed")

_OURS = {
    False: re.compile(r"\bkhotan_\w+"),
    True: re.compile(
        r"\b(khotan_\w+|dbos_migrations|workflow_(status|input|output|events|events_history|schedules)|operation_outputs"
        r"|notifications|streams|application_versions|queues)\b"
    ),
}
"""Names of khotan's tables and of the engine's, which on SQLite are beside them, else in a schema of their own."""
_NO_TABLE = re.compile(r'no such table: (?:main\.)?(.+)|relation "(.+)" does not exist')
_NO_COLUMN = re.compile(
    r"table (?P<t1>.+) has no column named (?P<c1>.+)|no such column: (?P<c2>.+)"
    r'|column "(?P<c3>.+)" of relation "(?P<t3>.+)" does not exist|column "?(?P<c4>[^"]+)"? does not exist'
)
_LITERALS = re.compile(r"""'[^']*'?|(?<=")\d[^"]*""")
"""Values in a piece of a statement that a message quotes."""


@contextmanager
def translated_errors(url: URL) -> Iterator[None]:
    """Translate exceptions of SQLAlchemy and the drivers raised inside the block to KhotanErrors."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        raise translate_error(exc, url) from None


def translate_error(exc: Exception, url: URL) -> KhotanError:
    """Return the KhotanError for an exception of SQLAlchemy or a driver."""
    if isinstance(exc, KhotanError):
        return exc
    name = describe_url(url)
    cause: BaseException = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    if isinstance(cause, PoolTimeout):
        return DatabaseBusy(
            f"{name}: no connection became free in time", hint="Make fewer calls at a time, or try again."
        )
    message = _first_line(cause, url)
    statement = (exc.statement or "") if isinstance(exc, DBAPIError) else ""
    on_sqlite = url.drivername.startswith("sqlite")
    found = _missing(name, message, statement, on_sqlite) if on_sqlite or _state(cause) in ("42P01", "42703") else None
    found = found or (_of_sqlite if on_sqlite else _of_postgresql)(name, cause, message)
    if found is not None:
        return found
    if "invalid connection option" in message or "invalid URI query" in message:
        return ConfigError(f"DATABASE_URL: {message}", hint="Use the options of PostgreSQL's libpq after ?.")
    if _is_outage(cause):
        return DatabaseUnreachable(
            f"{name} cannot be reached: {message}",
            hint="Check DATABASE_URL, and check that the database is running and reachable.",
            next=["khotan doctor"],
        )
    said = f"{type(cause).__name__} {_state(cause)}".rstrip()
    return StoreError(f"{name}: {said}", hint=_BY_HAND, next=["khotan doctor"])


def _state(cause: BaseException) -> str:
    return str(getattr(cause, "sqlstate", None) or "")


def _missing(name: str, message: str, statement: str, on_sqlite: bool) -> StoreError | None:
    """Return the error for a missing table or column, of khotan or of the user."""
    column = _NO_COLUMN.search(message)
    table = None if column else _NO_TABLE.search(message)
    if column:
        named = {key[0]: value for key, value in column.groupdict().items() if value}
        which, what, hint = ".".join(named[part] for part in "tc" if part in named), "column", _OLDER
    elif table:
        which, what, hint = table[1] or table[2], "table", _NO_SUCH
    elif on_sqlite:
        return None
    else:  # the server speaks another language
        which, what, hint = "", "", ""
    ours = _OURS[on_sqlite]
    if ours.match(which) or (not table and "." not in which and ours.search(message + statement)):
        return DatabaseNotMigrated(
            f"{name} does not have khotan's current tables", hint="Apply the migrations.", next=["khotan migrate"]
        )
    if not which:
        return None
    return StoreError(f"The {what} {which} does not exist in {name}", hint=hint)


def _of_sqlite(name: str, cause: BaseException, message: str) -> StoreError | None:
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF  # the rest tells kinds of it apart
    if primary in _BY_CODE:
        kind, what, hint = _BY_CODE[primary]
        return kind(f"{name} {what}", hint=hint, next=[] if kind is ValueRefused else ["khotan doctor"])
    if primary == sqlite3.SQLITE_CONSTRAINT:
        which = message.partition(" failed: ")[2]
        broken = {
            sqlite3.SQLITE_CONSTRAINT_NOTNULL: f"{which} is required, but a row has no value",
            sqlite3.SQLITE_CONSTRAINT_UNIQUE: f"another row has the same value of {which}, which is unique",
            sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: f"another row has the same value of {which}, which is unique",
            sqlite3.SQLITE_CONSTRAINT_CHECK: f"a row violates the check {which}",
            sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "a foreign key refers to a missing row, or a deleted row is still referenced",
        }
        return StoreError(f"{name}: {broken.get(code, 'a row violates a constraint')}", hint=_OTHERWISE)
    if "ON CONFLICT clause does not match" in message:
        return _by_state(name, "42P10")
    if "generated column" in message:
        return _by_state(name, "428C9")
    if primary == sqlite3.SQLITE_ERROR:
        return StoreError(f"{name}: {_LITERALS.sub('…', message)}", hint="Correct the statement.")
    return None


def _of_postgresql(name: str, cause: BaseException, message: str) -> StoreError | None:
    state, diagnosis = _state(cause), getattr(cause, "diag", None)
    if state.startswith("23") and diagnosis is not None:
        table, constraint = diagnosis.table_name, diagnosis.constraint_name
        which = " of ".join(part for part in (constraint, table) if part)
        column = ".".join(part for part in (table, diagnosis.column_name) if part)
        broken = {
            "23502": f"{column or 'a column'} is required, but a row has no value",
            "23505": f"another row has the same value of {which}, which is unique",
            "23503": f"a foreign key refers to a missing row, or a deleted row is still referenced: {which}",
            "23514": f"a row violates the check {which}",
        }
        return StoreError(f"{name}: {broken.get(state, f'a row violates {which}')}", hint=_OTHERWISE)
    if type(cause).__name__ == "DataError" and not state:  # refused by the driver
        return _by_state(name, "22P05" if "NUL" in message else "22")
    found = _by_state(name, state, _type_in(message) if state.startswith("22") else "")
    if found is None and state in _OF_THE_STATEMENT:
        return StoreError(f"{name}: {_LITERALS.sub('…', message)}", hint="Correct the statement.")
    return found


def _by_state(name: str, state: str, more: str = "") -> StoreError | None:
    for part, kind, what, hint in _BY_STATE:
        if state.startswith(part):
            return kind(f"{name} {what}{more}", hint=hint, next=[] if kind is ValueRefused else ["khotan doctor"])
    return None


def _type_in(message: str) -> str:
    """Return the type that PostgreSQL's message names before the value."""
    found = re.search(
        r"for (?:type |enum )?([a-z_][\w ]*(?:\([\d,]+\))?)(?::|$)|^(\w+) out of range|type ([a-z ]+\(\d+\))$", message
    )
    return f" ({found[1] or found[2] or found[3]})" if found else ""


def _is_outage(cause: BaseException) -> bool:
    if isinstance(cause, sqlite3.Error):
        return str(cause).lower() in _CLOSED
    kinds, state = {kind.__name__ for kind in type(cause).__mro__}, _state(cause)
    return bool(kinds & {"OperationalError", "InterfaceError", "OSError"}) and (not state or state.startswith(_OUTAGES))


def _first_line(cause: BaseException, url: URL) -> str:
    """Return the first line of the driver's message, with the password masked. It may contain user and host."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    message = lines[0] if lines else type(cause).__name__
    password = str(url.password or "")
    for form in {password, quote(password, safe=""), quote_plus(password)} - {""}:
        message = message.replace(form, "••••")
    return message[:_LONGEST_MESSAGE]
