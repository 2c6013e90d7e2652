"""Group commit: events that arrive during a commit share the next transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

from khotan_cli.errors import DatabaseBusy, DatabaseUnreachable, KhotanError
from khotan_cli.runtime.store.events import EventStore
from khotan_cli.runtime.store.incoming import Incoming, Stored

MAX_EVENTS = 64
"""Maximum number of events in one transaction."""
_WRITERS = 2

_Group = tuple[Sequence[Incoming], asyncio.Future[list[Stored]]]
"""Events that are stored together, and the future of the caller that waits for them."""


class GroupCommit:
    """One per event loop and app. `stored` is called after a commit that created handler runs."""

    def __init__(self, events: EventStore, stored: Callable[[], None]) -> None:
        self._events, self._stored = events, stored
        self._waiting: list[_Group] = []
        self._max_writers = 1 if events.database.sqlite else _WRITERS
        self._writers: set[asyncio.Task[None]] = set()

    async def put(self, event: Incoming) -> Stored:
        """Store an event and return when it is committed. Raises StoreError if nothing was stored."""
        return (await self.put_all([event]))[0]

    async def put_all(self, events: Sequence[Incoming]) -> list[Stored]:
        """Store several events, all or none, and return when they are committed. Raises StoreError."""
        future: asyncio.Future[list[Stored]] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, future))
        if len(self._writers) < self._max_writers:
            self._writers.add(asyncio.create_task(self._write()))
        return await future

    async def _write(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)  # include events that arrived in the same iteration of the loop
        try:
            while self._waiting:
                await self._commit(self._next())
        finally:
            # Not in a done callback: an event that arrives before it would rely on a writer that has finished.
            self._writers.discard(task)

    def _next(self) -> list[_Group]:
        """Take the groups of the next transaction: at most MAX_EVENTS events, but at least one whole group."""
        count = size = 0
        for events, _ in self._waiting:
            size += len(events)
            if count and size > MAX_EVENTS:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _commit(self, batch: list[_Group]) -> None:
        try:
            stored = iter(await self._events.store([event for events, _ in batch for event in events]))
        except (DatabaseUnreachable, DatabaseBusy) as exc:
            _fail(batch, exc)
        except KhotanError as exc:
            if len(batch) == 1:
                _fail(batch, exc)
                return
            for group in batch:  # the database rejected one of the groups: store them one by one
                await self._commit([group])
        except BaseException as exc:
            _fail(batch, exc)
            if not isinstance(exc, Exception):
                raise
        else:
            for events, future in batch:
                outcome = list(islice(stored, len(events)))
                if not future.done():
                    future.set_result(outcome)
            if any(event.handler_runs for events, _ in batch for event in events):
                self._stored()


def _fail(batch: list[_Group], exc: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(exc if isinstance(exc, Exception) else KhotanError("The server is stopping"))
