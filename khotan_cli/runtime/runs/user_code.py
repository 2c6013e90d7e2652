"""Guards user code: it must not end the thread that runs it, and its own cancellation must not look like khotan's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from khotan_cli.errors import FlowError

leaving: ContextVar[Callable[[], bool] | None] = ContextVar("khotan_leaving", default=None)
"""In a run thread: whether the work must stop, because its caller was cancelled or the thread is being stopped."""


@contextmanager
def user_code_guard(what: str, *, whole: bool = False) -> Iterator[None]:
    """Raises FlowError, which names `what`, for SystemExit and for a cancellation that the user code caused itself.

    whole: the guarded code is all the work of the thread, so only the thread may cancel it. A part may also be cancelled by
    its surroundings, for example by a timeout.
    """
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as exc:
        if isinstance(exc, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # Ctrl-C
        raise _failure(f"{what} tried to exit the process with {exc!r}", exc) from None
    except asyncio.CancelledError as exc:
        if cancelled_from_outside(whole=whole):
            raise
        raise _failure(f"{what} cancelled itself or awaited a cancelled task", exc) from None


def cancelled_from_outside(*, whole: bool = False) -> bool:
    """Whether the current CancelledError comes from outside the user code. whole: as for `user_code_guard`."""
    must_stop = leaving.get()
    if whole and must_stop is not None:
        return must_stop()
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failure(message: str, exc: BaseException) -> FlowError:
    error = FlowError(
        message,
        code="flow_failed",
        hint="Return, or raise an exception instead: other runs share the process.",
    )
    return error.with_traceback(exc.__traceback__)  # it contains the user's line
