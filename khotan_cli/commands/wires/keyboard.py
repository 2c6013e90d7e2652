"""Reads single keys from a terminal, without Enter. On systems without termios, no keys are read."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

_ARROWS = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down"}


class Keys:
    """Context manager that reads keys as they are pressed, without echo."""

    def __enter__(self) -> Self:
        self._before: list[Any] | None = None
        try:
            import termios
            import tty
        except ImportError:
            return self
        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)  # Ctrl-C stays a signal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            import termios

            with suppress(termios.error):  # the terminal was closed
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def pressed(self, seconds: float) -> Iterator[str]:
        """Wait at most `seconds` for keys and yield them: characters, `up` and `down`. Returns after the first read.

        Raises KeyboardInterrupt if the terminal was closed.
        """
        if self._before is None:
            time.sleep(seconds)
            return
        descriptor = sys.stdin.fileno()
        if not select.select([descriptor], [], [], seconds)[0]:
            return
        try:
            pressed = os.read(descriptor, 256)
        except OSError:
            pressed = b""
        if not pressed:
            raise KeyboardInterrupt
        text = pressed.decode(errors="ignore")
        while text:
            arrow = next((code for code in _ARROWS if text.startswith(code)), None)
            yield _ARROWS[arrow] if arrow else text[0]
            text = text[len(arrow) if arrow else 1 :]
