"""What a flow keeps from run to run, written with its steps."""

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
    """A named value of a flow: a timestamp, an id, any JSON."""

    def __init__(self, name: str, flow: str, store: CacheStore, write: Write) -> None:
        self.name, self._flow, self._store, self._write = name, flow, store, write

    async def get(self, default: Any = None) -> Any:
        """The value stored last; in a step that has set it, still the one before."""
        found = await self._store.get_many(CURSORS, self._flow, [self.name])
        return found.get(self.name, default)

    async def set(self, value: Any) -> None:
        """Store the value together with the step that runs now, if and when that commits. Raises UsageError for no JSON."""
        kept = json_value(self.name, value)

        async def work(session: AsyncSession) -> Outcome:
            await self._store.set_in(session, CURSORS, self._flow, {self.name: kept})
            return Outcome()

        await self._write(f"cursor {self.name}", work)


class RunCache(CacheHandle):
    """A cache as a flow sees it: what is set or deleted is stored with the step that runs now, or not at all."""

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
        """Remove an entry; whether there is one by now, which the step may set or delete still."""
        there = await self.get_many([key])

        async def work(session: AsyncSession) -> Outcome:
            await self._store.delete_in(session, self.cache.name, self.owner, key)
            return Outcome()

        self._held("deleted", there)
        await self._write(f"cache {self.cache.name} delete", work)
        return bool(there)

    async def clear(self) -> int:
        """Remove all entries of this owner; how many there are by now."""
        there = await self.keys()

        async def work(session: AsyncSession) -> Outcome:
            await self._store.clear_in(session, self.cache.name, self.owner)
            return Outcome()

        self._held("deleted", there)
        await self._write(f"cache {self.cache.name} clear", work)
        return len(there)
