"""The processes that run flows, and the code that each of them runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, select

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import WORKERS
from khotan_cli.runtime.database.types import utc_now


class WorkerStore:
    """A row stays when a process is killed: whether a worker lives is told by its lock (`worker/worker_lock.py`)."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def add(self, worker: str, code: str) -> None:
        """Store a worker that starts with this fingerprint of its code; it replaces an earlier one of that id."""
        values = {"id": worker, "code": code, "started_at": utc_now()}
        insert = self.database.insert(WORKERS).values(values)
        changed = {name: insert.excluded[name] for name in ("code", "started_at")}
        async with self.database.session() as session:
            await session.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changed))

    async def remove(self, workers: Sequence[str]) -> None:
        async with self.database.session() as session:
            await session.execute(delete(WORKERS).where(WORKERS.c.id.in_(list(workers))))

    async def all(self) -> Sequence[Row[Any]]:
        """Rows of id, code and started_at, the oldest first; dead workers included."""
        async with self.database.session() as session:
            return (await session.execute(select(WORKERS).order_by(WORKERS.c.started_at, WORKERS.c.id))).all()
