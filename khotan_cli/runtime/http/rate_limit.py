"""Rate limits. Requests with the same plug and credential share a bucket: a rate, slots and a `Retry-After`.

The rate uses the generic cell rate algorithm (ITU-T I.371): one number per key, the time at which the bucket would be
empty again. It needs no timer, and a reservation is one step, in memory and in a database.
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
"""Maximum pause. After it, one request is sent, to which the service can respond with a further pause."""


@dataclass(frozen=True)
class RateLimit:
    """At most `requests` per `per` seconds, evenly spaced after an initial `burst`; at most `concurrency` at a time.

    `burst` is the number of requests that may be sent at once after a pause (default: `requests`, so that no window of
    `per` seconds after a pause has more than twice the rate; 1 spaces them strictly). `concurrency=None` is unlimited.
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
        """Seconds between two requests at the full rate; 0 if the rate is unlimited."""
        return self.per / self.requests if self.requests else 0.0

    @property
    def burst_size(self) -> int:
        return self.burst or max(1, self.requests)


class RateStore(Protocol):
    """Stores the buckets, in this process or in a database that several processes share."""

    async def reserve(self, key: str, interval: float, burst: int) -> float:
        """Reserve the next slot of the bucket. Returns the seconds to wait for it, pauses included."""
        ...

    async def pause(self, key: str, seconds: float) -> None:
        """Pause the key for `seconds`, at most MAX_PAUSE_SECONDS. A longer existing pause stays."""
        ...

    async def longest_pause(self, plug: str) -> float:
        """Remaining seconds of the longest pause of a plug's accounts; 0 if none is paused."""
        ...

    async def resume(self, plug: str) -> int:
        """End the pauses of all accounts of a plug. Returns how many there were."""
        ...

    async def paused_for(self, key: str) -> float:
        """Remaining seconds of the key's pause; 0 if it is not paused."""
        ...

    def slot(self, key: str, limit: int) -> AbstractAsyncContextManager[None]:
        """One of `limit` concurrent slots. Waits for a free one, in order of arrival."""
        ...


def next_slot(tat: float, now: float, interval: float, burst: int) -> tuple[float, float]:
    """One step of the algorithm: (new theoretical arrival time, seconds to wait). Times in seconds of one clock."""
    arrival = max(tat, now)
    wait = max(0.0, arrival - (burst - 1) * interval - now)
    return arrival + interval, wait


class ProcessRateStore:
    """Buckets of this process. Safe across threads and event loops."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._tat: dict[str, float] = {}
        self._paused_until: dict[str, float] = {}
        self._busy: dict[str, int] = {}
        self._waiting: dict[str, deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}

    async def reserve(self, key: str, interval: float, burst: int) -> float:
        with self._guard:
            now = self._clock()
            paused_until = self._paused_until.get(key, 0.0)
            # A pause moves the bucket's clock, so that requests waiting for its end are evenly spaced.
            start = max(now, paused_until)
            self._tat[key], wait = next_slot(self._tat.get(key, 0.0), start, interval, burst)
            return wait + (start - now)

    async def pause(self, key: str, seconds: float) -> None:
        with self._guard:
            self._paused_until[key] = max(
                self._paused_until.get(key, 0.0), self._clock() + min(seconds, MAX_PAUSE_SECONDS)
            )

    async def longest_pause(self, plug: str) -> float:
        with self._guard:
            return max((self._paused_until[key] - self._clock() for key in self._paused_keys(plug)), default=0.0)

    async def resume(self, plug: str) -> int:
        with self._guard:
            keys = self._paused_keys(plug)
            for key in keys:
                del self._paused_until[key]
                self._tat.pop(key, None)  # it was moved to the end of the pause
            return len(keys)

    def _paused_keys(self, plug: str) -> list[str]:
        now = self._clock()
        return [key for key, until in self._paused_until.items() if key.partition(":")[0] == plug and until > now]

    async def paused_for(self, key: str) -> float:
        until = self._paused_until.get(key)
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
            if not still_waiting:  # the slot was assigned at the same moment: pass it on
                self._leave(key)
            raise

    def _leave(self, key: str) -> None:
        """Pass the slot to the first waiting task, or free it."""
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
