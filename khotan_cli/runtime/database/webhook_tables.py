"""The rows of wires and their events."""

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
    """What is stored of a wire besides its code: whether it runs, and its subscription at the service, where it has one."""

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
    """Whether a handler of a wire runs. One without a row does."""

    __tablename__ = "khotan_webhook_handlers"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True, sa_type=Text)
    enabled: bool = True
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class EventRow(KhotanTable, table=True):
    """An event as it came: raw body, headers with secrets masked. `remote_id`: the sender's id of it, or the body's digest.

    `repeats` counts its further deliveries, `altered` those of them that had another body. `parked` is why an ingested
    record waits; `organisation` whose it is. `tenant` is the part of an ingested record's identity that keeps the same key of
    two organisations apart; it is empty for wires. `problem` says why the body cannot be read. `path` holds what the wire
    takes from the path.
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
