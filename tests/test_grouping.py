"""Tests of one xdist group run in one process, so that what they share is started once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MODULE = """
import os
from pathlib import Path
import pytest

pytestmark = pytest.mark.xdist_group("together")

@pytest.mark.parametrize("number", range(12))
def test_it(number):
    with (Path(__file__).parent / "pids").open("a") as file:
        file.write(f"{os.getpid()}\\n")
"""


def test_a_group_runs_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_group.py").write_text(MODULE)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 12 and len(set(pids)) == 1
