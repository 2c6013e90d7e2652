"""Runs handlers again for stored events."""

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

_BATCH = 50
"""Events in one transaction. All of their bodies are in memory."""


class Replays:
    """Creates new handler runs for stored events. `wake` is called after new runs were stored."""

    def __init__(self, env: WebhookEnvironment, wake: Callable[[], None]) -> None:
        self._env, self._wake = env, wake

    async def event(self, event_id: str) -> EventData:
        """Return a stored event. Raises UsageError (unknown_event)."""
        row = await self._env.events.get(int(event_id)) if event_id.isdecimal() and len(event_id) < 19 else None
        if row is None:
            raise UsageError(
                f"There is no event {event_id!r}",
                code="unknown_event",
                hint="It may have been deleted after its retention period.",
                next=["khotan wire events"],
            )
        return row

    async def one(self, event_id: str, handler: str | None = None, organisation: str | None = None) -> list[str]:
        """Create runs of every handler that matches the event, or of one handler. Returns the ids of the runs.

        organisation: assigns a parked record. Raises UsageError (unknown_event, nothing_to_replay, idempotency_key_reused;
        also if the handler belongs to another wire, or an organisation is given for an event that is not an ingested
        record), and UnknownName for the handler.
        """
        row = await self.event(event_id)
        self._check(row, handler, organisation)
        if organisation:
            await self._check_key(row, organisation)
        handlers = [self._env.handler(handler)] if handler else self._matching_handlers(row)
        if not handlers:
            raise UsageError(
                f"No handler of wire {row.wire!r} matches the event type {row.type!r}",
                code="nothing_to_replay",
                hint=f"Declare one with @wire.catch({row.type!r}).",
            )
        return await self._create_runs([(row, handlers)], organisation)

    async def _check_key(self, row: EventData, organisation: str) -> None:
        """Raises UsageError if the organisation has another record with the same key."""
        async with self._env.base.database.session() as session:
            twin = await twin_of(session, row, organisation)
        if twin is not None:
            raise UsageError(
                f"Organisation {organisation} already used the key {row.remote_id!r} for event {twin}",
                code="idempotency_key_reused",
                hint="A key identifies one record per organisation. Replay that event, or name another organisation.",
                next=[f"khotan wire show {twin}"],
            )

    def _check(self, row: EventData, handler: str | None, organisation: str | None) -> None:
        if handler and self._env.handler(handler).wire.id != row.wire:
            raise UsageError(
                f"Event {row.id} belongs to wire {row.wire!r}, but {handler} is a handler of "
                f"{self._env.handler(handler).wire.id!r}",
                hint="Name a handler of the event's wire, or omit the handler.",
                next=[f"khotan wire show {row.id}"],
            )
        wire = self._env.wires.get(row.wire)
        if organisation and (wire is None or wire.kind != "ingest"):
            raise UsageError(
                f"Event {row.id} belongs to {row.wire!r}, which is not an ingest: it cannot have an organisation",
                hint="Omit the organisation.",
            )

    async def failed(
        self, *, wire: str | None = None, since: datetime | None = None
    ) -> tuple[list[str], dict[str, int]]:
        """Create a run for every failed run that no later run followed. Returns the ids of the new runs.

        since: only events received since then. Also returns the number of failed runs by handler for handlers that this app
        does not have; those are not run again.
        """
        if wire is not None:
            self._env.wire(wire)
        known, failed, missing = self._env.handlers, dict[int, list[Handler]](), Counter[str]()
        for event_id, name in await self._env.events.failed(wire=wire, since=since):
            if name in known:
                failed.setdefault(event_id, []).append(known[name])
            else:
                missing[name] += 1
        return await self._run_all(list(failed), lambda row: failed[row.id]), dict(missing)

    async def parked(self, *, wire: str | None = None, since: datetime | None = None) -> list[str]:
        """Create runs for parked records, which resolve the organisation again. Returns the ids of the runs."""
        if wire is not None:
            self._env.wire(wire)
        return await self._run_all(await self._env.events.parked(wire=wire, since=since), self._matching_handlers)

    def _matching_handlers(self, row: EventData) -> Sequence[Handler]:
        """The declared handlers that match the event's type."""
        wire = self._env.wires.get(row.wire)
        return [handler for handler in wire.handlers.values() if handler.takes(row.type)] if wire else []

    async def _run_all(self, ids: Sequence[int], handlers_of: Callable[[EventData], Sequence[Handler]]) -> list[str]:
        run_ids = list[str]()
        for start in range(0, len(ids), _BATCH):
            rows = await self._env.events.many(ids[start : start + _BATCH])
            run_ids += await self._create_runs(
                [(row, handlers) for row in rows.values() if (handlers := handlers_of(row))]
            )
        return run_ids

    async def _create_runs(
        self, wanted: Sequence[tuple[EventData, Sequence[Handler]]], organisation: str | None = None
    ) -> list[str]:
        handler_runs: dict[int, list[HandlerRun]] = {}
        for row, handlers in wanted:
            wire = self._env.wires.get(row.wire)
            request = StoredEvent(row, wire.envelope if wire else None).request
            handler_runs[row.id] = [
                HandlerRun(handler.name, handler.kind, handler.order_key(request)) for handler in handlers
            ]
        run_ids = await self._env.events.again(handler_runs, organisation)
        self._wake()
        return run_ids
