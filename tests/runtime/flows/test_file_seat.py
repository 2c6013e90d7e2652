"""The one worker's lock at an SQLite database, between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.worker.worker_lock import FileWorkerLock
from tests.support.children import end_with_parent

HOLDER = """
import sys, time
from pathlib import Path
from khotan_cli.runtime.worker.worker_lock import FileWorkerLock
from khotan_cli.runtime.database.database import Database

lock = FileWorkerLock(Database(sys.argv[1], Path.cwd()))
print(lock.acquire(), lock.others(), flush=True)
sys.stdin.read()
"""


def test_a_seat_is_taken_once_and_free_again_when_its_process_dies(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/khotan.db"
    lock = FileWorkerLock(Database(url, tmp_path))
    assert not lock.others(), "no process has ever taken it"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    )
    assert holder.stdout is not None
    with holder:
        try:
            assert holder.stdout.readline().split() == ["True", "False"]
            assert lock.others() and not lock.acquire() and lock.others()
        finally:
            holder.kill()
    assert not lock.others(), "the system drops the lock of a process that was killed"
    assert lock.acquire() and not lock.others()
    second = FileWorkerLock(Database(url, tmp_path))
    assert second.others() and not second.acquire()
    lock.release()
    lock.release()
    assert second.acquire()
    second.release()
