"""Events to store, and the outcome of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Key = tuple[str, str, str]
"""The identity of an event: wire, tenant, the sender's id."""


@dataclass(frozen=True)
class HandlerRun:
    """A handler run to create for an event: name and kind of the handler, and the ordering key, if any."""

    handler: str
    kind: str
    order_key: str | None = None


@dataclass(frozen=True)
class Incoming:
    """An event to store, with its handler runs."""

    wire: str
    remote_id: str
    type: str
    method: str
    headers: Mapping[str, str]
    content_type: str
    body: bytes = field(repr=False)
    handler_runs: Sequence[HandlerRun] = ()
    parked: str | None = None
    organisation: str | None = None
    tenant: str = ""
    """Part of the identity: the same remote id of two tenants identifies two events."""
    problem: str | None = None
    """Why the body cannot be read."""
    path: Mapping[str, str] = field(default_factory=dict[str, str])
    window: float | None = None
    """Seconds after which the same remote id identifies a new event; None: never."""

    @property
    def key(self) -> Key:
        return self.wire, self.tenant, self.remote_id


@dataclass(frozen=True)
class Stored:
    """A stored event. `new`: false for a repeat. `altered`: the repeat has a different body."""

    id: int
    new: bool
    altered: bool = False
