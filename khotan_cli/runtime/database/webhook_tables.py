"""The tables of wires and their events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field

from khotan_cli.runtime.database.types import (
    BIG_ID,
    KhotanTable,
    ReadableJson,
    UtcDateTime,
    json_column,
    metadata,
    utc_now,
)


class WireRow(KhotanTable, table=True):
    """The stored state of a wire: whether it is enabled, and its subscription at the service, if any."""

    __tablename__ = "khotan_wires"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True, sa_type=Text)
    enabled: bool = True
    subscribed: bool = False
    callback_url: str | None = Field(default=None, sa_type=Text)
    remote_id: str | None = Field(default=None, sa_type=Text)
    data: Any = json_column()
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    renew_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    failures: int = 0
    error: Any = json_column(ReadableJson)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class HandlerRow(KhotanTable, table=True):
    """Whether a handler of a wire is enabled. A handler without a row is enabled."""

    __tablename__ = "khotan_webhook_handlers"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True, sa_type=Text)
    enabled: bool = True
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class EventRow(KhotanTable, table=True):
    """A received event: raw body, and headers with secrets masked. `remote_id`: the sender's id, or a digest of the body.

    `repeats` counts repeated deliveries, `altered` those with a different body. `parked` is the reason why an ingested record
    is parked; `organisation` is its owner. `tenant` is part of an ingested record's identity, so that two organisations can
    use the same key; it is empty for wires. `problem` says why the body cannot be read. `path` holds the values of the path
    placeholders.
    """

    __tablename__ = "khotan_webhook_events"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        UniqueConstraint("wire", "tenant", "remote_id", name="uq_khotan_webhook_events_wire"),
        Index("ix_khotan_webhook_events_received_at", "received_at"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    wire: str = Field(sa_type=Text)
    remote_id: str = Field(sa_type=Text)
    type: str = Field(sa_type=Text)
    method: str = Field(sa_type=Text)
    headers: Any = json_column()
    content_type: str = Field(sa_type=Text)
    body: bytes = Field(sa_type=LargeBinary)
    repeats: int = 0
    altered: int = 0
    parked: str | None = Field(default=None, sa_type=Text)
    organisation: str | None = Field(default=None, sa_type=Text)
    tenant: str = Field(default="", sa_type=Text, sa_column_kwargs={"server_default": ""})
    problem: str | None = Field(default=None, sa_type=Text)
    path: Any = json_column()
    received_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


WIRES = metadata.tables["khotan_wires"]
HANDLERS = metadata.tables["khotan_webhook_handlers"]
EVENTS = metadata.tables["khotan_webhook_events"]
