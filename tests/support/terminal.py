"""A command at a pseudo-terminal, answered as a person would."""

from __future__ import annotations

import os
import pty
import select
import signal
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.children import end_with_parent


def at_terminal(
    command: Sequence[str],
    folder: Path,
    answers: Sequence[tuple[str, str | Callable[[], object]]] = (),
    *,
    interrupt_at: str = "",
    hidden: bool = False,
) -> tuple[str, int]:
    """Run the command; type each answer when its prompt has appeared. Returns what was on the screen, and the exit code.

    An answer that is a function is called. interrupt_at: send Ctrl-C once this text has appeared. hidden: the questions do
    not echo.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        end_with_parent()
        os.chdir(folder)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("KHOTAN_") and k != "DATABASE_URL"}
        os.execve(command[0], list(command), {**clean, "TERM": "xterm", "COLUMNS": "120"})
    waiting, seen, deadline = list(answers), "", time.monotonic() + 180
    try:
        while time.monotonic() < deadline:
            # A hidden question throws away what was typed before it: wait until it has turned the echo off.
            if waiting and waiting[0][0] in seen and (not hidden or not termios.tcgetattr(terminal)[3] & termios.ECHO):
                answer = waiting.pop(0)[1]
                if isinstance(answer, str):
                    os.write(terminal, answer.encode())
                else:
                    answer()
            if not select.select([terminal], [], [], 0.05)[0]:
                continue
            try:
                data = os.read(terminal, 65536)
            except OSError:  # Linux says so when the other side has gone
                break
            if not data:
                break
            seen += data.decode("utf-8", "replace")
            if interrupt_at and interrupt_at in seen:
                interrupt_at = ""
                os.kill(pid, signal.SIGINT)
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(terminal)
    return seen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
