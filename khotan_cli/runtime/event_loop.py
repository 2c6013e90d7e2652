"""Event loops that khotan starts itself: psycopg's asynchronous mode works in all of them.

On Windows asyncio's default is the ProactorEventLoop, which psycopg refuses ("Psycopg cannot use the 'ProactorEventLoop' to
run in async mode", psycopg documentation, "Asynchronous operations"). khotan's own loops are SelectorEventLoops there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop that is not running yet."""
    return asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in such a loop. Raises what the work raises; RuntimeError inside a running loop."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)
