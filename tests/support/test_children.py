"""A test run that is killed or interrupted leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.children import end_with_parent

GONE_SECONDS = 90
# What tests start, in all the ways they do. The process then says so, and waits to be ended as a test run would be.
RUN = """
import subprocess, sys
from contextlib import ExitStack
from pathlib import Path
from khotan_cli.runtime.store import migrate
from tests.support.flows import flows_project, worker
from tests.support.project import dev_server, write_project
from tests.support.ports import free_port
from tests.support.services import running
from tests.support.webhooks import served_app, webhook_project

def main(folder):
    with ExitStack() as stack:
        project = webhook_project(folder / "a", f"sqlite:///{folder}/a.db")
        stack.enter_context(served_app(project, KHOTAN_ENGINE="off"))
        stack.enter_context(worker(project))
        stack.enter_context(dev_server(write_project(folder / "b", "http://127.0.0.1:9")))
        port = free_port()
        stack.enter_context(running([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], port))
        print("ready", flush=True)
        sys.stdin.read()

if __name__ == "__main__":
    main(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whole_group", [False, True], ids=["alone", "group"])
def test_everything_ends_with_the_test_run(tmp_path: Path, ending: signal.Signals, whole_group: bool) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    root = Path(__file__).resolve().parents[2]
    run = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    assert run.stdout is not None
    family: list[psutil.Process] = []
    try:
        assert run.stdout.readline() == "ready\n"
        family = psutil.Process(run.pid).children(recursive=True)
        assert len(family) >= 6, "an app, a worker and the process that forks it, khotan dev, a guard and its service"
        if whole_group:  # as a terminal does on Ctrl-C, and timeout(1) by default
            os.killpg(run.pid, ending)
        else:
            run.send_signal(ending)
        _, alive = psutil.wait_procs([psutil.Process(run.pid), *family], timeout=GONE_SECONDS)
        assert alive == []
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        run.kill()
        run.communicate()
