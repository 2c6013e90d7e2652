"""Flows and runs on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from khotan_cli.runtime.api.models.common import ApiModel, Ok


class VariantInfo(ApiModel):
    """A run mode of a flow; `nextDueAt` is when its schedule comes next."""

    name: str
    schedule: str | None
    timezone: str
    overlap: bool
    next_due_at: datetime | None


class FlowInfo(ApiModel):
    name: str
    kind: str
    doc: str
    module: str
    plug: str
    to: str | None
    resource: str | None
    enabled: bool
    concurrency: int
    timeout: float | None
    variants: list[VariantInfo]


class FlowShown(FlowInfo):
    ok: bool = True


class FlowPatch(ApiModel):
    enabled: bool


class Counts(ApiModel):
    extracted: int
    transformed: int
    created: int
    updated: int
    deleted: int
    skipped: int
    failed: int


class RunInfo(ApiModel):
    """A run. `seconds` counts from its start to its end, or to now; `error` is an error document.

    `code` is the fingerprint of the code that executed the run last; `codeOutdated` says that the project's files differ now.
    """

    id: str
    flow: str
    kind: str
    variant: str | None
    status: str
    source: str
    counts: Counts
    progress: Any = None
    message: str | None = None
    error: dict[str, Any] | None = None
    cancel_requested: bool
    retry_of: str | None
    due_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    updated_at: datetime
    seconds: float | None
    code: str | None = None
    code_outdated: bool = False


class StepInfo(ApiModel):
    """A finished step: its place and name (either can be given to retry), and what it counted."""

    number: int
    name: str
    attempts: int
    counts: dict[str, int]
    started_at: datetime
    ended_at: datetime


class UpdateInfo(ApiModel):
    id: str
    at: datetime
    level: str
    message: str


class RunShown(RunInfo):
    """`updates` are the newest lines of the log, at most 1,000 of `updatesTotal`; the stream has all."""

    ok: bool = True
    body: Any = None
    steps: list[StepInfo]
    updates: list[UpdateInfo]
    updates_total: int
    rejects: int


class RejectInfo(ApiModel):
    """A record that was left out, and why."""

    id: str
    step: str
    reason: str
    record: Any = None


class Trigger(ApiModel):
    variant: str | None = None
    body: Any = None
    dry_run: bool = False


class Triggered(Ok):
    """`worker` says whether a process is there that runs flows; `outdatedWorkers` how many of them run other code than the
    project's files have now."""

    id: str
    flow: str
    variant: str
    worker: bool
    outdated_workers: int


class WorkerInfo(ApiModel):
    """A process that runs flows. `outdated`: the project's files are other code than the `code` that it started with."""

    id: str
    code: str
    started_at: datetime
    outdated: bool


class DryRun(Ok):
    flow: str
    variant: str
    dry_run: bool = True
    counts: dict[str, int]
    requests: dict[str, Any]
    writes: dict[str, Any]
    rejects: list[dict[str, Any]]
    steps: list[str]
    log: list[str]
    message: str | None
    stopped: dict[str, Any] | None
    failure: dict[str, Any] | None


class Retry(ApiModel):
    from_step: str | None = None


class Retried(Ok):
    id: str
    retry_of: str
    worker: bool
    outdated_workers: int


class Cancelled(Ok):
    id: str
    status: str


class Reconciled(Ok):
    reconciled: list[dict[str, str]]


class DueRun(ApiModel):
    id: str
    flow: str
    variant: str
    due_at: datetime


class CronDone(Ok):
    started: list[DueRun]
