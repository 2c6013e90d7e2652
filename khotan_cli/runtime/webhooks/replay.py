"""Running handlers again on events that are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from khotan_cli.errors import UsageError
from khotan_cli.runtime.store.events import Delivery, EventData
from khotan_cli.runtime.webhooks.event import StoredEvent
from khotan_cli.runtime.webhooks.handlers import Handler
from khotan_cli.runtime.webhooks.host import WebhookHost


class Replays:
    """`wake` is called when there is something for handlers to do."""

    def __init__(self, host: WebhookHost, wake: Callable[[], None]) -> None:
        self._host, self._wake = host, wake

    async def event(self, event_id: str) -> EventData:
        """Raises UsageError (unknown_event)."""
        row = await self._host.events.get(int(event_id)) if event_id.isdecimal() and len(event_id) < 19 else None
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

        Raises UsageError (unknown_event, nothing_to_replay), UnknownName for the handler.
        """
        row = await self.event(event_id)
        wanted = [self._host.handler(handler)] if handler else None
        return await self._again(row, wanted, organisation)

    async def failed(self, *, wire: str | None = None, since: datetime | None = None) -> list[str]:
        """New runs for every run that failed, and that nothing has followed, of events that came since then; their ids."""
        if wire is not None:
            self._host.wire(wire)
        known, made = self._host.handlers, list[str]()
        for event_id, name in await self._host.events.failed(wire=wire, since=since):
            row = await self._host.events.get(event_id)
            if row is not None and name in known:
                made += await self._again(row, [known[name]])
        return made

    async def parked(self, *, wire: str | None = None, since: datetime | None = None) -> list[str]:
        """New runs for the records that are parked: whose they are is asked again; ids of the runs."""
        if wire is not None:
            self._host.wire(wire)
        made = list[str]()
        for event_id in await self._host.events.parked(wire=wire, since=since):
            row = await self._host.events.get(event_id)
            if row is not None and row.wire in self._host.wires:
                made += await self._again(row, None)
        return made

    async def _again(
        self, row: EventData, handlers: Sequence[Handler] | None, organisation: str | None = None
    ) -> list[str]:
        if handlers is None:
            wire = self._host.wires.get(row.wire)
            handlers = [h for h in wire.handlers.values() if h.takes(row.type)] if wire else []
        if not handlers:
            raise UsageError(
                f"No handler takes events of type {row.type!r} of wire {row.wire!r}",
                code="nothing_to_replay",
                hint=f"Declare one: @wire.catch({row.type!r}).",
            )
        request = StoredEvent(row).request
        made = await self._host.events.again(
            row.id,
            [Delivery(handler.name, handler.kind, handler.order_key(request)) for handler in handlers],
            organisation,
        )
        self._wake()
        return made
