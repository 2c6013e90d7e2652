"""Cache entries. Expired entries are invisible to reads, and are deleted periodically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, literal, null, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.ambient_session import session_scope
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import CACHE_ENTRIES
from khotan_cli.runtime.database.types import utc_now

_AT_A_TIME = 500


@dataclass(frozen=True)
class CacheEntry:
    cache: str
    owner: str
    key: str
    value: Any
    expires_at: datetime | None
    updated_at: datetime


class CacheStore:
    """Reads and writes cache entries. Cache names with a leading underscore are internal: cursors and sent state."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def _alive(self) -> Any:
        return or_(CACHE_ENTRIES.c.expires_at.is_(None), CACHE_ENTRIES.c.expires_at > self.database.now())

    async def get_many(self, cache: str, owner: str, keys: Sequence[str]) -> dict[str, Any]:
        async with session_scope(self.database) as session:
            return await self.get_in(session, cache, owner, keys)

    async def get_in(self, session: AsyncSession, cache: str, owner: str, keys: Sequence[str]) -> dict[str, Any]:
        """Return values by key, in the caller's transaction."""
        found: dict[str, Any] = {}
        mine = (CACHE_ENTRIES.c.cache == cache) & (CACHE_ENTRIES.c.owner == owner)
        for start in range(0, len(keys), _AT_A_TIME):
            part = list(keys[start : start + _AT_A_TIME])
            statement = select(CACHE_ENTRIES.c.key, CACHE_ENTRIES.c.value)
            rows = await session.execute(statement.where(mine, CACHE_ENTRIES.c.key.in_(part), self._alive()))
            found |= {row.key: row.value for row in rows.all()}
        return found

    async def all_in(self, session: AsyncSession, cache: str, owner: str) -> dict[str, Any]:
        """Return all values of an owner by key, in the caller's transaction."""
        mine = (CACHE_ENTRIES.c.cache == cache) & (CACHE_ENTRIES.c.owner == owner) & self._alive()
        rows = await session.execute(select(CACHE_ENTRIES.c.key, CACHE_ENTRIES.c.value).where(mine))
        return {row.key: row.value for row in rows.all()}

    async def set_many(self, cache: str, owner: str, values: Mapping[str, Any], seconds: float | None = None) -> None:
        async with session_scope(self.database) as session:
            await self.set_in(session, cache, owner, values, seconds)

    async def set_in(
        self, session: AsyncSession, cache: str, owner: str, values: Mapping[str, Any], seconds: float | None = None
    ) -> None:
        """Store entries in the caller's transaction. seconds: time to live, None: no expiry."""
        if not values:
            return
        until = null() if seconds is None else self.database.now() + literal(seconds)
        # Sorted, so that two writers of the same keys do not deadlock.
        rows = [{"key_": key, "value_": values[key]} for key in sorted(values)]
        insert = self.database.insert(CACHE_ENTRIES).values(
            cache=cache,
            owner=owner,
            key=bindparam("key_"),
            value=bindparam("value_", type_=CACHE_ENTRIES.c.value.type),
            expires_at=until,
            updated_at=utc_now(),
        )
        changed = {name: insert.excluded[name] for name in ("value", "expires_at", "updated_at")}
        await session.execute(
            insert.on_conflict_do_update(index_elements=["cache", "owner", "key"], set_=changed), rows
        )

    async def delete(self, cache: str, owner: str, key: str) -> bool:
        async with session_scope(self.database) as session:
            return await self.delete_in(session, cache, owner, key)

    async def delete_in(self, session: AsyncSession, cache: str, owner: str, key: str) -> bool:
        """Remove an entry in the caller's transaction. Returns whether it existed."""
        mine = (CACHE_ENTRIES.c.cache == cache) & (CACHE_ENTRIES.c.owner == owner) & (CACHE_ENTRIES.c.key == key)
        statement = delete(CACHE_ENTRIES).where(mine, self._alive()).returning(CACHE_ENTRIES.c.key)
        return (await session.execute(statement)).scalar() is not None

    async def clear(self, cache: str, owner: str | None = None) -> int:
        """Remove the entries of one owner, or of all owners. Returns their number."""
        async with session_scope(self.database) as session:
            return await self.clear_in(session, cache, owner)

    async def clear_in(self, session: AsyncSession, cache: str, owner: str | None = None) -> int:
        """Like `clear`, in the caller's transaction."""
        statement = delete(CACHE_ENTRIES).where(CACHE_ENTRIES.c.cache == cache)
        if owner is not None:
            statement = statement.where(CACHE_ENTRIES.c.owner == owner)
        return len((await session.execute(statement.returning(CACHE_ENTRIES.c.key))).all())

    async def entries(
        self, cache: str, owner: str | None = None, prefix: str = "", *, limit: int | None = None, offset: int = 0
    ) -> tuple[list[CacheEntry], int]:
        """Return entries sorted by owner and key, and the total number."""
        matching = (CACHE_ENTRIES.c.cache == cache) & self._alive()
        if owner is not None:
            matching &= CACHE_ENTRIES.c.owner == owner
        if prefix:
            matching &= CACHE_ENTRIES.c.key.startswith(prefix, autoescape=True)
        page = select(CACHE_ENTRIES).where(matching).order_by(CACHE_ENTRIES.c.owner, CACHE_ENTRIES.c.key)
        async with session_scope(self.database) as session:
            total = (
                await session.execute(select(func.count()).select_from(CACHE_ENTRIES).where(matching))
            ).scalar() or 0
            rows = (await session.execute(page.limit(limit).offset(offset))).all()
        return [_entry(row) for row in rows], total

    async def owners(self, cache: str, prefix: str = "") -> list[str]:
        """Return the sorted owners of unexpired entries whose names start with the prefix."""
        matching = (CACHE_ENTRIES.c.cache == cache) & self._alive()
        if prefix:
            matching &= CACHE_ENTRIES.c.owner.startswith(prefix, autoescape=True)
        statement = select(CACHE_ENTRIES.c.owner).where(matching).distinct().order_by(CACHE_ENTRIES.c.owner)
        async with session_scope(self.database) as session:
            return list((await session.execute(statement)).scalars())

    async def counts(self) -> dict[str, int]:
        """Return the number of unexpired entries of each cache."""
        statement = select(CACHE_ENTRIES.c.cache, func.count()).where(self._alive()).group_by(CACHE_ENTRIES.c.cache)
        async with self.database.session() as session:
            return {row[0]: row[1] for row in (await session.execute(statement)).all()}

    async def sweep(self) -> int:
        """Delete expired entries. Returns their number."""
        statement = delete(CACHE_ENTRIES).where(CACHE_ENTRIES.c.expires_at <= self.database.now())
        async with self.database.session() as session:
            return len((await session.execute(statement.returning(CACHE_ENTRIES.c.key))).all())


def _entry(row: Any) -> CacheEntry:
    expires = None if row.expires_at is None else datetime.fromtimestamp(row.expires_at, UTC)
    return CacheEntry(row.cache, row.owner, row.key, row.value, expires, row.updated_at)
