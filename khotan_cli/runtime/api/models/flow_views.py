"""Flows and runs as they are shown."""

from __future__ import annotations

from typing import Any

from khotan_cli.runtime.api.models.flows import (
    Counts,
    FlowInfo,
    RejectInfo,
    RunInfo,
    RunShown,
    StepInfo,
    UpdateInfo,
    VariantInfo,
)
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.runs.definition import COUNTERS, Flow
from khotan_cli.runtime.services import Services
from khotan_cli.runtime.store.runs import RunData


def flow_facts(flow: Flow, enabled: bool) -> dict[str, Any]:
    now = utc_now()
    variants = [
        VariantInfo(
            name=name,
            schedule=variant.schedule,
            timezone=variant.timezone,
            overlap=variant.overlap,
            next_due_at=variant.due.after(now) if variant.due and enabled else None,
        )
        for name, variant in flow.variants.items()
    ]
    return {
        "name": flow.name,
        "kind": flow.kind,
        "doc": flow.doc,
        "module": flow.module,
        "plug": flow.plug.name,
        "to": None if flow.to is None else flow.to.name,
        "resource": flow.resource,
        "enabled": enabled,
        "concurrency": flow.concurrency,
        "timeout": flow.timeout,
        "variants": variants,
    }


def flow_info(flow: Flow, enabled: bool) -> FlowInfo:
    return FlowInfo(**flow_facts(flow, enabled))


def run_facts(row: RunData, code: str) -> dict[str, Any]:
    """code: fingerprint of the project's files now."""
    seconds = None
    if row.started_at is not None:
        seconds = round(max(0.0, ((row.ended_at or utc_now()) - row.started_at).total_seconds()), 3)
    names = (
        "id flow kind variant status source progress message error cancel_requested retry_of due_at "
        "created_at started_at ended_at updated_at code"
    )
    return {
        **{name: getattr(row, name) for name in names.split()},
        "counts": Counts(**{name: getattr(row, name) for name in COUNTERS}),
        "seconds": seconds,
        "code_outdated": bool(code and row.code and row.code != code),
    }


def run_info(row: RunData, code: str) -> RunInfo:
    """code: fingerprint of the project's files now."""
    return RunInfo(**run_facts(row, code))


async def run_shown(services: Services, row: RunData) -> RunShown:
    runs = services.host.runs
    _, rejects = await runs.rejects(row.id, limit=1)
    updates, updates_total = await runs.newest_updates(row.id)
    return RunShown(
        **run_facts(row, await services.code_now()),
        body=row.body,
        steps=[step_info(step) for step in await runs.steps(row.id)],
        updates=[update_info(update) for update in updates],
        updates_total=updates_total,
        rejects=rejects,
    )


async def worker_facts(services: Services) -> dict[str, Any]:
    """Whether a process runs flows, and how many run other code than the project's files have now."""
    return {"worker": await services.has_worker(), "outdated_workers": await services.outdated_workers()}


def step_info(row: Any) -> StepInfo:
    return StepInfo(
        number=row.number,
        name=row.name,
        attempts=row.attempts,
        counts={name: count for name, count in (row.counts or {}).items() if count},
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def update_info(row: Any) -> UpdateInfo:
    return UpdateInfo(id=str(row.id), at=row.at, level=row.level, message=row.message)


def reject_info(row: Any) -> RejectInfo:
    return RejectInfo(id=str(row.id), step=row.step, reason=row.reason, record=row.record)
