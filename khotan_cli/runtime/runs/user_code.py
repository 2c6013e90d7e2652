"""What a user's function must not do to the thread that runs it: end it, or pass off its own cancellation as ours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from khotan_cli.errors import FlowError

leaving: ContextVar[Callable[[], bool] | None] = ContextVar("khotan_leaving", default=None)
"""In a lane: whether the work that runs there is to stop, for its caller has left or the lane is being stopped."""


@contextmanager
def user_code_guard(what: str, *, whole: bool = False) -> Iterator[None]:
    """Raises FlowError, which names `what`, for SystemExit and for a cancellation of the work's own making.

    whole: this is all that the lane runs now, so that nobody but the lane cancels it. A part may be cancelled by what is
    around it, a timeout say.
    """
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as exc:
        if isinstance(exc, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # somebody's Ctrl-C
        raise _failure(f"{what} ended the process' work with {exc!r}", exc) from None
    except asyncio.CancelledError as exc:
        if cancelled_from_outside(whole=whole):
            raise
        raise _failure(f"{what} cancelled itself, or waited for what was cancelled", exc) from None


def cancelled_from_outside(*, whole: bool = False) -> bool:
    """Whether the CancelledError that is under way was asked for by somebody else; whole: as for `contained`."""
    asked = leaving.get()
    if whole and asked is not None:
        return asked()
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failure(message: str, exc: BaseException) -> FlowError:
    error = FlowError(
        message,
        code="flow_failed",
        hint="Let it return, or raise an error: the process has other runs to go on with.",
    )
    return error.with_traceback(exc.__traceback__)  # it leads to the user's line
