"""Migrated databases by copying one: the migrations run once per test process, and once per PostgreSQL server."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from khotan_cli.runtime.store import migrate

_TEMPLATE = "khotan_template"
_LOCK = 715_281
"""Advisory lock of the one process that makes the template."""


def upgrade(url: str, root: Path) -> None:
    """Bring a fresh database up to date, as `migrate.upgrade` does."""
    parsed = make_url(url)
    if parsed.drivername == "sqlite":
        target = Path(str(parsed.database))
        if target.is_absolute() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(_sqlite_template(), target)
            return
    elif parsed.database not in ("postgres", None) and _from_template(url):
        return
    migrate.upgrade(url, root)


@lru_cache(maxsize=1)
def _sqlite_template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="khotan-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "khotan.db"
    migrate.upgrade(f"sqlite:///{file}", folder)
    return file


def _from_template(url: str) -> bool:
    """Replace a fresh database by a copy of the template; False where somebody is connected to it."""
    parsed = make_url(url)
    server = parsed.set(database="postgres").render_as_string(hide_password=False)
    try:
        connection = psycopg.connect(server, autocommit=True)
    except psycopg.OperationalError:  # a pooler that serves one database only
        return False
    with connection as admin:
        _make_template(admin, url)
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            name, template = sql.Identifier(str(parsed.database)), sql.Identifier(_TEMPLATE)
            admin.execute(sql.SQL("DROP DATABASE {}").format(name))
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, template))
            return True
    return False


def _make_template(admin: psycopg.Connection[tuple[object, ...]], url: str) -> None:
    there = "SELECT 1 FROM pg_database WHERE datname = %s AND datistemplate"
    if admin.execute(there, (_TEMPLATE,)).fetchone():
        return
    admin.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        if not admin.execute(there, (_TEMPLATE,)).fetchone():
            admin.execute(f"CREATE DATABASE {_TEMPLATE}")
            template = make_url(url).set(database=_TEMPLATE).render_as_string(hide_password=False)
            migrate.upgrade(template, Path.cwd())
            admin.execute(f"ALTER DATABASE {_TEMPLATE} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")
    finally:
        admin.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
