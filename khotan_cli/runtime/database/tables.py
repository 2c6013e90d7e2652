"""The tables of khotan."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
    text,
)
from sqlmodel import Field

from khotan_cli.runtime.database import types as base
from khotan_cli.runtime.database import webhook_tables as tables_webhooks
from khotan_cli.runtime.database.types import (
    BIG_ID,
    SORTED_TEXT,
    KhotanTable,
    ReadableJson,
    ReadableText,
    UtcDateTime,
    json_column,
    utc_now,
)

_ORDERED = "order_key IS NOT NULL AND (status = 'pending' OR status = 'running')"
"""Written with OR, so that SQLite uses the partial index for one of the states (sqlite.org/partialindex.html)."""
metadata = base.metadata
EVENTS = tables_webhooks.EVENTS


class PlugRow(KhotanTable, table=True):
    """The stored state of a plug. A plug without a row is enabled."""

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


class FlowRow(KhotanTable, table=True):
    """The stored state of a flow. A flow without a row is enabled."""

    __tablename__ = "khotan_flows"  # pyright: ignore[reportAssignmentType]

    name: str = Field(primary_key=True, sa_type=Text)
    enabled: bool = True
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class ScheduleRow(KhotanTable, table=True):
    """The last dispatched due time of a flow's variant."""

    __tablename__ = "khotan_schedules"  # pyright: ignore[reportAssignmentType]

    flow: str = Field(primary_key=True, sa_type=Text)
    variant: str = Field(primary_key=True, sa_type=Text)
    last_due_at: datetime = Field(sa_type=UtcDateTime)


class WorkerRow(KhotanTable, table=True):
    """A process that runs flows, and the fingerprint of the code that it started with (`runtime/fingerprint.py`)."""

    __tablename__ = "khotan_workers"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True, sa_type=Text)
    code: str = Field(sa_type=Text)
    started_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


def _partial(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class RunRow(KhotanTable, table=True):
    """A run of a flow, or of an event's handler (then `event_id` is set, and the row is also the queue entry).

    `epoch` counts the starts: a process with an older epoch must not write. For a handler's run, `failures` counts failed
    attempts, `next_at` is the time of the next attempt (None: now), `worker` is the worker that runs it, and runs with the
    same `order_key` run one after another in the order of their events.
    """

    __tablename__ = "khotan_runs"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_khotan_runs_flow_created_at", "flow", "created_at"),
        Index("ix_khotan_runs_status", "status"),
        Index("ix_khotan_runs_event_id", "event_id"),
        _partial("ix_khotan_runs_waiting", "flow", "event_id", where="status = 'pending' AND event_id IS NOT NULL"),
        _partial("ix_khotan_runs_order_key", "order_key", "status", "event_id", where=_ORDERED),
    )

    id: str = Field(primary_key=True, sa_type=Text)
    flow: str = Field(sa_type=Text)
    kind: str = Field(sa_type=Text)
    variant: str | None = Field(default=None, sa_type=Text)
    status: str = Field(sa_type=Text)
    source: str = Field(sa_type=Text)
    body: Any = json_column()
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
    progress: Any = json_column(ReadableJson)
    message: str | None = Field(default=None, sa_type=ReadableText)
    error: Any = json_column(ReadableJson)
    event_id: int | None = Field(default=None, sa_type=BigInteger)
    order_key: str | None = Field(default=None, sa_type=Text)
    next_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    failures: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    worker: str | None = Field(default=None, sa_type=Text)
    code: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


def _of_run(**options: Any) -> Any:
    return Field(sa_type=Text, sa_column_args=[ForeignKey("khotan_runs.id", ondelete="CASCADE")], **options)


class RunStepRow(KhotanTable, table=True):
    """A finished step of a run, committed with the step's writes. A resumed run does not repeat it."""

    __tablename__ = "khotan_run_steps"  # pyright: ignore[reportAssignmentType]

    run_id: str = _of_run(primary_key=True)
    name: str = Field(primary_key=True, sa_type=Text)
    number: int
    result: Any = json_column()
    counts: Any = json_column()
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
    message: str = Field(sa_type=ReadableText)


class RejectRow(KhotanTable, table=True):
    """A rejected record of a run with the reason, stored for inspection."""

    __tablename__ = "khotan_rejects"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_khotan_rejects_run_id", "run_id"),)

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    run_id: str = _of_run()
    step: str = Field(sa_type=Text)
    reason: str = Field(sa_type=ReadableText)
    record: Any = json_column(ReadableJson)


class SeenKeyRow(KhotanTable, table=True):
    """A key that a pass over a source has processed. `delete_missing` deletes the rows without one.

    `noted_by` is the step (a page of the pass) that stored it first.
    """

    __tablename__ = "khotan_seen_keys"  # pyright: ignore[reportAssignmentType]

    run_id: str = _of_run(primary_key=True)
    step: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=Text)
    noted_by: str = Field(default="", sa_type=Text, sa_column_kwargs={"server_default": ""})


class MappingRow(KhotanTable, table=True):
    """An entity that several systems know, with its canonical key (see store/canonical_key.py)."""

    __tablename__ = "khotan_mappings"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("resource", "key", name="uq_khotan_mappings_resource"),)

    id: str = Field(primary_key=True, sa_type=Text)
    resource: str = Field(sa_type=Text)
    key: str = Field(sa_type=SORTED_TEXT)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class MappingRefRow(KhotanTable, table=True):
    """The id that one system has for an entity.

    `fields` holds a digest of each known field value of the system, to detect writes of the same values and khotan's own
    writes that are read back. `origin`: whether the values were read from the system ("read") or sent to it ("write").
    """

    __tablename__ = "khotan_mapping_refs"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (UniqueConstraint("mapping_id", "plug", name="uq_khotan_mapping_refs_mapping_id"),)

    resource: str = Field(primary_key=True, sa_type=Text)
    plug: str = Field(primary_key=True, sa_type=Text)
    ref: str = Field(primary_key=True, sa_type=Text)
    mapping_id: str = Field(sa_type=Text, sa_column_args=[ForeignKey("khotan_mappings.id", ondelete="CASCADE")])
    origin: str = Field(default="read", sa_type=Text)
    fields: Any = json_column()
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class CacheEntryRow(KhotanTable, table=True):
    """An entry of a cache; expires_at is in seconds since the epoch, by `Database.now`, None: never."""

    __tablename__ = "khotan_cache_entries"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (Index("ix_khotan_cache_entries_expires_at", "expires_at"),)

    cache: str = Field(primary_key=True, sa_type=Text)
    owner: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=SORTED_TEXT)
    value: Any = json_column()
    expires_at: float | None = Field(default=None, sa_type=Float(53))
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


PLUGS = metadata.tables["khotan_plugs"]
VARS = metadata.tables["khotan_vars"]
LEASES = metadata.tables["khotan_leases"]
RATES = metadata.tables["khotan_rates"]
FLOWS = metadata.tables["khotan_flows"]
SCHEDULES = metadata.tables["khotan_schedules"]
WORKERS = metadata.tables["khotan_workers"]
RUNS = metadata.tables["khotan_runs"]
RUN_STEPS = metadata.tables["khotan_run_steps"]
RUN_UPDATES = metadata.tables["khotan_run_updates"]
REJECTS = metadata.tables["khotan_rejects"]
SEEN_KEYS = metadata.tables["khotan_seen_keys"]
MAPPINGS = metadata.tables["khotan_mappings"]
MAPPING_REFS = metadata.tables["khotan_mapping_refs"]
CACHE_ENTRIES = metadata.tables["khotan_cache_entries"]
