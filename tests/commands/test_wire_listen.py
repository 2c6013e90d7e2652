"""`khotan wire listen`: at a terminal with keys, and in a pipe."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.children import end_with_parent
from tests.support.loopback import Answer, Asked, as_json, threaded_loopback
from tests.support.project import Project
from tests.support.terminal import at_terminal
from tests.support.webhooks import Served, order, send, served_app, webhook_project

KHOTAN = [sys.executable, "-m", "khotan_cli"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Project, Served]]:
    project = webhook_project(tmp_path, f"sqlite:///{tmp_path}/khotan.db")
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in project.env.items()))
    with served_app(project) as app:
        yield project, app


def plain(screen: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)


def test_events_appear_as_they_arrive_and_r_replays_the_selected_one(
    served: tuple[Project, Served], tmp_path: Path
) -> None:
    project, app = served
    screen, code = at_terminal(
        [*KHOTAN, "wire", "listen", "shop"],
        tmp_path,
        [
            ("Waiting for events", lambda: send(app.url, order(1))),
            ('"evt_1"', lambda: send(app.url, order(2))),  # its body: it is the newest
            ('"evt_2"', "\x1b[A"),
            ("", "r"),
            ("Replayed event 1", "q"),
        ],
    )
    assert code == 0, screen
    assert "Listening to shop at /api/khotan/webhook/shop" in plain(screen)
    assert "record: completed" in plain(screen) and "record: completed, record" not in plain(screen)
    assert "No worker is running" not in plain(screen)
    runs = project.khotan("wire", "show", "1").json["runs"]
    assert [run["source"] for run in runs] == ["webhook", "manual"]
    assert len(project.khotan("wire", "show", "2").json["runs"]) == 1


def test_it_says_when_nobody_runs_handlers(tmp_path: Path) -> None:
    project = webhook_project(tmp_path, f"sqlite:///{tmp_path}/khotan.db")
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in project.env.items()))
    with served_app(project, KHOTAN_ENGINE="off") as app:
        send(app.url, order(1))
    screen, code = at_terminal(
        [*KHOTAN, "wire", "listen", "shop", "--since", "1h"],
        tmp_path,
        [("No worker is running", ""), ('"evt_1"', "r"), ("Replayed event 1: 1 run, which waits", "q")],
    )
    assert code == 0, screen
    assert project.khotan("wire", "listen", "shop", "--for", "0.1").json["worker"] is False
    assert "No worker is running" in project.khotan("wire", "status", "shop", json_mode=False).stdout


def test_it_ends_with_its_terminal(served: tuple[Project, Served], tmp_path: Path) -> None:
    """Also where it was told to survive a hang-up, by nohup say: it does not go on looking for keys."""
    pid, terminal = pty.fork()
    if pid == 0:
        end_with_parent()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.chdir(tmp_path)
        os.execv(sys.executable, [*KHOTAN, "wire", "listen", "shop"])
    seen = b""
    while b"Waiting for events" not in seen:
        seen += os.read(terminal, 65536)
    os.close(terminal)
    ended, deadline = 0, time.monotonic() + 120
    while not ended and time.monotonic() < deadline:
        ended, _ = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)  # another process ends
    if not ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert ended == pid


def test_a_terminal_is_as_it_was_after_ctrl_c(served: tuple[Project, Served], tmp_path: Path) -> None:
    script = (
        f"trap : INT; stty -a > before; {sys.executable} -m khotan_cli wire listen shop; echo exit=$?; stty -a > after"
    )
    screen, _ = at_terminal(["/bin/sh", "-c", script], tmp_path, [("Waiting for events", "\x03")])
    assert "exit=130" in screen
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


def test_a_pipe_gets_one_document_of_so_many_events(served: tuple[Project, Served], tmp_path: Path) -> None:
    project, app = served
    send(app.url, order(1))
    later = threading.Thread(target=send, args=(app.url, order(2)))
    later.start()
    done = project.khotan("wire", "listen", "shop", "--since", "1h", "--count", "2", "--for", "30")
    later.join()
    assert done.code == 0, done.stdout + done.stderr
    assert [event["remoteId"] for event in done.json["items"]] == ["evt_1", "evt_2"]
    none = project.khotan("wire", "listen", "shop", "--for", "0.1")
    assert none.json == {"ok": True, "wire": "shop", "worker": True, "items": []}


class Restarting:
    """A server that goes away after the first answer, as at each file that is saved, until `back` is set."""

    EVENT = {"id": "1", "wire": "shop", "receivedAt": "2026-01-31T08:00:00Z", "type": "order.paid", "runs": []}

    def __init__(self) -> None:
        self.back = threading.Event()
        self.missed = 0

    def __call__(self, asked: Asked) -> Answer:
        if asked.path.endswith("/wires/shop"):
            return as_json({"ok": True, "id": "shop", "path": "/webhook/shop", "worker": True})
        if not self.back.is_set():
            self.missed += 1
            return Answer(drop=True)
        event = {**self.EVENT, "status": "unhandled", "repeats": 0}
        if asked.path.endswith("/webhook-events/1"):
            return as_json({"ok": True, **event, "json": {"id": "evt_1"}, "text": None, "base64": None})
        return as_json({"ok": True, "items": [event], "total": 1})


def test_a_server_that_restarts_is_waited_for(tmp_path: Path) -> None:
    server = Restarting()
    with threaded_loopback(server) as served:
        command = [*KHOTAN, "--url", served.url, "wire", "listen", "shop"]
        screen, code = at_terminal(command, tmp_path, [("Reconnecting", server.back.set), ('"evt_1"', "q")])
    assert code == 0 and server.missed, screen


def test_a_pipe_waits_for_a_server_that_restarts_as_long_as_it_may(tmp_path: Path) -> None:
    server, project = Restarting(), Project(tmp_path)
    with threaded_loopback(server) as served:
        project.url = served.url
        never = project.khotan("wire", "listen", "shop", "--for", "1")
        assert (never.code, never.json["error"]) == (4, "server_unreachable") and server.missed > 1
        later = threading.Timer(1.0, server.back.set)
        later.start()
        done = project.khotan("wire", "listen", "shop", "--count", "1")
        later.join()
    assert done.code == 0, done.stdout
    assert [event["id"] for event in done.json["items"]] == ["1"]


@pytest.mark.parametrize("words", [["shop"], ["shpo", "--count", "1"], ["shop", "--count", "-1"]], ids=" ".join)
def test_bad_input(tmp_path: Path, words: list[str]) -> None:
    project = webhook_project(
        tmp_path, f"sqlite:///{tmp_path}/khotan.db"
    )  # refused before anything is asked of a server
    done = project.khotan("wire", "listen", *words)
    assert done.code == 2 and done.json["ok"] is False


def test_help_says_what_the_keys_do(tmp_path: Path) -> None:
    done = subprocess.run([*KHOTAN, "wire", "listen", "--help"], capture_output=True, text=True, check=True)
    assert "r replays it" in " ".join(done.stdout.split())
