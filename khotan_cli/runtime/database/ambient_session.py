"""Ambient session: khotan's stores use the session that is open around them, so that everything commits together.

A separate transaction would not see the session's writes, and on SQLite, with one writer at a time, it would wait forever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.errors import translated_errors

Sessions = Callable[[], AbstractAsyncContextManager[AsyncSession]]


@dataclass
class AmbientSession:
    """A session that is open in this task and the tasks that it starts. `lock`: they use it one at a time."""

    database: Database
    session: AsyncSession
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False

    @property
    def usable(self) -> bool:
        """Whether its transaction is still open. The owner may have committed it or rolled it back."""
        return self.session.in_transaction()


_current: ContextVar[AmbientSession | None] = ContextVar("khotan_session", default=None)
_override: ContextVar[Sessions | None] = ContextVar("khotan_sessions", default=None)


@asynccontextmanager
async def bind_session(database: Database, session: AsyncSession) -> AsyncIterator[None]:
    """Within the block, khotan's stores use this session in this task and the tasks that it starts."""
    ambient = AmbientSession(database, session)
    token = _current.set(ambient)
    try:
        yield
    finally:
        _current.reset(token)
        async with ambient.lock:
            ambient.closed = True


@contextmanager
def override_sessions(sessions: Sessions) -> Iterator[None]:
    """Within the block, khotan's stores open sessions with this function if none is open (this task and its children)."""
    token = _override.set(sessions)
    try:
        yield
    finally:
        _override.reset(token)


def current_session(database: Database) -> AmbientSession | None:
    """Return the session that is open around this task, or None."""
    ambient = _current.get()
    return None if ambient is None or ambient.closed or ambient.database is not database else ambient


@asynccontextmanager
async def session_scope(database: Database, *, writing: bool = False) -> AsyncIterator[AsyncSession]:
    """Use the ambient session within a savepoint, or open one in its own transaction. Raises StoreError.

    writing: the transaction reads before it writes; see Database.writing.
    """
    ambient, sessions = current_session(database), _override.get()
    if ambient is not None and ambient.usable:
        async with ambient.lock, _savepoint(ambient):
            yield ambient.session
    elif sessions is not None:
        async with sessions() as session:
            yield session
    else:
        async with database.writing() if writing else database.session() as session:
            yield session


@asynccontextmanager
async def _savepoint(ambient: AmbientSession) -> AsyncIterator[None]:
    with translated_errors(ambient.database.url):
        # Bound again with its own lock, so that code inside the savepoint may use session_scope too.
        async with ambient.session.begin_nested(), bind_session(ambient.database, ambient.session):
            yield
