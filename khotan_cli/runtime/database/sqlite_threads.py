"""aiosqlite runs each connection in a thread, which reports to the event loop. The loop must not close before the thread ends:
the thread would raise, and Python prints its traceback."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any
from weakref import WeakSet

_LONGEST_WAIT = 5.0
"""Seconds. A statement that was cancelled ends within the busy timeout; a connection that is in use does not end."""


class ConnectionThreads:
    """The threads of the SQLite connections of one event loop."""

    def __init__(self) -> None:
        self._threads: WeakSet[threading.Thread] = WeakSet()

    def add(self, connection: Any, _record: Any) -> None:
        """Note the thread of a new connection: a listener of SQLAlchemy's `connect` event."""
        if thread := thread_of(connection.driver_connection):
            self._threads.add(thread)

    async def ended(self) -> None:
        """Wait until the threads of closed connections have ended, for a few seconds at most."""
        deadline = time.monotonic() + _LONGEST_WAIT
        for thread in list(self._threads):
            if thread.is_alive():
                await asyncio.to_thread(thread.join, max(0.0, deadline - time.monotonic()))


def thread_of(connection: Any) -> threading.Thread | None:
    """The thread of an aiosqlite connection: a private name, used here only; a test fails where aiosqlite has it no more."""
    return getattr(connection, "_thread", None)
