"""A migrated database of each kind, and the stores over it."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.store.variables import DatabaseVarStore
from tests.support import migrated
from tests.support.children import end_with_parent

Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def migrated_url(database_url: str, tmp_path: Path) -> str:
    migrated.upgrade(database_url, tmp_path)
    return database_url


@pytest.fixture
async def database(migrated_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(migrated_url, tmp_path)
    yield database
    await database.dispose()


@pytest.fixture
def secret() -> str:
    return secrets.token_urlsafe(48)


@pytest.fixture
def store(database: Database, secret: str) -> DatabaseVarStore:
    return DatabaseVarStore(database, Cipher(secret))


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a Python process on a piece of code and arguments; killed at the end where it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
