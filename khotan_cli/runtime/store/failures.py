"""Exceptions of SQLAlchemy and the drivers → khotan's, in one place. Neither statements nor values are quoted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
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
from khotan_cli.runtime.store.url import describe_url

_LONGEST_MESSAGE = 200
_BY_HAND = "Look at the database's own log, or try again."
_NO_NUL = "PostgreSQL takes no NUL characters, and no numbers beyond its types."

# SQLSTATE (PostgreSQL manual, appendix A), or the start of one → kind of error, what happened, what to do.
_BY_STATE: tuple[tuple[str, type[StoreError], str, str], ...] = (
    ("42P01", DatabaseNotMigrated, "has not khotan's tables, or old ones", "Apply the migrations."),
    ("42703", DatabaseNotMigrated, "has not khotan's tables, or old ones", "Apply the migrations."),
    ("42501", StoreError, "refuses: this user lacks a privilege", "Grant it, or use another user in DATABASE_URL."),
    ("25006", StoreError, "only lets itself be read", "Name the primary in DATABASE_URL, not a replica."),
    ("40", DatabaseBusy, "gave up a transaction that was in another's way", "Try again."),
    ("53300", DatabaseUnreachable, "has no connection left", "Raise max_connections, or run fewer processes."),
    ("53", StoreError, "has no room left", "Free disk or memory of the database server."),
    ("57014", StoreError, "cancelled a statement that took too long", _BY_HAND),
    ("22", ValueRefused, "takes no such value", _NO_NUL),
)

# Part of SQLite's message (sqlite.org/rescode.html) → the same.
_BY_MESSAGE: tuple[tuple[str, type[StoreError], str, str], ...] = (
    ("no such table", DatabaseNotMigrated, "has not khotan's tables, or old ones", "Apply the migrations."),
    ("no such column", DatabaseNotMigrated, "has not khotan's tables, or old ones", "Apply the migrations."),
    ("no column named", DatabaseNotMigrated, "has not khotan's tables, or old ones", "Apply the migrations."),
    ("not a database", DatabaseUnreachable, "is a file, but no SQLite database", "Check DATABASE_URL."),
    ("malformed", StoreError, "is damaged", "Restore it from a backup."),
    ("readonly", DatabaseUnreachable, "cannot be written", "Check the permissions of the file and its folder."),
    (
        "locked",
        DatabaseUnreachable,
        "is kept locked by another process",
        "End the process that holds it, or try again.",
    ),
    ("unable to open", DatabaseUnreachable, "cannot be opened", "Check the path, and the permissions of its folder."),
    ("is full", StoreError, "cannot grow: the disk is full", "Free some space."),
    ("disk I/O", StoreError, "cannot be read or written: disk error", "Check the disk, and the folder's file system."),
)


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Raise what SQLAlchemy or a driver raises inside as a KhotanError."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
        raise explain(exc, url) from None


def explain(exc: Exception, url: URL) -> KhotanError:
    """The KhotanError for an exception of SQLAlchemy or a driver."""
    if isinstance(exc, KhotanError):
        return exc
    name = describe_url(url)
    cause: BaseException = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    if isinstance(cause, PoolTimeout):
        return DatabaseBusy(f"{name}: no connection came free in time", hint="Fewer calls at a time, or try again.")
    message = _first_line(cause, url)
    sqlite = url.drivername.startswith("sqlite")
    state = str(getattr(cause, "sqlstate", None) or "")
    matches: Callable[[str], bool] = (lambda part: part in message) if sqlite else state.startswith
    for part, kind, what, hint in _BY_MESSAGE if sqlite else _BY_STATE:
        if matches(part):
            steps = {DatabaseNotMigrated: ["khotan migrate"], ValueRefused: []}
            return kind(f"{name} {what}", hint=hint, next=steps.get(kind, ["khotan doctor"]))
    if "invalid connection option" in message or "invalid URI query" in message:
        return ConfigError(f"DATABASE_URL: {message}", hint="Options after ? are those of PostgreSQL's libpq.")
    if _is_outage(cause):
        return DatabaseUnreachable(
            f"{name} cannot be reached: {message}",
            hint="Check DATABASE_URL, and that the database runs and is reachable from here.",
            next=["khotan doctor"],
        )
    if type(cause).__name__ == "DataError":  # refused by the driver, which gives no SQLSTATE
        return ValueRefused(f"{name} takes no such value", hint=_NO_NUL)
    return StoreError(f"{name}: {type(cause).__name__} {state}".rstrip(), hint=_BY_HAND, next=["khotan doctor"])


def _is_outage(cause: BaseException) -> bool:
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    return bool(kinds & {"OperationalError", "InterfaceError", "OSError"})


def _first_line(cause: BaseException, url: URL) -> str:
    """What the driver says. It names user and host; a password in it would be an accident, and is taken out."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    message = lines[0] if lines else type(cause).__name__
    password = str(url.password or "")
    for form in {password, quote(password, safe=""), quote_plus(password)} - {""}:
        message = message.replace(form, "••••")
    return message[:_LONGEST_MESSAGE]
