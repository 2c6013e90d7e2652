"""Whose session khotan's own stores use: the one that is open around them, so that all is written or nothing is.

A transaction beside it would not see what it wrote, and on SQLite, which has one writer at a time, wait for it in vain.
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
    """A session that is open around what this task does, and the tasks that it starts. `lock`: one of them at a time."""

    database: Database
    session: AsyncSession
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False

    @property
    def usable(self) -> bool:
        """Whether its transaction goes on: a commit or a rollback of its owner's has ended it."""
        return self.session.in_transaction()


_around: ContextVar[AmbientSession | None] = ContextVar("khotan_session", default=None)
_instead: ContextVar[Sessions | None] = ContextVar("khotan_sessions", default=None)


@asynccontextmanager
async def bind_session(database: Database, session: AsyncSession) -> AsyncIterator[None]:
    """While it lasts, what khotan's stores do in this task, and those it starts, is done in this session."""
    mine = AmbientSession(database, session)
    token = _around.set(mine)
    try:
        yield
    finally:
        _around.reset(token)
        async with mine.lock:
            mine.closed = True


@contextmanager
def override_sessions(sessions: Sessions) -> Iterator[None]:
    """While it lasts, in this task and those it starts, khotan's stores use these sessions where none is open."""
    token = _instead.set(sessions)
    try:
        yield
    finally:
        _instead.reset(token)


def current_session(database: Database) -> AmbientSession | None:
    """The session that is open around this task."""
    found = _around.get()
    return None if found is None or found.closed or found.database is not database else found


@asynccontextmanager
async def session_scope(database: Database, *, writing: bool = False) -> AsyncIterator[AsyncSession]:
    """The session that is open around, up to a savepoint; else one in a transaction of its own. Raises StoreError.

    writing: it reads before it writes; see Database.writing.
    """
    found, sessions = current_session(database), _instead.get()
    if found is not None and found.usable:
        async with found.lock, _savepoint(found):
            yield found.session
    elif sessions is not None:
        async with sessions() as session:
            yield session
    else:
        async with database.writing() if writing else database.session() as session:
            yield session


@asynccontextmanager
async def _savepoint(found: AmbientSession) -> AsyncIterator[None]:
    with translated_errors(found.database.url):
        # Opened anew, with a lock of its own: what is done inside may join in turn.
        async with found.session.begin_nested(), bind_session(found.database, found.session):
            yield
