"""The process that keeps a PostgreSQL server for one test run: `python postgres_keeper.py FOLDER BIN`.

It starts the server, writes FOLDER/server.json once it answers, and waits for the run to end. Every test process holds a
shared lock on FOLDER/users.lock; the kernel drops it however that process ends. When the keeper gets the lock for itself,
nobody is left: it stops the server and removes FOLDER. The server dies with the keeper (Linux).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

USER = "khotan"
START_SECONDS = 60
_PR_SET_PDEATHSIG = 1
_ATTEMPTS = 5


def main(folder: Path, binaries: Path, durable: bool = False) -> None:
    # Ctrl-C is for the tests; the keeper outlives them by the moment it takes to stop the server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _leave)
    server: subprocess.Popen[Any] | None = None
    try:
        account = _account()
        binaries = _reachable(binaries, folder, account)
        password = secrets.token_hex(16)
        data = _initialize(folder, binaries, password, account)
        server, port = _start(folder, binaries, data, account, durable)
        url = f"postgresql://{USER}:{password}@127.0.0.1:{port}"
        _publish(folder, {"url": url, "server": server.pid, "keeper": os.getpid()})
        _wait_for_users(folder)
    except Exception as exc:
        log = folder / "postgres.log"
        tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        _publish(folder, {"error": f"{type(exc).__name__}: {exc}\n{tail}"})
        _wait_for_users(folder)
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # "fast" shutdown: sessions are ended, not waited for
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _leave(*_: object) -> None:
    raise SystemExit(0)


def _account() -> tuple[int, int] | None:
    """User and group to run the server as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    import pwd

    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _demoted(account: tuple[int, int] | None, folder: Path) -> dict[str, Any]:
    options: dict[str, Any] = {"cwd": folder, "env": {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}}
    if account is not None:
        options |= {"user": account[0], "group": account[1], "extra_groups": []}
    return options


def _reachable(binaries: Path, folder: Path, account: tuple[int, int] | None) -> Path:
    """The folder of executables; a copy where the other account cannot get at the original (a root's home folder)."""
    if account is None:
        return binaries
    try:
        probe = subprocess.run(
            [str(binaries / "postgres"), "--version"], check=False, capture_output=True, **_demoted(account, folder)
        )
        if probe.returncode == 0:
            return binaries
    except PermissionError:
        pass  # what the probe is for
    package = binaries.parent.parent
    copied = folder / package.name
    shutil.copytree(package, copied)
    libraries = package.with_name(f"{package.name}.libs")  # the executables look for them beside the package
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return copied / binaries.relative_to(package)


def _initialize(folder: Path, binaries: Path, password: str, account: tuple[int, int] | None) -> Path:
    data = folder / "data"
    data.mkdir(mode=0o700)
    given = folder / "password"
    given.write_text(password)
    given.chmod(0o600)
    if account is not None:
        os.chown(data, *account)
        os.chown(given, *account)
    command = [str(binaries / "initdb"), "-D", str(data), "-U", USER, "--pwfile", str(given), "--auth=scram-sha-256"]
    command += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **_demoted(account, folder))
    given.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {done.stderr}")
    return data


def _start(
    folder: Path, binaries: Path, data: Path, account: tuple[int, int] | None, durable: bool
) -> tuple[subprocess.Popen[Any], int]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "32MB",
        "autovacuum": "off",
        # A client that gave up while it logged in holds up DROP DATABASE for so long.
        "authentication_timeout": "5s",
        "log_min_messages": "fatal",
    }
    if not durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    for attempt in range(_ATTEMPTS):
        port = _free_port()
        command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (folder / "postgres.log").open("ab") as log:
            # Runs after the change of user, which would clear it. Safe here: this process has a single thread.
            server = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                **_demoted(account, folder),
            )
        if _answers(server, data):
            return server, port
        if server.poll() is None or attempt == _ATTEMPTS - 1:  # anything but a port that was taken meanwhile
            server.kill()
            break
    raise RuntimeError(f"PostgreSQL did not start within {START_SECONDS} s")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _answers(server: subprocess.Popen[Any], data: Path) -> bool:
    """Wait for the server to write that it is ready (the eighth line of its pid file)."""
    pid_file = data / "postmaster.pid"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        if len(lines) >= 8 and lines[0] == str(server.pid) and lines[7].strip() == "ready":
            return True
        time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _publish(folder: Path, document: dict[str, Any]) -> None:
    written = folder / "server.json.new"
    written.write_text(json.dumps(document))
    written.chmod(0o600)
    written.rename(folder / "server.json")


def _wait_for_users(folder: Path) -> None:
    with (folder / "users.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "--durable" in sys.argv)
