"""A real PgBouncer in front of the tests' PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from tests.support.ports import free_port
from tests.support.services import missing


@contextmanager
def pgbouncer(database_url: str, mode: str, *, pool_size: int = 4) -> Iterator[str]:
    """The URL of the same database through PgBouncer in that pool mode.

    Skips the test where the program is missing.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing("There is no pgbouncer: apt-get install pgbouncer")
    url, port = make_url(database_url), free_port()
    with tempfile.TemporaryDirectory(prefix="khotan-pgbouncer-") as folder:
        Path(folder).chmod(0o755)
        users, config = Path(folder) / "users.txt", Path(folder) / "pgbouncer.ini"
        users.write_text(f'"{url.username}" "{url.password}"\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": users,
            "pool_mode": mode,
            "default_pool_size": pool_size,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        databases = f"[databases]\n{url.database} = host={url.host} port={url.port}\n[pgbouncer]\n"
        config.write_text(databases + "\n".join(lines) + "\n")
        account: dict[str, Any] = (
            {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        )
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([program, str(config)], **quiet, **account)
        pooled = url.set(port=port, host="127.0.0.1").render_as_string(hide_password=False)
        try:
            _wait(pooled, process)
            yield pooled
        finally:
            process.terminate()
            process.wait(20)


def _wait(url: str, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 20
    while True:
        with suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            connection.execute("SELECT 1", prepare=False)
            return
        assert process.poll() is None and time.monotonic() < deadline, "pgbouncer does not start"
        time.sleep(0.05)
