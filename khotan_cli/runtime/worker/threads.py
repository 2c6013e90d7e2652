"""Thread pool with one event loop per thread and one run at a time in each, so that a blocking flow delays only itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from khotan_cli.runtime.event_loop import new_event_loop
from khotan_cli.runtime.runs.user_code import leaving, user_code_guard

T = TypeVar("T")

_STOP_SECONDS = 5.0

logger = logging.getLogger("khotan.flows")


class RunThread:
    """A thread with an event loop. `on_close` is awaited in the loop before it ends, to close its connections."""

    def __init__(self, number: int, on_close: Callable[[], Awaitable[None]]) -> None:
        self._loop = new_event_loop()
        self._on_close = on_close
        self._stopping = self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"khotan-run-{number}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._ended:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as exc:
                # Raised by a task that the work started. The task's awaiter gets it too; this loop continues.
                logger.warning("%s continues after %r", self._thread.name, exc)
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def run(self, work: Coroutine[Any, Any, T], ended: Callable[[], None]) -> T:
        """Run the work in this thread; call it from another event loop.

        A cancelled caller returns at once, and the work is cancelled as soon as the thread yields. `ended` is called in the
        thread when the work has ended.
        """
        begun: list[asyncio.Task[T] | None] = []
        left = threading.Event()

        async def occupied() -> T:
            begun.append(asyncio.current_task())
            leaving.set(lambda: left.is_set() or self._stopping)
            try:
                with user_code_guard("The work of a run thread", whole=True):
                    return await work
            finally:
                ended()

        def cancel() -> None:
            for task in begun:
                if task is not None:
                    task.cancel()

        future = asyncio.wrap_future(self.submit(occupied()))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            left.set()
            with contextlib.suppress(RuntimeError):  # the loop has stopped and cancelled the work
                # Queued after the start of the work, which may still be pending.
                self._loop.call_soon_threadsafe(self._loop.call_soon, cancel)
            raise

    def stop(self) -> None:
        """Cancel the work, close the loop's connections and end the thread. A thread that does not yield is abandoned."""
        self._stopping = True
        ended = self.submit(self._shut_down())
        try:
            ended.result(_STOP_SECONDS)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            logger.warning("%s does not yield and is abandoned", self._thread.name)
            return
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(_STOP_SECONDS)

    def _end(self) -> None:
        self._ended = True
        self._loop.stop()

    async def _shut_down(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._on_close()


class RunThreadPool:
    """A pool that grows to the number of concurrent runs. Idle threads are reused with their connections."""

    def __init__(self, on_close: Callable[[], Awaitable[None]]) -> None:
        self._on_close = on_close
        self._idle: list[RunThread] = []
        self._busy: set[RunThread] = set()
        self._created = 0
        self._guard = threading.Lock()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the work in a thread; call it from any event loop. A cancelled caller cancels the work."""
        with self._guard:
            self._idle = [thread for thread in self._idle if thread.alive]
            thread = self._idle.pop() if self._idle else self._create()
            self._busy.add(thread)
        return await thread.run(work(), lambda: self._freed(thread))

    @property
    def busy(self) -> bool:
        return bool(self._busy)

    def _create(self) -> RunThread:
        self._created += 1
        return RunThread(self._created, self._on_close)

    def _freed(self, thread: RunThread) -> None:
        with self._guard:
            if thread in self._busy:
                self._busy.discard(thread)
                self._idle.append(thread)

    def stop(self) -> None:
        with self._guard:
            pool = [*self._idle, *self._busy]
            self._idle, self._busy = [], set()
        for thread in pool:
            if thread.alive:
                thread.stop()
