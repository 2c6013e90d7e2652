"""Events on their way into the database, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Key = tuple[str, str, str]
"""The identity of an event: wire, tenant, the sender's id."""


@dataclass(frozen=True)
class HandlerRun:
    """A handler that an event is for: the name and kind of its runs, and the key by which they are ordered, if any."""

    handler: str
    kind: str
    order_key: str | None = None


@dataclass(frozen=True)
class Incoming:
    """An event to be stored, with the handlers it is for."""

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
    """Part of the identity: the same remote id of two tenants are two events."""
    problem: str | None = None
    """Why the body cannot be read."""
    path: Mapping[str, str] = field(default_factory=dict[str, str])
    window: float | None = None
    """Seconds after which the same remote id is another event; None: it never is."""

    @property
    def key(self) -> Key:
        return self.wire, self.tenant, self.remote_id


@dataclass(frozen=True)
class Stored:
    """The id of an event; `new` is false for one that had come before, `altered` true where it then had another body."""

    id: int
    new: bool
    altered: bool = False
