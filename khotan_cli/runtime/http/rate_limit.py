"""One bucket per account: requests of one plug and credential share a rate, slots and a `Retry-After`.

The rate is the generic cell rate algorithm (ITU-T I.371): one number per key, the time at which the bucket would be
empty again. It needs no timer and one reservation is one step, in memory as in a database.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

MAX_PAUSE_SECONDS = 3600.0
"""Longest pause that is kept. After it one request asks the service again, which can then ask for a further pause."""


@dataclass(frozen=True)
class RateLimit:
    """At most `requests` per `per` seconds, evenly spaced after a first `burst`; at most `concurrency` at a time.

    `burst` is how many may go at once after a pause (default: `requests`, so that no window of `per` seconds that
    follows a pause sees more than twice the rate; 1 spaces them strictly). `concurrency=None` sets no bound.
    """

    requests: int = 0
    per: float = 1.0
    concurrency: int | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        if self.requests < 0 or self.per <= 0:
            raise ValueError("RateLimit needs requests of 0 (unbounded) or more and a period above 0 seconds")
        if self.requests == 0 and self.concurrency is None:
            raise ValueError("RateLimit needs requests, concurrency, or both")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError("RateLimit(concurrency=…) must be 1 or more")
        if self.burst is not None and self.burst < 1:
            raise ValueError("RateLimit(burst=…) must be 1 or more")

    @property
    def interval(self) -> float:
        """Seconds between two requests at the full rate; 0 where the rate is unbounded."""
        return self.per / self.requests if self.requests else 0.0

    @property
    def burst_size(self) -> int:
        return self.burst or max(1, self.requests)


class RateStore(Protocol):
    """State of the buckets, in this process or in a database that several share."""

    async def reserve(self, key: str, interval: float, burst: int) -> float:
        """Take the next place in the bucket; returns the seconds to wait until it comes. Holds count."""
        ...

    async def pause(self, key: str, seconds: float) -> None:
        """Let nothing through for so many seconds from now, at most MAX_PAUSE_SECONDS; a longer hold already there stays."""
        ...

    async def longest_pause(self, plug: str) -> float:
        """Seconds of the longest hold on any account of a plug; 0 where there is none."""
        ...

    async def resume(self, plug: str) -> int:
        """Lift the holds on every account of a plug; returns how many there were."""
        ...

    async def paused_for(self, key: str) -> float:
        """Seconds that the key is still held; 0 where it is not."""
        ...

    def slot(self, key: str, limit: int) -> AbstractAsyncContextManager[None]:
        """One of `limit` places; waits until one is free, in order of arrival."""
        ...


def next_place(tat: float, now: float, interval: float, burst: int) -> tuple[float, float]:
    """One step of the algorithm: (new theoretical arrival time, seconds to wait). Times in seconds of one clock."""
    arrival = max(tat, now)
    wait = max(0.0, arrival - (burst - 1) * interval - now)
    return arrival + interval, wait


class ProcessRateStore:
    """Buckets of this process; safe over threads and event loops."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._tat: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._busy: dict[str, int] = {}
        self._waiting: dict[str, deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}

    async def reserve(self, key: str, interval: float, burst: int) -> float:
        with self._guard:
            now = self._clock()
            held = self._held.get(key, 0.0)
            # A hold moves the bucket's clock: those who wait behind it come out evenly spaced, not all at once.
            start = max(now, held)
            self._tat[key], wait = next_place(self._tat.get(key, 0.0), start, interval, burst)
            return wait + (start - now)

    async def pause(self, key: str, seconds: float) -> None:
        with self._guard:
            self._held[key] = max(self._held.get(key, 0.0), self._clock() + min(seconds, MAX_PAUSE_SECONDS))

    async def longest_pause(self, plug: str) -> float:
        with self._guard:
            return max((self._held[key] - self._clock() for key in self._of(plug)), default=0.0)

    async def resume(self, plug: str) -> int:
        with self._guard:
            keys = self._of(plug)
            for key in keys:
                del self._held[key]
                self._tat.pop(key, None)  # it was moved to the end of the hold
            return len(keys)

    def _of(self, plug: str) -> list[str]:
        now = self._clock()
        return [key for key, until in self._held.items() if key.partition(":")[0] == plug and until > now]

    async def paused_for(self, key: str) -> float:
        until = self._held.get(key)
        return 0.0 if until is None else max(0.0, until - self._clock())

    def slot(self, key: str, limit: int) -> AbstractAsyncContextManager[None]:
        return self._slot(key, limit)

    @asynccontextmanager
    async def _slot(self, key: str, limit: int) -> AsyncIterator[None]:
        await self._enter(key, limit)
        try:
            yield
        finally:
            self._leave(key)

    async def _enter(self, key: str, limit: int) -> None:
        loop = asyncio.get_running_loop()
        with self._guard:
            queue = self._waiting.setdefault(key, deque())
            if self._busy.get(key, 0) < limit and not queue:
                self._busy[key] = self._busy.get(key, 0) + 1
                return
            turn: asyncio.Future[None] = loop.create_future()
            entry = (loop, turn)
            queue.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            with self._guard:
                still_waiting = entry in queue
                if still_waiting:
                    queue.remove(entry)
            if not still_waiting:  # the place was handed over at the same moment: pass it on
                self._leave(key)
            raise

    def _leave(self, key: str) -> None:
        """Hand the place to the first who waits, or free it."""
        with self._guard:
            queue = self._waiting.get(key, deque())
            while queue:
                loop, turn = queue.popleft()
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_wake, turn)
                    return
            self._busy[key] = self._busy.get(key, 1) - 1


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
