"""Received events and the runs of their handlers, stored in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import RUNS
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.database.webhook_tables import EVENTS
from khotan_cli.runtime.store.event_identity import make_room
from khotan_cli.runtime.store.incoming import HandlerRun, Incoming, Key, Stored
from khotan_cli.runtime.store.runs import ACTIVE, COUNTERS

_FAILED = ("failed", "partial")
_KEY = (EVENTS.c.wire, EVENTS.c.tenant, EVENTS.c.remote_id)
_NOTHING = dict.fromkeys(COUNTERS, 0)
_SELDOM = ("parked", "organisation", "tenant", "problem", "path")
"""Columns that are usually empty. They are then omitted from the INSERT."""


EventData = Row[Any]
"""A row of khotan_webhook_events."""


class EventStore:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def store(self, batch: Sequence[Incoming]) -> list[Stored]:
        """Store events and their handler runs in one transaction. For known events, only count the repeat."""
        first: dict[Key, Incoming] = {}
        for event in batch:
            first.setdefault(event.key, event)
        now = utc_now()
        async with self.database.writing(durable=True) as session:
            await make_room(session, list(first.values()), now)
            ids = await self._insert(session, list(first.values()), now)
            new = [(ids[key], one) for key, event in first.items() if key in ids for one in event.handler_runs]
            await self._deliver(session, new, "webhook", now)
            repeated = [e for e in batch if e.key not in ids or first[e.key] is not e]
            known = await self._repeated(session, repeated) if repeated else {}
        stored: list[Stored] = []
        for event in batch:
            key = event.key
            if key in ids and first[key] is event:
                stored.append(Stored(ids[key], new=True))
            else:
                row = known[key]
                stored.append(Stored(row.id, new=False, altered=row.body != event.body))
        return stored

    async def _insert(self, session: AsyncSession, events: Sequence[Incoming], now: datetime) -> dict[Key, int]:
        rows = [
            {
                "wire": event.wire,
                "remote_id": event.remote_id,
                "type": event.type,
                "method": event.method,
                "headers": dict(event.headers),
                "content_type": event.content_type,
                "body": event.body,
                "repeats": 0,
                "altered": 0,
                "parked": event.parked,
                "organisation": event.organisation,
                "tenant": event.tenant,
                "problem": event.problem,
                "path": dict(event.path) or None,
                "received_at": now,
            }
            for event in events
        ]
        empty = [name for name in _SELDOM if all(not row[name] for row in rows)]
        rows = [{name: value for name, value in row.items() if name not in empty} for row in rows] if empty else rows
        new = self.database.insert(EVENTS).on_conflict_do_nothing()
        made = await session.execute(new.returning(EVENTS.c.id, *_KEY), rows)
        return {(row.wire, row.tenant, row.remote_id): row.id for row in made}

    async def _deliver(
        self, session: AsyncSession, handler_runs: Sequence[tuple[int, HandlerRun]], source: str, now: datetime
    ) -> list[str]:
        rows = [
            {
                "id": str(uuid.uuid4()),
                "flow": one.handler,
                "kind": one.kind,
                "status": "pending",
                "source": source,
                "epoch": 0,
                "cancel_requested": False,
                "event_id": event_id,
                "order_key": one.order_key,
                "failures": 0,
                "created_at": now,
                "updated_at": now,
                **_NOTHING,
            }
            for event_id, one in handler_runs
        ]
        if rows:
            await session.execute(insert(RUNS), rows)
        return [str(row["id"]) for row in rows]

    async def _repeated(self, session: AsyncSession, events: Sequence[Incoming]) -> dict[Key, Any]:
        keys = sorted({event.key for event in events})
        asked = select(EVENTS.c.id, *_KEY, EVENTS.c.body)
        rows = await session.execute(asked.where(tuple_(*_KEY).in_(keys)))
        known: dict[Key, Any] = {(row.wire, row.tenant, row.remote_id): row for row in rows}
        for event in events:
            row = known[event.key]
            more = {"repeats": EVENTS.c.repeats + 1, "altered": EVENTS.c.altered + int(row.body != event.body)}
            await session.execute(update(EVENTS).where(EVENTS.c.id == row.id).values(more))
        return known

    async def again(
        self, handler_runs: Mapping[int, Sequence[HandlerRun]], organisation: str | None = None
    ) -> list[str]:
        """Create runs for stored events (by id) and unpark the events. Returns the ids of the runs.

        organisation: assigns the events. A run that waits for its next attempt is not duplicated; it starts at once instead.
        """
        wanted = {(event_id, one.handler): one for event_id, many in handler_runs.items() for one in many}
        waits = (RUNS.c.event_id.in_(list(handler_runs)), RUNS.c.status == "pending")
        asked = select(RUNS.c.id, RUNS.c.event_id, RUNS.c.flow).where(*waits)
        async with self.database.writing() as session:
            values = {
                "parked": None,
                **({"organisation": organisation, "tenant": organisation} if organisation else {}),
            }
            await session.execute(update(EVENTS).where(EVENTS.c.id.in_(list(handler_runs))).values(values))
            pending = {(row.event_id, row.flow): row.id for row in await session.execute(asked)}
            # A run that is claimed concurrently is not updated here; then a new run is created.
            hastened = [pending[place] for place in wanted if place in pending]
            sooner = update(RUNS).where(RUNS.c.id.in_(hastened), RUNS.c.status == "pending").values(next_at=None)
            done = set((await session.execute(sooner.returning(RUNS.c.id))).scalars())
            rest = [(place[0], one) for place, one in wanted.items() if pending.get(place) not in done]
            return [
                *(str(run) for run in hastened if run in done),
                *await self._deliver(session, rest, "manual", utc_now()),
            ]

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, event_id: int) -> EventData | None:
        async with self.database.session() as session:
            return (await session.execute(select(EVENTS).where(EVENTS.c.id == event_id))).one_or_none()

    async def many(self, event_ids: Sequence[int]) -> dict[int, EventData]:
        async with self.database.session() as session:
            rows = (await session.execute(select(EVENTS).where(EVENTS.c.id.in_(set(event_ids))))).all()
        return {row.id: row for row in rows}

    async def newest(
        self,
        *,
        wire: str | None = None,
        type: str | None = None,
        status: str | None = None,
        parked: bool | None = None,
        since: datetime | None = None,
        after: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[EventData], int]:
        """Return events, newest first, and the total number.

        status: status of a handler's newest run, or "unhandled" for events without runs. after: only events with a higher id,
        oldest first.
        """
        matching = select(EVENTS)
        if wire is not None:
            matching = matching.where(EVENTS.c.wire == wire)
        if type is not None:
            matching = matching.where(EVENTS.c.type == type)
        if since is not None:
            matching = matching.where(EVENTS.c.received_at >= since)
        if parked is not None:
            matching = matching.where(EVENTS.c.parked.is_not(None) if parked else EVENTS.c.parked.is_(None))
        if after is not None:
            matching = matching.where(EVENTS.c.id > after)
        matching = _with_status(matching, status)
        order = EVENTS.c.id.asc() if after is not None else EVENTS.c.id.desc()
        async with self.database.session() as session:
            total = (await session.execute(select(func.count()).select_from(matching.subquery()))).scalar() or 0
            return [*(await session.execute(matching.order_by(order).limit(limit).offset(offset))).all()], total

    async def runs(self, event_ids: Sequence[int]) -> dict[int, list[Row[Any]]]:
        """Return the runs of each event, newest last."""
        found: dict[int, list[Row[Any]]] = {event_id: [] for event_id in event_ids}
        asked = select(RUNS).where(RUNS.c.event_id.in_(set(event_ids))).order_by(RUNS.c.created_at, RUNS.c.id)
        async with self.database.session() as session:
            for row in await session.execute(asked):
                found[row.event_id].append(row)
        return found

    async def failed(self, *, wire: str | None, since: datetime | None) -> list[tuple[int, str]]:
        """Return event and handler of every failed run that no later run of the same handler followed."""
        asked = select(RUNS.c.event_id, RUNS.c.flow).join(EVENTS, EVENTS.c.id == RUNS.c.event_id)
        asked = asked.where(RUNS.c.status.in_(_FAILED), ~_followed())
        if wire is not None:
            asked = asked.where(EVENTS.c.wire == wire)
        if since is not None:
            asked = asked.where(EVENTS.c.received_at >= since)
        async with self.database.session() as session:
            return [(row.event_id, row.flow) for row in await session.execute(asked.order_by(RUNS.c.event_id))]

    async def parked(self, *, wire: str | None, since: datetime | None) -> list[int]:
        """Return the ids of parked events, oldest first."""
        asked = select(EVENTS.c.id).where(EVENTS.c.parked.is_not(None))
        if wire is not None:
            asked = asked.where(EVENTS.c.wire == wire)
        if since is not None:
            asked = asked.where(EVENTS.c.received_at >= since)
        async with self.database.session() as session:
            return list((await session.execute(asked.order_by(EVENTS.c.id))).scalars())

    async def counts(self) -> dict[str, dict[str, int]]:
        """Return for each wire the number of events, of active runs, and of failed runs that no later run followed."""
        found: dict[str, dict[str, int]] = {}
        waiting = func.coalesce(func.sum(case((RUNS.c.status.in_(ACTIVE), 1), else_=0)), 0)
        failed = func.coalesce(func.sum(case((RUNS.c.status.in_(_FAILED) & ~_followed(), 1), else_=0)), 0)
        events = select(EVENTS.c.wire, func.count(), func.max(EVENTS.c.received_at)).group_by(EVENTS.c.wire)
        runs = select(EVENTS.c.wire, waiting, failed).join(RUNS, RUNS.c.event_id == EVENTS.c.id).group_by(EVENTS.c.wire)
        async with self.database.session() as session:
            for wire, count, last in await session.execute(events):
                found[wire] = {"events": count, "waiting": 0, "failed": 0, "last": last}
            for wire, waits, failures in await session.execute(runs):
                found[wire] |= {"waiting": int(waits), "failed": int(failures)}
        return found

    # -- retention ---------------------------------------------------------------------------------------------------

    async def sweep(self, before: datetime, limit: int = 1000) -> int:
        """Delete events received before `before`, with their runs, unless parked or with an active run. Returns the number."""
        active = exists().where(RUNS.c.event_id == EVENTS.c.id, RUNS.c.status.in_(ACTIVE))
        old = select(EVENTS.c.id).where(EVENTS.c.received_at < before, EVENTS.c.parked.is_(None), ~active).limit(limit)
        async with self.database.writing() as session:
            gone = list((await session.execute(old)).scalars())
            if gone:
                await session.execute(delete(RUNS).where(RUNS.c.event_id.in_(gone)))
                await session.execute(delete(EVENTS).where(EVENTS.c.id.in_(gone)))
            return len(gone)


def _with_status(matching: Select[Any], status: str | None) -> Select[Any]:
    mine = RUNS.c.event_id == EVENTS.c.id
    if status is None:
        return matching
    if status == "unhandled":
        return matching.where(~exists().where(mine))
    wanted = RUNS.c.status.in_(_FAILED) if status == "failed" else RUNS.c.status == status
    return matching.where(exists().where(mine, wanted, ~_followed()))


def _followed() -> ColumnElement[bool]:
    """SQL condition: there is a newer run of the same handler and event."""
    later = RUNS.alias()
    theirs, ours = (tuple_(runs.c.created_at, runs.c.id) for runs in (later, RUNS))
    return exists().where(later.c.event_id == RUNS.c.event_id, later.c.flow == RUNS.c.flow, theirs > ours)
