"""The last dispatched due time of each schedule."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import SCHEDULES


class ScheduleStore:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def claim(self, session: AsyncSession, flow: str, variant: str, due: datetime) -> bool:
        """Advance a schedule to the due time. Returns False if another dispatcher did, or if the schedule is new."""
        new = self.database.insert(SCHEDULES).values(flow=flow, variant=variant, last_due_at=due)
        made = (await session.execute(new.on_conflict_do_nothing().returning(SCHEDULES.c.flow))).scalar()
        if made is not None:
            return False
        ours = (SCHEDULES.c.flow == flow) & (SCHEDULES.c.variant == variant) & (SCHEDULES.c.last_due_at < due)
        moved = update(SCHEDULES).where(ours).values(last_due_at=due).returning(SCHEDULES.c.flow)
        return (await session.execute(moved)).scalar() is not None

    async def last(self) -> dict[tuple[str, str], datetime]:
        """Return the last dispatched due time of each schedule."""
        async with self.database.session() as session:
            rows = (await session.execute(select(SCHEDULES))).all()
        return {(row.flow, row.variant): row.last_due_at for row in rows}

    async def reset(self, flow: str, variant: str, moment: datetime) -> None:
        """Set a schedule back after it was dispatched while the clock was ahead."""
        row = (SCHEDULES.c.flow == flow) & (SCHEDULES.c.variant == variant)
        async with self.database.session() as session:
            await session.execute(update(SCHEDULES).where(row).values(last_due_at=moment))
