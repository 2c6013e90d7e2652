"""Running handlers again on events that are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from khotan_cli.errors import UsageError
from khotan_cli.runtime.store.event_identity import twin_of
from khotan_cli.runtime.store.events import EventData
from khotan_cli.runtime.store.incoming import HandlerRun
from khotan_cli.runtime.webhooks.environment import WebhookEnvironment
from khotan_cli.runtime.webhooks.event import StoredEvent
from khotan_cli.runtime.webhooks.handler import Handler

_TOGETHER = 50
"""Events in one transaction: all of their bodies are in memory."""


class Replays:
    """`wake` is called when there is something for handlers to do."""

    def __init__(self, env: WebhookEnvironment, wake: Callable[[], None]) -> None:
        self._env, self._wake = env, wake

    async def event(self, event_id: str) -> EventData:
        """Raises UsageError (unknown_event)."""
        row = await self._env.events.get(int(event_id)) if event_id.isdecimal() and len(event_id) < 19 else None
        if row is None:
            raise UsageError(
                f"There is no event {event_id!r}",
                code="unknown_event",
                hint="It may be past its retention.",
                next=["khotan wire events"],
            )
        return row

    async def one(self, event_id: str, handler: str | None = None, organisation: str | None = None) -> list[str]:
        """New runs of the handlers that take the event now, or of one of them; their ids. organisation: of a parked record.

        Raises UsageError (unknown_event, nothing_to_replay; for a handler of another wire; for an organisation where no
        record is ingested), UnknownName for the handler.
        """
        row = await self.event(event_id)
        self._check(row, handler, organisation)
        if organisation:
            await self._check_key(row, organisation)
        wanted = [self._env.handler(handler)] if handler else self._takers(row)
        if not wanted:
            raise UsageError(
                f"No handler takes events of type {row.type!r} of wire {row.wire!r}",
                code="nothing_to_replay",
                hint=f"Declare one: @wire.catch({row.type!r}).",
            )
        return await self._again([(row, wanted)], organisation)

    async def _check_key(self, row: EventData, organisation: str) -> None:
        """Raises UsageError where the organisation has another record with the same key."""
        async with self._env.base.database.session() as session:
            twin = await twin_of(session, row, organisation)
        if twin is not None:
            raise UsageError(
                f"{organisation} used the key {row.remote_id!r} before, for event {twin}",
                code="idempotency_key_reused",
                hint="One organisation has one record for a key. Replay that event, or name another organisation.",
                next=[f"khotan wire show {twin}"],
            )

    def _check(self, row: EventData, handler: str | None, organisation: str | None) -> None:
        if handler and self._env.handler(handler).wire.id != row.wire:
            raise UsageError(
                f"Event {row.id} is of {row.wire!r}: {handler} is a handler of {self._env.handler(handler).wire.id!r}",
                hint="Name a handler of the event's own wire, or leave it out.",
                next=[f"khotan wire show {row.id}"],
            )
        wire = self._env.wires.get(row.wire)
        if organisation and (wire is None or wire.kind != "ingest"):
            raise UsageError(
                f"Event {row.id} is of {row.wire!r}, which ingests no records: it is no organisation's",
                hint="Leave the organisation out.",
            )

    async def failed(
        self, *, wire: str | None = None, since: datetime | None = None
    ) -> tuple[list[str], dict[str, int]]:
        """New runs for every run that failed, and that nothing has followed, of events that came since then; their ids.

        Also how many failed of each handler that this app lacks: of those none is run again.
        """
        if wire is not None:
            self._env.wire(wire)
        known, failed, gone = self._env.handlers, dict[int, list[Handler]](), Counter[str]()
        for event_id, name in await self._env.events.failed(wire=wire, since=since):
            if name in known:
                failed.setdefault(event_id, []).append(known[name])
            else:
                gone[name] += 1
        return await self._all_again(list(failed), lambda row: failed[row.id]), dict(gone)

    async def parked(self, *, wire: str | None = None, since: datetime | None = None) -> list[str]:
        """New runs for the records that are parked: whose they are is asked again; ids of the runs."""
        if wire is not None:
            self._env.wire(wire)
        return await self._all_again(await self._env.events.parked(wire=wire, since=since), self._takers)

    def _takers(self, row: EventData) -> Sequence[Handler]:
        """The handlers that take an event now."""
        wire = self._env.wires.get(row.wire)
        return [handler for handler in wire.handlers.values() if handler.takes(row.type)] if wire else []

    async def _all_again(self, ids: Sequence[int], handlers: Callable[[EventData], Sequence[Handler]]) -> list[str]:
        made = list[str]()
        for start in range(0, len(ids), _TOGETHER):
            rows = await self._env.events.many(ids[start : start + _TOGETHER])
            made += await self._again([(row, found) for row in rows.values() if (found := handlers(row))])
        return made

    async def _again(
        self, wanted: Sequence[tuple[EventData, Sequence[Handler]]], organisation: str | None = None
    ) -> list[str]:
        handler_runs: dict[int, list[HandlerRun]] = {}
        for row, handlers in wanted:
            wire = self._env.wires.get(row.wire)
            request = StoredEvent(row, wire.envelope if wire else None).request
            handler_runs[row.id] = [HandlerRun(one.name, one.kind, one.order_key(request)) for one in handlers]
        made = await self._env.events.again(handler_runs, organisation)
        self._wake()
        return made
