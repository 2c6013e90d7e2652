"""Fixtures that every test may use: a clean environment, and databases of both kinds."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import PostgresMissing, PostgresServer, running_server

for _signal in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    # A shell ignores some of these for what it runs in the background, nohup another; programs that tests start inherit that.
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, signal.default_int_handler if _signal == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """No setting of khotan from outside; whatever a test or a .env file sets is gone after it."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("KHOTAN_") or name in ("DATABASE_URL", "CRON_SECRET")]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole test run, shared by all xdist workers. Skips where it is not installed, but not in CI."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"alone-{os.getpid()}"
    try:
        with running_server(run_id) as server:
            yield server
    except PostgresMissing as exc:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"No PostgreSQL for the tests: {exc}")
        pytest.skip(f"no PostgreSQL: {exc}")


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """`postgresql://user:password@127.0.0.1:port/name` of a fresh, empty database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """`sqlite:////…` of a file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'khotan.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The test runs twice: on a fresh SQLite file and on a fresh PostgreSQL database."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url
