"""The environment of wires: their declarations, stores and variables."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from khotan_cli.errors import DatabaseNotMigrated, KhotanError, SecretMissing, UnknownName
from khotan_cli.runtime.redaction.known_secrets import known
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.events import EventStore
from khotan_cli.runtime.store.handler_queue import HandlerQueue
from khotan_cli.runtime.store.wires import WireStore
from khotan_cli.runtime.webhooks.endpoint import SECRET, InboundEndpoint
from khotan_cli.runtime.webhooks.handler import Handler

FRESH_SECONDS = 5.0
"""Seconds for which a wire's variables are cached."""


@dataclass(frozen=True)
class WebhookEnvironment:
    """Everything needed to receive and process an event. `public_url`: the public base URL of the app."""

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
        """Return the wire. Raises UnknownName with the nearest name."""
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
        """Return the handler. Raises UnknownName with the nearest name."""
        handlers = self.handlers
        if name not in handlers:
            raise UnknownName("handler", name, handlers)
        return handlers[name]

    # -- variables ---------------------------------------------------------------------------------------------------

    async def values(self, wire: InboundEndpoint, *, fresh: bool = False) -> Mapping[str, str]:
        """Return the wire's variables from the database, the environment or the default. Raises StoreError, SecretMissing.

        fresh: do not use cached values.
        """
        cached = self._values.get(wire.id)
        if cached is not None and not fresh and time.monotonic() - cached[0] < FRESH_SECONDS:
            return cached[1]
        try:
            stored = await self.base.vars.load(wire.owner)
        except DatabaseNotMigrated:
            stored = {}
        values: dict[str, str] = {}
        for name, var in wire.vars.items():
            value = stored.get(name) or os.environ.get(wire.env_name(name)) or var.default
            if value:
                values[name] = value
        self._values[wire.id] = (time.monotonic(), values)
        known.add(text for name, value in values.items() if wire.vars[name].secret for text in (value, *_lines(value)))
        return values

    async def all_secrets(self) -> dict[str, str]:
        """Map each line of each wire's secret variables to a description.

        Wires whose variables cannot be read are skipped: no text can contain those values.
        """
        secrets: dict[str, str] = {}
        for wire in self.wires.values():
            try:
                values = await self.values(wire)
            except KhotanError:
                continue
            for name, value in values.items():
                if wire.vars[name].secret:
                    lines = dict.fromkeys([value, *_lines(value)], f"the variable {name!r} of wire {wire.id!r}")
                    secrets |= lines
        return secrets

    def forget(self, wire: InboundEndpoint) -> None:
        """Clear the wire's cached variables."""
        self._values.pop(wire.id, None)

    def read_before(self, wire: InboundEndpoint, seconds: float) -> bool:
        """Whether the variables were read more than `seconds` ago, or never."""
        cached = self._values.get(wire.id)
        return cached is None or time.monotonic() - cached[0] > seconds

    async def secrets(self, wire: InboundEndpoint, *, fresh: bool = False) -> list[str]:
        """Return the signing secrets; there are several during a rotation. Raises SecretMissing if there are none."""
        declared = wire.scheme.secret if wire.scheme else None
        if declared is not None and wire.plug is not None:
            if fresh:
                wire.plug.shared.forget()
            value = (await wire.plug.resolve()).values.get(declared.name, "")
        elif SECRET in wire.vars:
            value = (await self.values(wire, fresh=fresh)).get(SECRET, "")
        else:
            return [""]
        secrets = _lines(value)
        if not secrets:
            raise SecretMissing(
                f"Wire {wire.id!r} has no signing secret",
                code="wire_secret_missing",
                hint=f"Set it with the command below, or set the environment variable {wire.env_name(SECRET)}."
                if declared is None or wire.plug is None
                else f"Set the variable {declared.name} of plug {wire.plug.name}.",
                next=[f"khotan wire vars {wire.id} set {SECRET} --stdin"]
                if declared is None or wire.plug is None
                else [f"khotan vars {wire.plug.name} set {declared.name} --stdin"],
            )
        return secrets


def _lines(value: str) -> list[str]:
    """Split a value into secrets, one per line. A PEM key stays whole."""
    if "-----BEGIN" in value:
        return ["-----BEGIN" + part.strip() for part in value.split("-----BEGIN")[1:]]
    return [line.strip() for line in value.splitlines() if line.strip()]
