"""Cursors and caches of flows, written in the transactions of steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.resources.caches import Cache, CacheHandle, json_value
from khotan_cli.runtime.runs.steps import Outcome, Work
from khotan_cli.runtime.store.caches import CacheStore

CURSORS = "_cursor"
"""Cache that holds the cursors, one owner per flow."""

Write = Callable[[str, Work], Awaitable[None]]


class Cursor:
    """A named JSON value of a flow, such as a timestamp or an id, that is kept between runs."""

    def __init__(self, name: str, flow: str, store: CacheStore, write: Write) -> None:
        self.name, self._flow, self._store, self._write = name, flow, store, write

    async def get(self, default: Any = None) -> Any:
        """Return the stored value. A step that sets the cursor still reads the previous value."""
        values = await self._store.get_many(CURSORS, self._flow, [self.name])
        return values.get(self.name, default)

    async def set(self, value: Any) -> None:
        """Store the value in the transaction of the current step. Raises UsageError if the value is not JSON."""
        kept = json_value(self.name, value)

        async def work(session: AsyncSession) -> Outcome:
            await self._store.set_in(session, CURSORS, self._flow, {self.name: kept})
            return Outcome()

        await self._write(f"cursor {self.name}", work)


class RunCache(CacheHandle):
    """A cache in a flow: changes are stored in the transaction of the current step."""

    def __init__(self, cache: Cache, store: CacheStore, owner: str, write: Write) -> None:
        super().__init__(cache, store, owner)
        self._write = write

    async def set(self, key: str, value: Any, ttl: Any = None) -> None:
        await self.set_many({key: value}, ttl)

    async def set_many(self, values: Any, ttl: Any = None) -> None:
        kept = {key: json_value(key, value) for key, value in dict(values).items()}
        seconds = self.cache.seconds(ttl)

        async def work(session: AsyncSession) -> Outcome:
            await self._store.set_in(session, self.cache.name, self.owner, kept, seconds)
            return Outcome()

        self._held("set", kept)
        await self._write(f"cache {self.cache.name}", work)

    async def delete(self, key: str) -> bool:
        """Remove an entry. Returns whether the stored cache has one, without pending changes of the step."""
        existing = await self.get_many([key])

        async def work(session: AsyncSession) -> Outcome:
            await self._store.delete_in(session, self.cache.name, self.owner, key)
            return Outcome()

        self._held("deleted", existing)
        await self._write(f"cache {self.cache.name} delete", work)
        return bool(existing)

    async def clear(self) -> int:
        """Remove all entries of this owner. Returns their number, without pending changes of the step."""
        existing = await self.keys()

        async def work(session: AsyncSession) -> Outcome:
            await self._store.clear_in(session, self.cache.name, self.owner)
            return Outcome()

        self._held("deleted", existing)
        await self._write(f"cache {self.cache.name} clear", work)
        return len(existing)
