"""Calls from code that is not async: scripts, notebooks, Django and Flask views, Celery tasks.

All blocking calls of a process run in one event loop in a thread of its own (anyio's blocking portal), so that threads share
its connections. A process that is forked gets a loop of its own.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar, cast

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.event_loop import new_event_loop

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")

_END: Any = object()


class BlockingLoop:
    """The event loop of the blocking calls, started by the first of them. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._thread: int | None = None
        self._stack = ExitStack()
        self._parents: object = None

    def run(self, work: Callable[[], Awaitable[T]], name: str) -> T:
        """Run a coroutine function in the loop, with the caller's context variables, and wait for its result.

        name: of the call, for the error. Raises KhotanError (blocking_in_loop) in the loop's own thread, which would wait for
        itself; else what the work raises. An interrupted wait cancels the work.
        """
        if threading.get_ident() == self._thread:
            raise KhotanError(
                f"{name}.blocking() waits for the event loop that it is called in",
                code="blocking_in_loop",
                hint="Write the hook or the auth function as `async def`, and await the endpoint.",
            )
        future = self._started().start_task_soon(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _started(self) -> BlockingPortal:
        if self._portal is None:
            with self._lock:
                if self._portal is None:
                    self._start()
        assert self._portal is not None
        return self._portal

    def _start(self) -> None:
        from anyio.from_thread import start_blocking_portal

        options = {"loop_factory": new_event_loop}
        portal = self._stack.enter_context(start_blocking_portal("asyncio", options, name="khotan-blocking"))
        self._thread = portal.call(threading.get_ident)
        self._portal = portal

    def close(self) -> None:
        """End the loop and its connections."""
        self._portal, self._thread = None, None
        self._stack.close()

    def forget(self) -> None:
        """Leave the loop to the parent, in a process that was forked from it.

        The parent's context is kept: when it is collected, it would wait for a thread that this process does not have.
        """
        self._parents = (self._parents, self._stack)
        self._lock, self._stack = threading.Lock(), ExitStack()
        self._portal, self._thread = None, None


blocking_loop = BlockingLoop()
"""Of this process."""
atexit.register(blocking_loop.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=blocking_loop.forget)


def iterate(source: AsyncIterator[T], name: str) -> Iterator[T]:
    """The values of an async generator, each as it is asked for. The generator is closed with the iterator."""
    generator = cast("AsyncGenerator[T, None]", source)

    async def following() -> T:
        return await anext(generator, _END)

    try:
        while (value := blocking_loop.run(following, name)) is not _END:
            yield value
    finally:
        blocking_loop.run(generator.aclose, name)
