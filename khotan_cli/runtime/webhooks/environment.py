"""What wires run on: their declarations, what is stored of them, and their variables."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from khotan_cli.errors import DatabaseNotMigrated, KhotanError, SecretMissing, UnknownName
from khotan_cli.runtime.http.known_secrets import known
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.events import EventStore
from khotan_cli.runtime.store.handler_queue import HandlerQueue
from khotan_cli.runtime.store.wires import WireStore
from khotan_cli.runtime.webhooks.endpoint import SECRET, InboundEndpoint
from khotan_cli.runtime.webhooks.handler import Handler

FRESH_SECONDS = 5.0
"""For how long a wire's variables are taken as they were read."""


@dataclass(frozen=True)
class WebhookEnvironment:
    """Everything that receiving and processing an event needs. `public_url`: under which the world reaches the app."""

    base: Environment
    wires: Mapping[str, InboundEndpoint]
    public_url: str = ""
    _values: dict[str, tuple[float, Mapping[str, str]]] = field(
        default_factory=dict[str, tuple[float, Mapping[str, str]]], repr=False
    )

    @property
    def events(self) -> EventStore:
        return EventStore(self.base.database)

    @property
    def handler_queue(self) -> HandlerQueue:
        return HandlerQueue(self.base.database)

    @property
    def rows(self) -> WireStore:
        return WireStore(self.base.database)

    @property
    def handlers(self) -> dict[str, Handler]:
        """Handlers of all wires by name."""
        return {handler.name: handler for wire in self.wires.values() for handler in wire.handlers.values()}

    def wire(self, wire: str) -> InboundEndpoint:
        """Raises UnknownName with the nearest."""
        if wire not in self.wires:
            unknown = UnknownName("wire", wire, self.wires)
            if not self.wires:
                plug = wire.partition("/")[0]
                unknown.next = (
                    f"khotan add wire {plug} --plug {plug}" if plug in self.base.plugs else "khotan add wire",
                )
            raise unknown
        return self.wires[wire]

    def handler(self, name: str) -> Handler:
        """Raises UnknownName with the nearest."""
        handlers = self.handlers
        if name not in handlers:
            raise UnknownName("handler", name, handlers)
        return handlers[name]

    # -- variables ---------------------------------------------------------------------------------------------------

    async def values(self, wire: InboundEndpoint, *, fresh: bool = False) -> Mapping[str, str]:
        """The wire's variables: from the database, the environment, or the default. Raises StoreError, SecretMissing."""
        held = self._values.get(wire.id)
        if held is not None and not fresh and time.monotonic() - held[0] < FRESH_SECONDS:
            return held[1]
        try:
            stored = await self.base.vars.load(wire.owner)
        except DatabaseNotMigrated:
            stored = {}
        found: dict[str, str] = {}
        for name, var in wire.vars.items():
            value = stored.get(name) or os.environ.get(wire.env_name(name)) or var.default
            if value:
                found[name] = value
        self._values[wire.id] = (time.monotonic(), found)
        known.add(text for name, value in found.items() if wire.vars[name].secret for text in (value, *_lines(value)))
        return found

    async def all_secrets(self) -> dict[str, str]:
        """The secret variables of all wires, line by line, and what each of them is. A wire whose variables cannot be read is
        left out: no text can hold them."""
        found: dict[str, str] = {}
        for wire in self.wires.values():
            try:
                values = await self.values(wire)
            except KhotanError:
                continue
            for name, value in values.items():
                if wire.vars[name].secret:
                    lines = dict.fromkeys([value, *_lines(value)], f"the variable {name!r} of wire {wire.id!r}")
                    found |= lines
        return found

    def forget(self, wire: InboundEndpoint) -> None:
        """Have the wire's variables read afresh."""
        self._values.pop(wire.id, None)

    def read_before(self, wire: InboundEndpoint, seconds: float) -> bool:
        """Whether the variables were read longer ago than that."""
        held = self._values.get(wire.id)
        return held is None or time.monotonic() - held[0] > seconds

    async def secrets(self, wire: InboundEndpoint, *, fresh: bool = False) -> list[str]:
        """The signing secrets, one line each while they are rotated. Raises SecretMissing where there is none."""
        declared = wire.scheme.secret if wire.scheme else None
        if declared is not None and wire.plug is not None:
            if fresh:
                wire.plug.shared.forget()
            value = (await wire.plug.resolve()).values.get(declared.name, "")
        elif SECRET in wire.vars:
            value = (await self.values(wire, fresh=fresh)).get(SECRET, "")
        else:
            return [""]
        found = _lines(value)
        if not found:
            raise SecretMissing(
                f"Wire {wire.id!r} has no signing secret",
                code="wire_secret_missing",
                hint=f"Set it, or the environment variable {wire.env_name(SECRET)}."
                if declared is None or wire.plug is None
                else f"Set {declared.name} of plug {wire.plug.name}.",
                next=[f"khotan wire vars {wire.id} set {SECRET} --stdin"]
                if declared is None or wire.plug is None
                else [f"khotan vars {wire.plug.name} set {declared.name} --stdin"],
            )
        return found


def _lines(value: str) -> list[str]:
    """Several secrets, one per line; a key in PEM stays whole."""
    if "-----BEGIN" in value:
        return ["-----BEGIN" + part.strip() for part in value.split("-----BEGIN")[1:]]
    return [line.strip() for line in value.splitlines() if line.strip()]
