"""What flows keep, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from khotan_cli.runtime.api.models.common import ApiModel, Ok


class CursorInfo(ApiModel):
    name: str
    value: Any = None
    updated_at: datetime


class SentInfo(ApiModel):
    """A record that was sent; `ref` is its id at the service, empty where the service gave none."""

    key: str
    ref: str
    updated_at: datetime


class DestinationInfo(ApiModel):
    """Where records were sent. `keptIn` is "flow" (name: `PLUG.ENDPOINT SOURCE`) or "mappings" (name: `RESOURCE.PLUG`).

    `records` counts all of them; `items` is a page.
    """

    name: str
    kept_in: Literal["flow", "mappings"]
    records: int
    items: list[SentInfo]


class FlowState(Ok):
    flow: str
    cursors: list[CursorInfo]
    destinations: list[DestinationInfo]
    limit: int
    offset: int


class StateReset(Ok):
    """How many cursors and records were forgotten."""

    flow: str
    cursors: int
    records: int
