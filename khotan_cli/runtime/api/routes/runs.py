"""GET /runs · GET /runs/{run} · …/stream · …/rejects · POST …/cancel · …/retry · /runs/reconcile-stuck."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from khotan_cli.errors import UsageError
from khotan_cli.runtime.api.access import CurrentServices
from khotan_cli.runtime.api.calls import EventStream
from khotan_cli.runtime.api.models.common import Listing
from khotan_cli.runtime.api.models.flow_views import reject_info, run_info, run_shown, update_info
from khotan_cli.runtime.api.models.flows import Cancelled, Reconciled, RejectInfo, Retried, Retry, RunInfo, RunShown
from khotan_cli.runtime.api.operations import Depends, Header, Router
from khotan_cli.runtime.api.routes.plugs import Limit, Offset
from khotan_cli.runtime.services import Services
from khotan_cli.runtime.store.runs import ENDED, RunData

router = Router("/runs", tags=["runs"])

Status = Literal["pending", "running", "completed", "partial", "failed", "cancelled"]
_LOOK_SECONDS = 0.3
_ALIVE_SECONDS = 15.0
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{7,34}")


async def named_run(run: str, services: CurrentServices) -> RunData:
    """A run by its id, or by a unique prefix of at least eight characters. Raises UsageError."""
    if _BEGINNING.fullmatch(run):
        ids = await services.host.runs.ids_from(run)
        if len(ids) > 1:
            raise UsageError(
                f"Several runs begin with {run!r}", hint="Use the complete id.", details={"known": sorted(ids)}
            )
        run = ids[0] if ids else run
    return await services.dispatcher.run(run)


CurrentRun = Annotated[RunData, Depends(named_run)]


@router.get("")
async def list_runs(
    services: CurrentServices,
    flow: str | None = None,
    status: list[Status] | None = None,
    limit: Limit = 20,
    offset: Offset = 0,
) -> Listing[RunInfo]:
    """Runs, newest first."""
    if flow is not None:
        services.runnable(flow)
    rows, total = await services.host.runs.newest(flow=flow, status=status or (), limit=limit, offset=offset)
    code = await services.code_now()
    return Listing(items=[run_info(row, code) for row in rows], total=total, limit=limit, offset=offset)


@router.post("/reconcile-stuck")
async def reconcile(services: CurrentServices) -> Reconciled:
    """Reconcile runs that the engine has finished but khotan still lists as active. Returns the changed runs."""
    return Reconciled(reconciled=await services.dispatcher.reconcile())


@router.get("/{run}")
async def show_run(run: CurrentRun, services: CurrentServices) -> RunShown:
    return await run_shown(services, run)


@router.get("/{run}/rejects")
async def list_rejects(
    run: CurrentRun, services: CurrentServices, limit: Limit = 100, offset: Offset = 0
) -> Listing[RejectInfo]:
    """Records that the run rejected, with the reasons."""
    rows, total = await services.host.runs.rejects(run.id, limit, offset)
    return Listing(items=[reject_info(row) for row in rows], total=total, limit=limit, offset=offset)


@router.post("/{run}/cancel")
async def cancel(run: CurrentRun, services: CurrentServices) -> Cancelled:
    """Cancel a pending run immediately, a running one before its next step."""
    return Cancelled(id=run.id, status=await services.dispatcher.cancel(run.id))


@router.post("/{run}/retry")
async def retry(run: CurrentRun, services: CurrentServices, asked: Retry | None = None) -> Retried:
    """Run an ended run again. With `fromStep` (number or name), keep the results of earlier steps."""
    new_run = await services.dispatcher.retry(run.id, asked.from_step if asked else None)
    return Retried(
        id=new_run,
        retry_of=run.id,
        worker=await services.has_worker(),
        outdated_workers=await services.outdated_workers(),
    )


@router.get("/{run}/stream")
async def stream(
    run: CurrentRun, services: CurrentServices, last_event_id: Annotated[str | None, Header] = None
) -> EventStream:
    """Server-sent events: `run` for each change, `log` for each log line, `end` when the run has ended."""
    after = int(last_event_id) if last_event_id and last_event_id.isdigit() else 0
    return EventStream(_events(services, run.id, after))


async def _events(services: Services, run: str, after: int) -> AsyncIterator[str]:
    seen, silent = None, 0.0
    while True:
        row = await services.host.runs.get(run)
        while updates := await services.host.runs.updates(run, after):
            for update in updates:
                after = update.id
                yield f"event: log\nid: {update.id}\ndata: {update_info(update).model_dump_json(by_alias=True)}\n\n"
        if row is None:
            yield "event: end\ndata: {}\n\n"
            return
        if row.updated_at != seen:
            seen, silent = row.updated_at, 0.0
            yield f"event: run\ndata: {run_info(row, await services.code_now()).model_dump_json(by_alias=True)}\n\n"
        if row.status in ENDED:
            yield f"event: end\ndata: {run_info(row, await services.code_now()).model_dump_json(by_alias=True)}\n\n"
            return
        silent += _LOOK_SECONDS
        if silent >= _ALIVE_SECONDS:
            silent = 0.0
            yield ": still there\n\n"  # keeps proxies from closing a quiet connection
        await asyncio.sleep(_LOOK_SECONDS)
