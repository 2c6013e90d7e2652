"""DATABASE_URL: what is understood, and what is refused without quoting it."""

from __future__ import annotations

from pathlib import Path

import pytest

from khotan_cli.errors import ConfigError, DatabaseUnreachable
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.url import describe_url, make_folder, parse_url

ROOT = Path("/project")


@pytest.mark.parametrize(
    ("given", "driver", "database"),
    [
        ("sqlite:///.khotan/khotan.db", "sqlite", "/project/.khotan/khotan.db"),
        ("sqlite:////var/lib/khotan.db", "sqlite", "/var/lib/khotan.db"),
        ("sqlite+aiosqlite:///x.db", "sqlite", "/project/x.db"),
        (" postgres://u:p@h/d ", "postgresql", "d"),
        ("postgresql://u:p@h:5433/d?sslmode=require", "postgresql", "d"),
        ("postgresql+asyncpg://u:p@h/d", "postgresql", "d"),
    ],
)
def test_urls_are_normalised(given: str, driver: str, database: str) -> None:
    parsed = parse_url(given, ROOT)
    assert (parsed.drivername, parsed.database) == (driver, database)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("hunter2", "is not a valid database URL"),
        ("postgresql://u:hunter2@h:port/d", "is not a valid database URL"),
        ("mysql://u:hunter2@h/d", "unsupported database 'mysql'"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
        ("sqlite://khotan.db", "has a host"),
    ],
)
def test_other_urls_are_refused_without_quoting_them(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_url(given, ROOT)
    assert caught.value.hint
    assert "hunter2" not in str(caught.value.to_json())


def test_a_database_is_named_without_its_password() -> None:
    url = "postgresql://user:hunter2@db.example.com/shop"
    assert describe_url(parse_url(url, ROOT)) == "PostgreSQL db.example.com:5432/shop"
    assert repr(Database(url, ROOT)) == "Database('PostgreSQL db.example.com:5432/shop')"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseUnreachable, match="the folder cannot be created"):
        make_folder(parse_url("sqlite:///file/inner/khotan.db", tmp_path))
