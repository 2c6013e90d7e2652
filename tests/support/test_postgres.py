"""The test server itself: shared, fresh databases, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psycopg

from tests.support.children import end_with_parent
from tests.support.postgres import PostgresServer

_HOLD = """
import sys
from tests.support.postgres import running_server
with running_server(sys.argv[1]) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def test_databases_are_fresh_and_dropped(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as first, postgres_server.database() as second:
        assert first != second
        with psycopg.connect(first) as connection:
            connection.execute("CREATE TABLE one (id int)")
        with psycopg.connect(second) as connection:
            assert connection.execute("SELECT to_regclass('one')").fetchone() == (None,)
    with psycopg.connect(f"{postgres_server.url}/postgres") as connection:
        names = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
    assert not {first.rpartition("/")[2], second.rpartition("/")[2]} & names


def test_two_processes_share_a_server_and_killed_ones_leave_nothing(postgres_server: PostgresServer) -> None:
    run_id = f"twin-{uuid.uuid4().hex[:8]}"
    folder = Path(tempfile.gettempdir()) / f"khotan-postgres-{os.getuid()}-{run_id}"
    holders = [_holder(run_id), _holder(run_id)]
    urls = {holder.stdout.readline().strip() for holder in holders if holder.stdout}
    assert len(urls) == 1
    pids = json.loads((folder / "server.json").read_text())
    holders[0].send_signal(signal.SIGKILL)
    holders[0].wait()
    with psycopg.connect(f"{urls.pop()}/postgres") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    holders[1].send_signal(signal.SIGKILL)
    holders[1].wait()
    deadline = time.monotonic() + 120
    while (folder.exists() or _alive(pids["server"])) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not folder.exists()
    assert not _alive(pids["server"])
    Path(f"{folder}.lock").unlink(missing_ok=True)


def _holder(run_id: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", _HOLD, run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        preexec_fn=end_with_parent,
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
