"""Parses DATABASE_URL and formats the display name of the database."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from khotan_cli.errors import ConfigError, DatabaseUnreachable

_HINT = "Use sqlite:///path/to/file.db or postgresql://user:password@host/name."


def parse_url(url: str, root: Path) -> URL:
    """Parse DATABASE_URL. Removes the driver, and resolves a relative SQLite path against the project.

    Raises ConfigError, which never quotes the URL, because it may contain a password.
    """
    try:
        parsed = make_url(url.strip())
    except (ArgumentError, ValueError):
        raise ConfigError("DATABASE_URL is not a valid database URL", hint=_HINT) from None
    backend = parsed.drivername.partition("+")[0].lower()
    if backend in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql")
    if backend != "sqlite":
        raise ConfigError(f"DATABASE_URL: unsupported database {backend!r}", hint=_HINT)
    return parsed.set(drivername="sqlite", database=str((root / _file_name(parsed)).resolve()))


def _file_name(url: URL) -> str:
    if url.host:
        raise ConfigError(
            "DATABASE_URL has a host, which SQLite does not support",
            hint="Use three slashes before the path: sqlite:///file.db.",
        )
    name = url.database or ""
    if not name or name == ":memory:" or name.startswith("file:") or url.query.get("mode") == "memory":
        raise ConfigError(
            "DATABASE_URL must name an SQLite file: other processes cannot use a database in memory",
            hint="Use a file, such as sqlite:///.khotan/khotan.db.",
        )
    return name


def describe_url(url: URL) -> str:
    """Return the display name of the database, without user and password."""
    if url.drivername.startswith("sqlite"):
        return f"SQLite {url.database}"
    return f"PostgreSQL {url.host or url.query.get('host') or 'localhost'}:{url.port or 5432}/{url.database or ''}"


def make_folder(url: URL) -> None:
    """Create the folder of an SQLite file. Raises DatabaseUnreachable."""
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DatabaseUnreachable(
            f"{describe_url(url)}: the folder cannot be created: {exc.strerror}", hint="Check DATABASE_URL."
        ) from None
