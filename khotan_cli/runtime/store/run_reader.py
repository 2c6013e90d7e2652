"""Reads runs, their steps, logs and rejected records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, select

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import REJECTS, RUN_STEPS, RUN_UPDATES, RUNS

ACTIVE = ("pending", "running")
"""Statuses of a run that has not ended."""

RunData = Row[Any]
"""A row of khotan_runs."""


class RunReader:
    """Read-only queries for runs."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def get(self, run_id: str) -> RunData | None:
        async with self.database.session() as session:
            return (await session.execute(select(RUNS).where(RUNS.c.id == run_id))).one_or_none()

    async def ids_from(self, beginning: str, limit: int = 5) -> list[str]:
        """Return run ids with that prefix."""
        statement = select(RUNS.c.id).where(RUNS.c.id.startswith(beginning, autoescape=True)).limit(limit)
        async with self.database.session() as session:
            return list((await session.execute(statement)).scalars())

    async def newest(
        self, *, flow: str | None = None, status: Sequence[str] = (), limit: int = 100, offset: int = 0
    ) -> tuple[list[RunData], int]:
        """Return runs, newest first, and the total number."""
        matching = select(RUNS)
        if flow is not None:
            matching = matching.where(RUNS.c.flow == flow)
        if status:
            matching = matching.where(RUNS.c.status.in_(status))
        page = matching.order_by(RUNS.c.created_at.desc(), RUNS.c.id).limit(limit).offset(offset)
        async with self.database.session() as session:
            total = (await session.execute(select(func.count()).select_from(matching.subquery()))).scalar() or 0
            return [*(await session.execute(page)).all()], total

    async def steps(self, run_id: str) -> Sequence[Row[Any]]:
        """Return the finished steps in order."""
        statement = select(RUN_STEPS).where(RUN_STEPS.c.run_id == run_id).order_by(RUN_STEPS.c.number, RUN_STEPS.c.name)
        async with self.database.session() as session:
            return (await session.execute(statement)).all()

    async def updates(self, run_id: str, after: int = 0, limit: int = 1000) -> Sequence[Row[Any]]:
        """Return the first log lines with an id above `after`."""
        statement = select(RUN_UPDATES).where(RUN_UPDATES.c.run_id == run_id, RUN_UPDATES.c.id > after)
        async with self.database.session() as session:
            return (await session.execute(statement.order_by(RUN_UPDATES.c.id).limit(limit))).all()

    async def newest_updates(self, run_id: str, limit: int = 1000) -> tuple[Sequence[Row[Any]], int]:
        """Return the last log lines in order, and the total number."""
        mine = select(RUN_UPDATES).where(RUN_UPDATES.c.run_id == run_id)
        async with self.database.session() as session:
            total = (await session.execute(select(func.count()).select_from(mine.subquery()))).scalar() or 0
            rows = (await session.execute(mine.order_by(RUN_UPDATES.c.id.desc()).limit(limit))).all()
            return rows[::-1], total

    async def rejects(self, run_id: str, limit: int = 100, offset: int = 0) -> tuple[Sequence[Row[Any]], int]:
        mine = select(REJECTS).where(REJECTS.c.run_id == run_id)
        async with self.database.session() as session:
            total = (await session.execute(select(func.count()).select_from(mine.subquery()))).scalar() or 0
            page = mine.order_by(REJECTS.c.id).limit(limit).offset(offset)
            return (await session.execute(page)).all(), total

    async def active(self, flow: str | None = None) -> Sequence[RunData]:
        """Return the pending and running runs of flows."""
        statement = select(RUNS).where(RUNS.c.status.in_(ACTIVE), RUNS.c.event_id.is_(None)).order_by(RUNS.c.created_at)
        if flow is not None:
            statement = statement.where(RUNS.c.flow == flow)
        async with self.database.session() as session:
            return (await session.execute(statement)).all()
