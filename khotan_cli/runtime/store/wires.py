"""The stored state of wires and handlers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.database.webhook_tables import HANDLERS, WIRES

WireData = Row[Any]
"""A row of khotan_wires."""


class WireStore:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def get(self, wire: str) -> WireData | None:
        async with self.database.session() as session:
            return (await session.execute(select(WIRES).where(WIRES.c.id == wire))).one_or_none()

    async def all(self) -> dict[str, WireData]:
        async with self.database.session() as session:
            return {row.id: row for row in await session.execute(select(WIRES))}

    async def save(self, wire: str, values: Mapping[str, Any]) -> None:
        """Set columns of a wire's row. Creates the row if it does not exist."""
        now = utc_now()
        new = {"id": wire, "enabled": True, "subscribed": False, "failures": 0, "updated_at": now, **values}
        statement = self.database.insert(WIRES).values(new)
        changed = statement.on_conflict_do_update(index_elements=["id"], set_={**values, "updated_at": now})
        async with self.database.session() as session:
            await session.execute(changed)

    async def set_handler(self, name: str, enabled: bool) -> None:
        values = {"enabled": enabled, "updated_at": utc_now()}
        statement = self.database.insert(HANDLERS).values(name=name, **values)
        async with self.database.session() as session:
            await session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))

    async def claim_renewals(self, wires: Sequence[str], hold: timedelta) -> Sequence[WireData]:
        """Claim the subscriptions that are due for renewal. Other processes do not get them for the time of `hold`."""
        now: datetime = utc_now()
        due = (WIRES.c.id.in_(list(wires))) & WIRES.c.subscribed & (WIRES.c.renew_at <= now)
        async with self.database.writing() as session:
            statement = update(WIRES).where(due).values(renew_at=now + hold).returning(WIRES)
            rows: Sequence[WireData] = (await session.execute(statement)).all()
            return rows
