"""Wires, their events and handlers on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from khotan_cli.runtime.api.models.common import ApiModel, Ok


class HandlerInfo(ApiModel):
    """A handler: the types of events it takes, and where a pass sends them.

    `retry_span`: seconds that its tries cover at least."""

    name: str
    wire: str
    kind: str
    types: list[str]
    to: str | None
    model: str | None
    ordered: bool
    attempts: int
    retry_span: float
    timeout: float | None
    doc: str
    module: str
    enabled: bool


class HandlerShown(HandlerInfo):
    ok: bool = True


class WireVar(ApiModel):
    """A variable of a wire. `source`: database, environment, default, or null where it has no value."""

    key: str
    label: str
    secret: bool
    set: bool
    source: str | None
    env: str
    masked: str | None


class WireInfo(ApiModel):
    """A wire. `subscribed`: khotan made a subscription; null where that is done by hand, and khotan cannot know.
    `callback_url`: what the service was given, or is to be given. `waiting` and `failed` count runs of handlers."""

    id: str
    kind: Literal["wire", "ingest"]
    plug: str | None
    managed: bool
    enabled: bool
    scheme: str
    path: str
    types: list[str]
    subscribed: bool | None
    callback_url: str | None
    remote_id: str | None
    expires_at: datetime | None
    renew_at: datetime | None
    error: dict[str, Any] | None
    handlers: list[HandlerInfo]
    events: int
    waiting: int
    failed: int
    last_event_at: datetime | None
    missing_vars: list[str]


class WireShown(WireInfo):
    """`worker`: whether a process is there that runs handlers."""

    ok: bool = True
    worker: bool
    vars: list[WireVar]


class WireCreate(ApiModel):
    """url: base URL under which the service reaches the app; default: KHOTAN_PUBLIC_URL."""

    url: str | None = Field(default=None, max_length=2000)


class WirePatch(ApiModel):
    enabled: bool


class WireVars(ApiModel):
    values: dict[str, str]


class WireVarsChanged(Ok):
    wire: str
    set: list[str] = []
    cleared: list[str] = []


class Sample(ApiModel):
    """body: any JSON; without one an envelope is made up with the type, and an id, where the wire looks for them. forged:
    signed with another secret than the wire's."""

    type: str
    body: Any = None
    forged: bool = False


class SampleShown(Ok):
    """A signed request, to be sent as it is; `body` is base64."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


class DeliveryInfo(ApiModel):
    """A run of a handler. `next_at`: when it is tried again; `failures`: tries that failed, of `attempts`.
    `retry_span`: seconds that the tries cover at least; null where the app has no such handler."""

    id: str
    handler: str
    status: str
    source: str
    failures: int
    attempts: int | None = None
    retry_span: float | None = None
    next_at: datetime | None
    error: dict[str, Any] | None
    created_at: datetime
    ended_at: datetime | None


class EventInfo(ApiModel):
    """An event. `status` sums up its runs: pending, running, completed, failed, cancelled, parked, or unhandled.
    `problem`: why its body cannot be read. `path`: what the wire took from the path."""

    id: str
    wire: str
    type: str
    remote_id: str
    status: str
    received_at: datetime
    content_type: str
    size: int
    repeats: int
    altered: int
    parked: str | None
    organisation: str | None
    problem: str | None
    path: dict[str, str] | None
    runs: list[DeliveryInfo]


class EventShown(EventInfo):
    """With its headers, credentials masked, and its body: as JSON, as text, or as base64."""

    ok: bool = True
    method: str
    headers: dict[str, str]
    json_body: Any = Field(default=None, alias="json")
    text: str | None = None
    base64: str | None = None


class Replay(ApiModel):
    """organisation: whose a parked record is; without it that is asked again."""

    handler: str | None = None
    organisation: str | None = Field(default=None, min_length=1, max_length=200)


class ReplayMany(ApiModel):
    """Of events that came `since` then; of one wire, or of all. parked: those that are parked, not those that failed."""

    parked: bool = False
    wire: str | None = None
    since: datetime | None = None


class Replayed(Ok):
    """The new runs; `worker`: whether a process is there that runs them; `gone`: how many failed runs are of each handler
    that the app no longer has, and are not run again."""

    runs: list[str]
    worker: bool
    gone: dict[str, int] = {}
