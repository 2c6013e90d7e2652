"""Starting runs: by hand, by schedule, again; and putting right what hangs."""

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
"""Namespace of the ids of scheduled runs: two dispatchers give a due run the same one (RFC 9562 5.5)."""
_SETTLING = timedelta(seconds=15)
"""A run that has moved since is not stuck."""
_OVER = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")

logger = logging.getLogger("khotan.flows")


@dataclass(frozen=True)
class Started:
    """A run that a schedule started."""

    run_id: str
    flow: str
    variant: str
    due_at: datetime


class Dispatcher:
    """Starts runs. Holds no state but what spares it to ask the database each time.

    known: what a run's row is a run of, handlers included; default: the env's flows.
    """

    def __init__(self, env: Environment, known: Callable[[str], Flow | None] | None = None) -> None:
        self.env, self._known = env, known or env.flows.get
        self._dispatched: dict[tuple[str, str], datetime] = {}

    # -- by hand -----------------------------------------------------------------------------------------------------

    def flow(self, name: str) -> Flow:
        """Raises UnknownName with the nearest."""
        if name not in self.env.flows:
            raise UnknownName("flow", name, self.env.flows)
        return self.env.flows[name]

    async def check_enabled(self, flow: Flow) -> None:
        """Raises KhotanError where the flow, or a plug of it, is disabled."""
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
        """Start a run; its id. Raises UnknownName, KhotanError (flow_disabled, plug_disabled), StoreError."""
        flow = self.flow(name)
        chosen = flow.variant(variant)
        await self.check_enabled(flow)
        run_id = str(uuid.uuid4())
        async with self.env.database.writing() as session:
            await self._create(session, flow, run_id, {"variant": chosen, "source": source, "body": body})
        return run_id

    async def _create(self, session: AsyncSession, flow: Flow, run_id: str, values: Mapping[str, Any]) -> bool:
        """The run's row and its place in the queue, in one transaction; False where it is there already."""
        made = await self.env.runs.create(session, run_id, {"flow": flow.name, "kind": flow.kind, **values})
        if made:
            await self.env.run_queue.enqueue(session, run_id, *queue_of(flow.name, flow.concurrency))
        return made

    async def retry(self, run_id: str, from_step: str | None = None) -> str:
        """Start an ended run anew, from its start or from a step (its name or number); the new run's id.

        Raises UnknownName for run or step, KhotanError (run_not_finished).
        """
        row = await self.run(run_id)
        if row.status in ACTIVE:
            raise KhotanError(
                f"Run {run_id} is {row.status}: only an ended run can be retried",
                code="run_not_finished",
                hint="Wait for it, or cancel it first.",
                next=[f"khotan flows cancel {run_id}"],
            )
        if row.event_id is not None:
            raise KhotanError(
                f"Run {run_id} is a handler's: it is not retried, its event is replayed",
                code="run_of_event",
                hint="That makes a new run of it.",
                next=[f"khotan wire replay {row.event_id} --handler {row.flow}"],
            )
        flow = self.flow(row.flow)
        await self.check_enabled(flow)
        below = await self._first_number(run_id, from_step) if from_step else 0
        again = str(uuid.uuid4())
        values = {"variant": flow.variant(row.variant), "source": "manual", "body": row.body, "retry_of": run_id}
        async with self.env.database.writing() as session:
            await self._create(session, flow, again, values)
            if below:
                counts = await self.env.runs.copy_steps(session, run_id, again, below)
                await self.env.runs.start_at(session, again, counts)
        return again

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
        """Raises KhotanError (unknown_run)."""
        row = await self.env.runs.get(run_id)
        if row is None:
            raise UsageError(
                f"There is no run {run_id!r}",
                code="unknown_run",
                hint="It may be past its retention.",
                next=["khotan flows runs"],
            )
        return row

    async def cancel(self, run_id: str) -> str:
        """Cancel a run; "cancelled", or "running" where it stops before its next step.

        Raises KhotanError (unknown_run, run_finished).
        """
        row = await self.run(run_id)
        if row.status not in ACTIVE:
            raise KhotanError(
                f"Run {run_id} has ended: it is {row.status}", code="run_finished", hint="Nothing to cancel."
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
        """Start what is due: of several missed times of a variant the last one, once, whoever else does the same.

        A schedule that is met for the first time starts to count now. A variant that still waits or runs is skipped, unless
        it allows overlap; so is a disabled flow's. Runs of a flow's other variants are no reason: the queue puts one behind
        the other. What is skipped is said in the log, with the reason.
        """
        now = now or utc_now()
        started: list[Started] = []
        stored: dict[tuple[str, str], datetime] | None = None
        for flow, name, variant in self.scheduled():
            assert variant.due is not None
            due, place = variant.due.latest(now), (flow.name, name)
            known = self._dispatched.get(place)
            if known is not None and due <= known <= variant.due.after(now):
                continue
            if stored is None:
                stored = await self.env.schedules.last()
            last = stored.get(place)
            if last is not None and last > variant.due.after(now):
                # Dispatched in a future that the clock has left: it was ahead.
                await self.env.schedules.reset(flow.name, name, due)
            elif last is None or due > last:
                run = await self._start_due(flow, name, due)
                started += [run] if run else []
            self._dispatched[place] = due
        return started

    async def _start_due(self, flow: Flow, name: str, due: datetime) -> Started | None:
        run_id = str(uuid.uuid5(_DUE_RUNS, f"{flow.name}|{name}|{due.isoformat()}"))
        why = await self._why_skipped(flow, name)
        async with self.env.database.writing() as session:
            if not await self.env.schedules.claim(session, flow.name, name, due):
                return None
            if why:
                logger.info("%s (%s) was due at %s and is skipped: %s", flow.name, name, due.isoformat(), why)
                return None
            values = {"variant": name, "source": "scheduled", "due_at": due}
            made = await self._create(session, flow, run_id, values)
        return Started(run_id, flow.name, name, due) if made else None

    async def _why_skipped(self, flow: Flow, name: str) -> str:
        try:
            await self.check_enabled(flow)
        except KhotanError as exc:
            return exc.message
        if flow.variants[name].overlap:
            return ""
        for row in await self.env.runs.active(flow.name):
            if row.variant == name:
                return f"run {row.id} of it is {row.status}"
        return ""

    # -- putting right -----------------------------------------------------------------------------------------------

    async def reconcile(self, flow: str | None = None) -> list[dict[str, str]]:
        """Reconcile runs that the engine has finished, or does not have, but khotan still lists as active.

        Returns the id, flow, and the status before and after of each run that was changed. A run whose flow this process
        lacks is left to a worker that has the flow, and fails when it has waited for a day.
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
                done = await self._end_overdue(row)
            elif state is None:
                done = await self._enqueue_again(row)
            elif state in _OVER:
                done = await self._end_stuck(row, state)
            else:
                continue
            if done:
                fixed.append({"id": row.id, "flow": row.flow, "was": row.status, "now": done})
        return fixed

    async def _enqueue_again(self, row: RunData) -> str:
        flow = self.env.flows[row.flow]
        async with self.env.database.writing() as session:
            await self.env.run_queue.enqueue(session, row.id, *queue_of(flow.name, flow.concurrency))
        return "queued"

    async def _end_overdue(self, row: RunData) -> str:
        """Fail a run that has waited for a day for a worker with its flow. Until then it stays as it is."""
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
                "message": "The run was interrupted again and again, or its end could not be stored",
                "hint": "Look at the worker's log, then retry the run.",
            }
        ended = await self.env.runs.end(row.id, row.updated_at, status, error)
        if ended is None:
            return ""
        await notify_hooks(self.env, self._known(row.flow), ended, started=False)
        return status
