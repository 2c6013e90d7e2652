"""The rows. One metadata and registry of khotan's own: the application's models and these never mix."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC on every database; SQLite, which knows no zones, keeps it without and gets it back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            # Which moment it means would depend on where the process runs.
            raise ValueError("a moment needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    return datetime.now(UTC)


class KhotanTable(SQLModel, registry=registry(metadata=metadata)):
    """Base of khotan's tables."""

    metadata = metadata


class PlugRow(KhotanTable, table=True):
    """What is stored of a plug besides its code. A plug without a row is enabled."""

    __tablename__ = "khotan_plugs"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True, sa_type=Text)
    enabled: bool = True
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class VarRow(KhotanTable, table=True):
    """One value of a variable, encrypted. One row each, so that concurrent updates do not overwrite one another."""

    __tablename__ = "khotan_vars"  # pyright: ignore[reportAssignmentType]

    plug: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=Text)
    ciphertext: str = Field(sa_type=Text)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class LeaseRow(KhotanTable, table=True):
    """A lock or a slot held by one process; expires_at is in seconds since the epoch, by `Database.now`."""

    __tablename__ = "khotan_leases"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True, sa_type=Text)
    owner: str = Field(sa_type=Text)
    expires_at: float = Field(sa_type=Float(53))


class RateRow(KhotanTable, table=True):
    """State of a rate bucket: theoretical arrival time and end of a hold, in seconds since the epoch, by `Database.now`."""

    __tablename__ = "khotan_rates"  # pyright: ignore[reportAssignmentType]

    key: str = Field(primary_key=True, sa_type=Text)
    arrival_at: float = Field(sa_type=Float(53))
    held_until: float = Field(sa_type=Float(53))


JSON_VALUE = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON column: JSONB on PostgreSQL."""
BIG_ID = BigInteger().with_variant(Integer(), "sqlite")
"""A growing number: SQLite counts up only a column it calls INTEGER."""
SORTED_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by code point on both databases, as canonical keys must."""


def _json() -> Any:
    return Field(default=None, sa_type=JSON_VALUE, nullable=True)


class FlowRow(KhotanTable, table=True):
    """What is stored of a flow besides its code. A flow without a row is enabled."""

    __tablename__ = "khotan_flows"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True, sa_type=Text)
    enabled: bool = True
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class ScheduleRow(KhotanTable, table=True):
    """Up to which moment the schedule of a flow's variant has been dispatched."""

    __tablename__ = "khotan_schedules"  # pyright: ignore[reportAssignmentType]

    flow: str = Field(primary_key=True, sa_type=Text)
    variant: str = Field(primary_key=True, sa_type=Text)
    last_due_at: datetime = Field(sa_type=UtcDateTime)


class RunRow(KhotanTable, table=True):
    """One execution of a flow, or of a handler of an event (then `event_id` is set, and the row is its place in the queue).

    `epoch` counts the starts: a process whose number is not the newest may write no more. Of a handler's run `failures`
    counts the tries that failed, `next_at` is when it may be tried again (None: at once), `worker` is who runs it, and runs
    with one `order_key` go one after another in the order of their events.
    """

    __tablename__ = "khotan_runs"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_khotan_runs_flow_created_at", "flow", "created_at"),
        Index("ix_khotan_runs_status", "status"),
        Index("ix_khotan_runs_event_id", "event_id"),
        Index("ix_khotan_runs_order_key", "order_key", "event_id"),
    )

    id: str = Field(primary_key=True, sa_type=Text)
    flow: str = Field(sa_type=Text)
    kind: str = Field(sa_type=Text)
    variant: str | None = Field(default=None, sa_type=Text)
    status: str = Field(sa_type=Text)
    source: str = Field(sa_type=Text)
    body: Any = _json()
    retry_of: str | None = Field(default=None, sa_type=Text)
    due_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    epoch: int = 0
    cancel_requested: bool = False
    extracted: int = Field(default=0, sa_type=BigInteger)
    transformed: int = Field(default=0, sa_type=BigInteger)
    created: int = Field(default=0, sa_type=BigInteger)
    updated: int = Field(default=0, sa_type=BigInteger)
    deleted: int = Field(default=0, sa_type=BigInteger)
    skipped: int = Field(default=0, sa_type=BigInteger)
    failed: int = Field(default=0, sa_type=BigInteger)
    progress: Any = _json()
    message: str | None = Field(default=None, sa_type=Text)
    error: Any = _json()
    event_id: int | None = Field(default=None, sa_type=BigInteger)
    order_key: str | None = Field(default=None, sa_type=Text)
    next_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    failures: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    worker: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


def _of_run(**options: Any) -> Any:
    return Field(sa_type=Text, sa_column_args=[ForeignKey("khotan_runs.id", ondelete="CASCADE")], **options)


class RunStepRow(KhotanTable, table=True):
    """A finished step of a run, committed with what the step wrote. A resumed run does not do it again."""

    __tablename__ = "khotan_run_steps"  # pyright: ignore[reportAssignmentType]

    run_id: str = _of_run(primary_key=True)
    name: str = Field(primary_key=True, sa_type=Text)
    number: int
    result: Any = _json()
    counts: Any = _json()
    attempts: int = 1
    started_at: datetime = Field(sa_type=UtcDateTime)
    ended_at: datetime = Field(sa_type=UtcDateTime)


class RunUpdateRow(KhotanTable, table=True):
    """A line of a run's log."""

    __tablename__ = "khotan_run_updates"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_khotan_run_updates_run_id", "run_id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    run_id: str = _of_run()
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    level: str = Field(sa_type=Text)
    message: str = Field(sa_type=Text)


class RejectRow(KhotanTable, table=True):
    """A record that a run could not take or send, kept for inspection, with the reason."""

    __tablename__ = "khotan_rejects"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_khotan_rejects_run_id", "run_id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    run_id: str = _of_run()
    step: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    record: Any = _json()


class SeenKeyRow(KhotanTable, table=True):
    """A key that a pass over a source has met; the rows whose key it has not are what `delete_missing` deletes."""

    __tablename__ = "khotan_seen_keys"  # pyright: ignore[reportAssignmentType]

    run_id: str = _of_run(primary_key=True)
    step: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=Text)


class MappingRow(KhotanTable, table=True):
    """An entity that several systems know, under its canonical key (see records/keys.py)."""

    __tablename__ = "khotan_mappings"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("resource", "key", name="uq_khotan_mappings_resource"),)

    id: str = Field(primary_key=True, sa_type=Text)
    resource: str = Field(sa_type=Text)
    key: str = Field(sa_type=SORTED_TEXT)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class MappingRefRow(KhotanTable, table=True):
    """The id that one system has for an entity.

    `fields` holds a digest of each field that the system is known to have, so that a write of the same values, or one of
    khotan's own that comes back, is recognised; `origin` says who made them so: "read" or "write".
    """

    __tablename__ = "khotan_mapping_refs"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("mapping_id", "plug", name="uq_khotan_mapping_refs_mapping_id"),)

    resource: str = Field(primary_key=True, sa_type=Text)
    plug: str = Field(primary_key=True, sa_type=Text)
    ref: str = Field(primary_key=True, sa_type=Text)
    mapping_id: str = Field(sa_type=Text, sa_column_args=[ForeignKey("khotan_mappings.id", ondelete="CASCADE")])
    origin: str = Field(default="read", sa_type=Text)
    fields: Any = _json()
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class CacheEntryRow(KhotanTable, table=True):
    """An entry of a cache; expires_at is in seconds since the epoch, by `Database.now`, None: never."""

    __tablename__ = "khotan_cache_entries"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_khotan_cache_entries_expires_at", "expires_at"),)

    cache: str = Field(primary_key=True, sa_type=Text)
    owner: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=SORTED_TEXT)
    value: Any = _json()
    expires_at: float | None = Field(default=None, sa_type=Float(53))
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class WireRow(KhotanTable, table=True):
    """What is stored of a wire besides its code: whether it runs, and its subscription at the service, where it has one."""

    __tablename__ = "khotan_wires"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True, sa_type=Text)
    enabled: bool = True
    subscribed: bool = False
    callback_url: str | None = Field(default=None, sa_type=Text)
    remote_id: str | None = Field(default=None, sa_type=Text)
    data: Any = _json()
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    renew_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    failures: int = 0
    error: Any = _json()
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
    record waits; `organisation` whose it is.
    """

    __tablename__ = "khotan_webhook_events"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        UniqueConstraint("wire", "remote_id", name="uq_khotan_webhook_events_wire"),
        Index("ix_khotan_webhook_events_received_at", "received_at"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    wire: str = Field(sa_type=Text)
    remote_id: str = Field(sa_type=Text)
    type: str = Field(sa_type=Text)
    method: str = Field(sa_type=Text)
    headers: Any = _json()
    content_type: str = Field(sa_type=Text)
    body: bytes = Field(sa_type=LargeBinary)
    repeats: int = 0
    altered: int = 0
    parked: str | None = Field(default=None, sa_type=Text)
    organisation: str | None = Field(default=None, sa_type=Text)
    received_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


PLUGS = metadata.tables["khotan_plugs"]
VARS = metadata.tables["khotan_vars"]
LEASES = metadata.tables["khotan_leases"]
RATES = metadata.tables["khotan_rates"]
FLOWS = metadata.tables["khotan_flows"]
SCHEDULES = metadata.tables["khotan_schedules"]
RUNS = metadata.tables["khotan_runs"]
RUN_STEPS = metadata.tables["khotan_run_steps"]
RUN_UPDATES = metadata.tables["khotan_run_updates"]
REJECTS = metadata.tables["khotan_rejects"]
SEEN_KEYS = metadata.tables["khotan_seen_keys"]
MAPPINGS = metadata.tables["khotan_mappings"]
MAPPING_REFS = metadata.tables["khotan_mapping_refs"]
WIRES = metadata.tables["khotan_wires"]
HANDLERS = metadata.tables["khotan_webhook_handlers"]
EVENTS = metadata.tables["khotan_webhook_events"]
CACHE_ENTRIES = metadata.tables["khotan_cache_entries"]
