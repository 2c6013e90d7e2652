"""`khotan dev` and its children end together, however the parent ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.children import end_with_parent
from tests.support.project import Project, write_project

GONE_SECONDS = 90
# The app blocks its event loop for good at this path, and a request to it never ends.
BLOCKED = """
import time

@app.get("/block")
async def block() -> None:
    print("blocked", flush=True)
    time.sleep(100_000)
"""


@contextmanager
def dev(project: Project, *words: str) -> Iterator[tuple[subprocess.Popen[str], str, list[psutil.Process]]]:
    """A running `khotan dev`, its URL, and all of its processes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "khotan_cli", "dev", "--port", "0", *words],
        cwd=project.folder,
        env=project.environment({"KHOTAN_OUTPUT": "json"}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    )
    family: list[psutil.Process] = []
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:  # in either order
            said += line
            if "running on" in said and "startup complete" in said:
                break
        url = said.partition("running on ")[2].split()[0]
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
        yield process, url, family
    finally:
        for member in family:
            if member.is_running():
                member.kill()
        process.kill()
        process.wait()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return write_project(tmp_path / "p", "http://127.0.0.1:9")


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("words", [[], ["--no-reload"]], ids=["reload", "no-reload"])
def test_children_end_with_their_parent(project: Project, words: list[str], ending: signal.Signals) -> None:
    with dev(project, *words) as (process, url, family):
        assert len(family) > 1 or words
        assert httpx.get(f"{url}/api/khotan/health").status_code == 200
        process.send_signal(ending)
        _, alive = psutil.wait_procs(family, timeout=GONE_SECONDS)
        assert alive == []
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_an_app_that_blocks_its_event_loop_ends_too(project: Project, ending: signal.Signals) -> None:
    app = project.folder / "khotan/app.py"
    app.write_text(app.read_text() + BLOCKED)
    with dev(project) as (process, url, family):
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{url}/block", timeout=0.5)  # it never answers
        process.send_signal(ending)
        _, alive = psutil.wait_procs(family, timeout=GONE_SECONDS)
        assert alive == []
