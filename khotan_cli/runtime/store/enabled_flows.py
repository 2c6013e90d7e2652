"""Stores which flows are enabled."""

from __future__ import annotations

from sqlalchemy import select

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import FLOWS
from khotan_cli.runtime.database.types import utc_now


class FlowStore:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def disabled(self) -> set[str]:
        """Return the names of disabled flows. A flow without a row is enabled."""
        async with self.database.session() as session:
            return set((await session.execute(select(FLOWS.c.name).where(FLOWS.c.enabled.is_(False)))).scalars())

    async def set_enabled(self, flow: str, enabled: bool) -> None:
        now = utc_now()
        values = {"enabled": enabled, "updated_at": now}
        async with self.database.session() as session:
            await session.execute(
                self.database.insert(FLOWS)
                .values(name=flow, **values)
                .on_conflict_do_update(index_elements=["name"], set_=values)
            )
