"""The registered workers and the fingerprints of their code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, select

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import WORKERS
from khotan_cli.runtime.database.types import utc_now


class WorkerStore:
    """Stores workers. The row of a killed process stays; the lock shows whether it is alive (`worker/worker_lock.py`)."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def add(self, worker: str, code: str) -> None:
        """Store a starting worker with the fingerprint of its code. Replaces a row with the same id."""
        values = {"id": worker, "code": code, "started_at": utc_now()}
        insert = self.database.insert(WORKERS).values(values)
        changed = {name: insert.excluded[name] for name in ("code", "started_at")}
        async with self.database.session() as session:
            await session.execute(insert.on_conflict_do_update(index_elements=["id"], set_=changed))

    async def remove(self, workers: Sequence[str]) -> None:
        async with self.database.session() as session:
            await session.execute(delete(WORKERS).where(WORKERS.c.id.in_(list(workers))))

    async def all(self) -> Sequence[Row[Any]]:
        """Return rows of id, code and started_at, oldest first, including dead workers."""
        async with self.database.session() as session:
            return (await session.execute(select(WORKERS).order_by(WORKERS.c.started_at, WORKERS.c.id))).all()
