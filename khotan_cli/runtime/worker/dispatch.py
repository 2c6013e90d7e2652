"""Starts runs manually, by schedule and as retries, and reconciles stuck runs."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import KhotanError, UnknownName, UsageError
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.runs.definition import Flow, Variant
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.errors import failure_of
from khotan_cli.runtime.store.run_queue import queue_of
from khotan_cli.runtime.store.runs import ACTIVE, RunData
from khotan_cli.runtime.worker.execution import notify_hooks
from khotan_cli.runtime.worker.unknown_flow import lacking, overdue, unknown_flow

_DUE_RUNS = uuid.UUID("6b686f74-616e-5365-8000-736368656475")
"""Namespace of the ids of scheduled runs, so that two dispatchers give a due run the same id (RFC 9562 5.5)."""
_SETTLING = timedelta(seconds=15)
"""A run that was updated within this time is not stuck."""
_FINISHED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")

logger = logging.getLogger("khotan.flows")


@dataclass(frozen=True)
class Started:
    """A run that a schedule started."""

    run_id: str
    flow: str
    variant: str
    due_at: datetime


class Dispatcher:
    """Starts runs. Its only state is a cache of dispatch times.

    known: finds the flow or handler of a run by name; default: the environment's flows.
    """

    def __init__(self, env: Environment, known: Callable[[str], Flow | None] | None = None) -> None:
        self.env, self._known = env, known or env.flows.get
        self._dispatched: dict[tuple[str, str], datetime] = {}

    # -- manually ----------------------------------------------------------------------------------------------------

    def flow(self, name: str) -> Flow:
        """Return the flow. Raises UnknownName with the nearest name."""
        if name not in self.env.flows:
            raise UnknownName("flow", name, self.env.flows)
        return self.env.flows[name]

    async def check_enabled(self, flow: Flow) -> None:
        """Raises KhotanError (flow_disabled, plug_disabled) if the flow or one of its plugs is disabled."""
        if flow.name in await self.env.switches.disabled():
            raise KhotanError(
                f"Flow {flow.name!r} is disabled",
                code="flow_disabled",
                hint="Enable it first.",
                next=[f"khotan flows enable {flow.name}"],
            )
        for plug in flow.plugs:
            if not await self.env.vars.enabled(plug.name):
                raise KhotanError(
                    f"Plug {plug.name!r} of flow {flow.name!r} is disabled",
                    code="plug_disabled",
                    hint="Enable it first.",
                    next=[f"khotan plug {plug.name} --enable"],
                )

    async def trigger(self, name: str, variant: str | None = None, *, body: Any = None, source: str = "manual") -> str:
        """Start a run and return its id. Raises UnknownName, KhotanError (flow_disabled, plug_disabled), StoreError."""
        flow = self.flow(name)
        variant_name = flow.variant(variant)
        await self.check_enabled(flow)
        run_id = str(uuid.uuid4())
        async with self.env.database.writing() as session:
            await self._create(session, flow, run_id, {"variant": variant_name, "source": source, "body": body})
        return run_id

    async def _create(self, session: AsyncSession, flow: Flow, run_id: str, values: Mapping[str, Any]) -> bool:
        """Create the run's row and its queue entry in one transaction. Returns False if the run already exists."""
        created = await self.env.runs.create(session, run_id, {"flow": flow.name, "kind": flow.kind, **values})
        if created:
            await self.env.run_queue.enqueue(session, run_id, *queue_of(flow.name, flow.concurrency))
        return created

    async def retry(self, run_id: str, from_step: str | None = None) -> str:
        """Start a new run that repeats an ended one, from the start or from a step (name or number). Returns its id.

        Raises UnknownName for the step, KhotanError (unknown_run, run_not_finished, run_of_event).
        """
        row = await self.run(run_id)
        if row.status in ACTIVE:
            raise KhotanError(
                f"Run {run_id} is {row.status}: only finished runs can be retried",
                code="run_not_finished",
                hint="Wait until it ends, or cancel it first.",
                next=[f"khotan flows cancel {run_id}"],
            )
        if row.event_id is not None:
            raise KhotanError(
                f"Run {run_id} belongs to a handler and cannot be retried",
                code="run_of_event",
                hint="Replay its event, which creates a new run.",
                next=[f"khotan wire replay {row.event_id} --handler {row.flow}"],
            )
        flow = self.flow(row.flow)
        await self.check_enabled(flow)
        below = await self._first_number(run_id, from_step) if from_step else 0
        new_id = str(uuid.uuid4())
        values = {"variant": flow.variant(row.variant), "source": "manual", "body": row.body, "retry_of": run_id}
        async with self.env.database.writing() as session:
            await self._create(session, flow, new_id, values)
            if below:
                counts = await self.env.runs.copy_steps(session, run_id, new_id, below)
                await self.env.runs.start_at(session, new_id, counts)
        return new_id

    async def _first_number(self, run_id: str, step: str) -> int:
        steps = await self.env.runs.steps(run_id)
        for row in steps:
            if step in (row.name, str(row.number)):
                return int(row.number)
        after = max((row.number for row in steps), default=0) + 1
        if step == str(after):
            return after
        raise UnknownName("step", step, [row.name for row in steps], where=f"run {run_id}")

    async def run(self, run_id: str) -> RunData:
        """Return a run's row. Raises KhotanError (unknown_run)."""
        row = await self.env.runs.get(run_id)
        if row is None:
            raise UsageError(
                f"There is no run {run_id!r}",
                code="unknown_run",
                hint="It may have been deleted after its retention period.",
                next=["khotan flows runs"],
            )
        return row

    async def cancel(self, run_id: str) -> str:
        """Cancel a run. Returns "cancelled", or "running" if it stops before its next step.

        Raises KhotanError (unknown_run, run_finished).
        """
        row = await self.run(run_id)
        if row.status not in ACTIVE:
            raise KhotanError(
                f"Run {run_id} has already ended: it is {row.status}",
                code="run_finished",
                hint="Only pending and running runs can be cancelled.",
            )
        status, ended = await self.env.runs.cancel(run_id)
        if status == "cancelled":
            await self.env.run_queue.cancel(run_id)
        if ended is not None:
            await notify_hooks(self.env, self._known(row.flow), ended, started=False)
        return status or "cancelled"

    # -- by schedule -------------------------------------------------------------------------------------------------

    def scheduled(self) -> list[tuple[Flow, str, Variant]]:
        return [
            (flow, name, variant)
            for flow in self.env.flows.values()
            for name, variant in flow.variants.items()
            if variant.schedule is not None
        ]

    async def dispatch_due(self, now: datetime | None = None) -> list[Started]:
        """Start the due runs. Several missed times of a variant start one run. Safe with concurrent dispatchers.

        A new schedule starts counting now. A due run is skipped if the flow is disabled, or if a run of the same variant is
        pending or running and the variant does not allow overlap. Runs of other variants do not matter: the queue runs them
        one after another. Skipped runs are logged with the reason.
        """
        now = now or utc_now()
        started: list[Started] = []
        stored: dict[tuple[str, str], datetime] | None = None
        for flow, name, variant in self.scheduled():
            assert variant.due is not None
            due, key = variant.due.latest(now), (flow.name, name)
            known = self._dispatched.get(key)
            if known is not None and due <= known <= variant.due.after(now):
                continue
            if stored is None:
                stored = await self.env.schedules.last()
            last = stored.get(key)
            if last is not None and last > variant.due.after(now):
                # The last dispatch is in the future: the clock was ahead and was set back.
                await self.env.schedules.reset(flow.name, name, due)
            elif last is None or due > last:
                run = await self._start_due(flow, name, due)
                started += [run] if run else []
            self._dispatched[key] = due
        return started

    async def _start_due(self, flow: Flow, name: str, due: datetime) -> Started | None:
        run_id = str(uuid.uuid5(_DUE_RUNS, f"{flow.name}|{name}|{due.isoformat()}"))
        reason = await self._skip_reason(flow, name)
        async with self.env.database.writing() as session:
            if not await self.env.schedules.claim(session, flow.name, name, due):
                return None
            if reason:
                logger.info("%s (%s) was due at %s and is skipped: %s", flow.name, name, due.isoformat(), reason)
                return None
            values = {"variant": name, "source": "scheduled", "due_at": due}
            created = await self._create(session, flow, run_id, values)
        return Started(run_id, flow.name, name, due) if created else None

    async def _skip_reason(self, flow: Flow, name: str) -> str:
        try:
            await self.check_enabled(flow)
        except KhotanError as exc:
            return exc.message
        if flow.variants[name].overlap:
            return ""
        for row in await self.env.runs.active(flow.name):
            if row.variant == name:
                return f"run {row.id} is {row.status}"
        return ""

    # -- reconciling -------------------------------------------------------------------------------------------------

    async def reconcile(self, flow: str | None = None) -> list[dict[str, str]]:
        """Reconcile runs that the engine has finished, or does not have, but khotan still lists as active.

        Returns id, flow, and the old and new status of each changed run. A run whose flow this process does not have is left
        to another worker, and fails after it has waited for a day.
        """
        before = utc_now() - _SETTLING
        stale = [row for row in await self.env.runs.active(flow) if row.updated_at < before]
        if not stale:
            return []
        async with self.env.database.session() as session:
            states = await self.env.run_queue.states(session, [row.id for row in stale])
        fixed: list[dict[str, str]] = []
        for row in stale:
            state = states.get(row.id)
            if lacking(self.env, row) and state in (None, "ENQUEUED", "DELAYED"):
                new_status = await self._end_overdue(row)
            elif state is None:
                new_status = await self._enqueue_again(row)
            elif state in _FINISHED:
                new_status = await self._end_stuck(row, state)
            else:
                continue
            if new_status:
                fixed.append({"id": row.id, "flow": row.flow, "was": row.status, "now": new_status})
        return fixed

    async def _enqueue_again(self, row: RunData) -> str:
        flow = self.env.flows[row.flow]
        async with self.env.database.writing() as session:
            await self.env.run_queue.enqueue(session, row.id, *queue_of(flow.name, flow.concurrency))
        return "queued"

    async def _end_overdue(self, row: RunData) -> str:
        """Fail a run that has waited for a day for a worker with its flow. Returns "" if it has not."""
        if not overdue(row):
            return ""
        error = await failure_of(unknown_flow(row), self.env, None)
        ended = await self.env.runs.end(row.id, row.updated_at, "failed", error)
        if ended is None:
            return ""
        await self.env.run_queue.cancel(row.id)
        await notify_hooks(self.env, self._known(row.flow), ended, started=False)
        return "failed"

    async def _end_stuck(self, row: RunData, state: str) -> str:
        status, error = "cancelled", None
        if state != "CANCELLED" and not row.cancel_requested:
            status = "failed"
            error = {
                "error": "flow_failed",
                "message": "The run was interrupted repeatedly, or its end could not be stored",
                "hint": "Check the worker's log, then retry the run.",
            }
        ended = await self.env.runs.end(row.id, row.updated_at, status, error)
        if ended is None:
            return ""
        await notify_hooks(self.env, self._known(row.flow), ended, started=False)
        return status
