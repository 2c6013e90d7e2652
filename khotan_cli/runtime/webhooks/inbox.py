"""Committing events together: those that arrive while a commit is under way share the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from khotan_cli.errors import DatabaseBusy, DatabaseUnreachable, KhotanError
from khotan_cli.runtime.store.events import EventStore, Incoming, Stored

MOST = 64
"""Events in one transaction."""
_WRITERS = 2


class Inbox:
    """One per event loop and app. `stored` is called after a commit that brought handlers work."""

    def __init__(self, events: EventStore, stored: Callable[[], None]) -> None:
        self._events, self._stored = events, stored
        self._waiting: list[tuple[Incoming, asyncio.Future[Stored]]] = []
        self._most_writers = 1 if events.database.sqlite else _WRITERS
        self._writers: set[asyncio.Task[None]] = set()

    async def put(self, event: Incoming) -> Stored:
        """Store an event; returns when it is committed. Raises StoreError, with nothing stored."""
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, future))
        if len(self._writers) < self._most_writers:
            self._writers.add(asyncio.create_task(self._write()))
        return await future

    async def _write(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        await asyncio.sleep(0)  # those that arrived in this very moment come along
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await self._commit(batch)
        finally:
            # Here, not when the task is done: what arrives in between would count on a writer that looks no more.
            self._writers.discard(me)

    async def _commit(self, batch: list[tuple[Incoming, asyncio.Future[Stored]]]) -> None:
        try:
            stored = await self._events.store([event for event, _ in batch])
        except (DatabaseUnreachable, DatabaseBusy) as exc:
            _fail(batch, exc)
        except KhotanError as exc:
            if len(batch) == 1:
                _fail(batch, exc)
                return
            for one in batch:  # one of them is what the database cannot store
                await self._commit([one])
        except BaseException as exc:
            _fail(batch, exc)
            if not isinstance(exc, Exception):
                raise
        else:
            for (_, future), outcome in zip(batch, stored, strict=True):
                if not future.done():
                    future.set_result(outcome)
            if any(event.deliveries for event, _ in batch):
                self._stored()


def _fail(batch: list[tuple[Incoming, asyncio.Future[Stored]]], exc: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(exc if isinstance(exc, Exception) else KhotanError("The server is stopping"))
