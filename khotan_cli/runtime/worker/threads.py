"""Threads with an event loop each, one run at a time in each: a flow that never yields holds up itself alone."""

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
    """A thread and its event loop. `leave` is awaited in it before it ends, to close what belongs to the loop."""

    def __init__(self, number: int, leave: Callable[[], Awaitable[None]]) -> None:
        self._loop = new_event_loop()
        self._leave = leave
        self._stopping = self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"khotan-lane-{number}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._ended:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as exc:
                # Of a task that the work has started. Who awaits the task gets it too, and this loop goes on.
                logger.warning("%s goes on after %r", self._thread.name, exc)
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def run(self, work: Coroutine[Any, Any, T], ended: Callable[[], None]) -> T:
        """Run the work; called from another event loop. A caller that is cancelled leaves at once, and the work is cancelled
        when the thread comes to it; `ended` is called when it has ended, in the thread."""
        begun: list[asyncio.Task[T] | None] = []
        left = threading.Event()

        async def occupied() -> T:
            begun.append(asyncio.current_task())
            leaving.set(lambda: left.is_set() or self._stopping)
            try:
                with user_code_guard("Work in a thread", whole=True):
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
            with contextlib.suppress(RuntimeError):  # the thread has stopped, and cancelled it
                # Behind the start of the work, which may still be on its way.
                self._loop.call_soon_threadsafe(self._loop.call_soon, cancel)
            raise

    def stop(self) -> None:
        """Cancel what runs, close what belongs to the loop, end the thread; one that does not yield is left behind."""
        self._stopping = True
        ended = self.submit(self._wind_up())
        try:
            ended.result(_STOP_SECONDS)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            logger.warning("%s does not yield, and is left behind", self._thread.name)
            return
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(_STOP_SECONDS)

    def _end(self) -> None:
        self._ended = True
        self._loop.stop()

    async def _wind_up(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._leave()


class RunThreadPool:
    """As many pool as runs go on at a time; an idle one is used again, with its connections."""

    def __init__(self, leave: Callable[[], Awaitable[None]]) -> None:
        self._leave = leave
        self._idle: list[RunThread] = []
        self._busy: set[RunThread] = set()
        self._made = 0
        self._guard = threading.Lock()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run it in a thread; called from any event loop. A cancelled caller cancels the work."""
        with self._guard:
            self._idle = [thread for thread in self._idle if thread.alive]
            thread = self._idle.pop() if self._idle else self._make()
            self._busy.add(thread)
        return await thread.run(work(), lambda: self._freed(thread))

    @property
    def busy(self) -> bool:
        return bool(self._busy)

    def _make(self) -> RunThread:
        self._made += 1
        return RunThread(self._made, self._leave)

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
