"""Processes that tests start, and that end with the process that started them."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec a child must not import or load anything.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Have this process get a signal when its parent ends, in whatever way. Pass it as preexec_fn to subprocess.Popen.

    Linux (prctl(2), PR_SET_PDEATHSIG). Elsewhere it does nothing, and a test run that is killed may leave servers behind.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)
