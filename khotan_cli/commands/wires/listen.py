"""`khotan wire listen`: shows events as they arrive. A terminal gets a live table with keys, a pipe one document at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from khotan_cli.commands.wires.keyboard import Keys
from khotan_cli.commands.wires.replay import NO_WORKER
from khotan_cli.commands.wires.views import event_row
from khotan_cli.console import console, visible
from khotan_cli.errors import KhotanError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from khotan_cli.client import ApiClient

_LOOK_SECONDS = 0.4
_ANSWER_SECONDS = 10.0
_AWAY_SECONDS = 60.0
_AWAY = (502, 503)
"""Statuses of a server that restarts, or of the proxy in front of it."""
_MAX_EVENTS = 500
"""Maximum number of events in the list."""
_BODY_LINES = 12


def listen(
    client: ApiClient, wire: str, *, since: str | None, count: int, seconds: float, watch: bool
) -> dict[str, Any]:
    """Follow the events of a wire until `count` have arrived, `seconds` are over, or q is pressed.

    since: start with events received since this time. watch: draw a live view and read keys. Returns the events as
    `items`, and as `worker` whether a process runs handlers. The server may restart meanwhile; raises ServerUnreachable
    if it is unreachable when `seconds` are over, or for a minute if neither `seconds` nor `watch` is set.
    """
    shown = client.wire(wire)
    until = time.monotonic() + seconds if seconds else None
    feed = Feed(client, wire, since or datetime.now(UTC).isoformat(), None if watch or until else _AWAY_SECONDS)
    if watch:
        _watch(View(client, shown, feed), count, until)
        return {"worker": shown["worker"], "items": feed.events}
    while not (count and len(feed.events) >= count) and not (until and time.monotonic() > until):
        feed.look()
        time.sleep(_LOOK_SECONDS)
    if feed.lost is not None:
        raise feed.lost
    return {"worker": shown["worker"], "items": feed.events[:count] if count else feed.events}


class Feed:
    """The events of a wire since a time, oldest first. `lost` is the error of the last read, None if it succeeded."""

    def __init__(self, client: ApiClient, wire: str, since: str, patience: float | None) -> None:
        self._client, self._wire, self._since, self._patience = client, wire, since, patience
        self._seen_at = time.monotonic()
        self.events: list[dict[str, Any]] = []
        self.lost: KhotanError | None = None

    def look(self) -> None:
        """Read the events. An unreachable server, one that restarts for example, is tolerated for `patience` seconds."""
        try:
            items = self._client.events(wire=self._wire, since=self._since, limit=_MAX_EVENTS, seconds=_ANSWER_SECONDS)[
                "items"
            ]
        except KhotanError as exc:
            impatient = self._patience is not None and time.monotonic() - self._seen_at > self._patience
            if exc.http_status not in _AWAY or impatient:
                raise
            self.lost = exc
            return
        self.events, self.lost, self._seen_at = list(reversed(items)), None, time.monotonic()


class View:
    """The terminal view: a table with one selected row, and below it the selected event."""

    def __init__(self, client: ApiClient, wire: dict[str, Any], feed: Feed) -> None:
        self._client, self._wire, self.feed = client, wire, feed
        self._selected = ""  # id of the event; empty: the newest
        self._bodies: dict[str, dict[str, Any]] = {}
        self.message = ""
        self._worker: bool = wire["worker"]
        self._began = datetime.now(UTC).isoformat()

    @property
    def worker(self) -> bool:
        """Whether a worker runs handlers: one was found at the start, or a run has progressed since."""
        runs = [run for event in self.feed.events for run in event["runs"]]
        self._worker |= any(run["status"] == "running" or (run["endedAt"] or "") > self._began for run in runs)
        return self._worker

    @property
    def index(self) -> int:
        ids = [event["id"] for event in self.feed.events]
        return ids.index(self._selected) if self._selected in ids else len(ids) - 1

    def press(self, key: str) -> None:
        """Handle a key: up and down select, r replays."""
        events = self.feed.events
        if not events:
            return
        if key in ("up", "k", "down", "j"):
            step = -1 if key in ("up", "k") else 1
            index = min(max(self.index + step, 0), len(events) - 1)
            # The last row keeps following new events.
            self._selected = "" if index == len(events) - 1 else events[index]["id"]
        elif key == "r":
            chosen = events[self.index]
            try:
                done = self._client.replay_event(chosen["id"])
                self._worker, runs = done["worker"], len(done["runs"])
                waits = "" if self._worker else f", which {'waits' if runs == 1 else 'wait'}"
                self.message = f"Replayed event {chosen['id']}: {runs} {'run' if runs == 1 else 'runs'}{waits}."
            except KhotanError as exc:
                self.message = f"{exc.message}. {exc.hint}"

    def draw(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        path = f"/api/khotan{self._wire['path']}"
        head = Text.assemble(("Listening to ", "bold"), (self._wire["id"], "bold cyan"), f" at {path}")
        if not self.worker:
            head.append(f"\n{NO_WORKER}", "yellow")
        keys = Text("↑↓ select · r replay · q quit", style="dim")
        if self.feed.lost is not None:
            keys = Text.assemble(("Reconnecting … ", "yellow"), keys)
        events = self.feed.events
        if not events:
            return Group(head, Text("Waiting for events …", style="dim"), keys)
        room = max(3, console.rich(stderr=True).height - _BODY_LINES - 9)
        first = max(0, min(self.index - room // 2, len(events) - room))
        table = Table(header_style="bold", border_style="dim")
        for column in ("Event", "Received", "Type", "Status", "Runs"):
            table.add_column(column, no_wrap=column != "Runs")
        for row, event in enumerate(events[first : first + room], first):
            number, received, _, kind, status, runs = event_row(event)
            style = "reverse" if row == self.index else ""
            table.add_row(number, received, visible(kind), status, runs, style=style)
        return Group(head, table, *self._body(events[self.index]), Text(self.message, style="green"), keys)

    def _body(self, event: dict[str, Any]) -> Iterator[RenderableType]:
        from rich.text import Text

        if event["id"] not in self._bodies:
            try:
                self._bodies = {event["id"]: self._client.event(event["id"])}
            except KhotanError as exc:
                yield Text(f"{exc.message}.", style="yellow")  # read again with the next look
                return
        shown = self._bodies[event["id"]]
        text = shown["text"] or f"base64: {shown['base64']}"
        if shown["json"] is not None:
            text = json.dumps(shown["json"], ensure_ascii=False, indent=2)
        lines = text.splitlines()
        more = [f"… {len(lines) - _BODY_LINES} more lines: khotan wire show {event['id']}"]
        shown_lines = [visible(line) for line in lines[:_BODY_LINES]]
        yield Text("\n".join([*shown_lines, *(more if len(lines) > _BODY_LINES else [])]), overflow="ellipsis")
        for run in event["runs"]:
            if run["error"]:
                yield Text(f"✗ {run['handler']}: {run['error']['message']}", style="red")


def _watch(view: View, count: int, until: float | None) -> None:
    from rich.live import Live

    feed = view.feed
    with Keys() as keys, Live(console=console.rich(stderr=True), auto_refresh=False, vertical_overflow="crop") as live:
        while not (count and len(feed.events) >= count) and not (until and time.monotonic() > until):
            feed.look()
            live.update(view.draw(), refresh=True)
            for key in keys.pressed(_LOOK_SECONDS):
                if key == "q":
                    return
                view.press(key)
                live.update(view.draw(), refresh=True)
        live.update(view.draw(), refresh=True)
