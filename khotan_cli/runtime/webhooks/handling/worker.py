"""Runs handlers: claims waiting runs, executes each in its own thread, and retries failed runs."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from khotan_cli.errors import DatabaseBusy, DatabaseUnreachable, KhotanError
from khotan_cli.runtime import event_loop
from khotan_cli.runtime.database.database import patience
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.flows.context import FlowContext
from khotan_cli.runtime.runs.errors import failure_of
from khotan_cli.runtime.runs.steps import OUTAGE_SECONDS, Outcome, StepRecorder, retry_while_database_down
from khotan_cli.runtime.runs.user_code import user_code_guard
from khotan_cli.runtime.store.events import EventData
from khotan_cli.runtime.store.runs import Reject, RunCancelled, RunData, RunLost, StepsLost
from khotan_cli.runtime.transfer.records import reason_of
from khotan_cli.runtime.webhooks.decoding import Undecodable
from khotan_cli.runtime.webhooks.endpoint import KeyReused
from khotan_cli.runtime.webhooks.environment import WebhookEnvironment
from khotan_cli.runtime.webhooks.event import StoredEvent
from khotan_cli.runtime.webhooks.handler import SHORTEST_PAUSE, Handler, pause_of
from khotan_cli.runtime.webhooks.handling.fair_share import crashes, select_runs
from khotan_cli.runtime.worker.execution import notify_hooks, run_function
from khotan_cli.runtime.worker.threads import RunThreadPool

POLL_SECONDS = 0.2
"""Interval at which the queue is polled for runs that other processes created."""
_GRACE_SECONDS = 5.0
_MAX_CRASHES = 20
"""Number of starts without an end after which a run fails: its handler crashes the process."""
_ORPHAN_DAYS = 1.0
"""Days for which runs wait for a handler that this app does not have: a deploy may add it."""
_ORPHAN_CHECK_SECONDS = 600.0

_HINTS = {
    "flow_failed": "Correct the handler's code, then replay the event.",
    "flow_timeout": "Raise timeout=…, or do less in one attempt; then replay the event.",
}

logger = logging.getLogger("khotan.webhooks")


class HandlerWorker:
    """Background task of the engine. Runs handlers until it is stopped, at most `concurrency` at a time."""

    def __init__(self, env: WebhookEnvironment, *, concurrency: int) -> None:
        self._env, self._concurrency = env, concurrency
        self._running: dict[asyncio.Task[None], RunData] = {}
        self._claims_unknown = False
        self._next_orphan_check = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None

    def wake(self) -> None:
        """Poll the queue now. May be called from any thread."""
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None and not loop.is_closed():
            loop.call_soon_threadsafe(wake.set)

    def run(self, worker: str, pool: RunThreadPool, stopping: threading.Event) -> None:
        """Run until `stopping` is set. Call it in its own thread."""
        event_loop.run(self._run(worker, pool, stopping))

    async def _run(self, worker: str, pool: RunThreadPool, stopping: threading.Event) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        try:
            while not stopping.is_set():
                more = False
                try:
                    await self._release_unknown_claims(worker)
                    await self._fail_orphans()
                    more = await self._start_runs(worker, pool)
                except (DatabaseUnreachable, DatabaseBusy) as exc:
                    self._claims_unknown = True  # runs may have been claimed although the response was lost
                    logger.warning("Webhook handlers are waiting: %s", exc.message)
                    await asyncio.to_thread(stopping.wait, 1.0)
                except KhotanError as exc:
                    self._claims_unknown = True
                    logger.warning("Webhook handlers are waiting: %s", exc.message)
                    await asyncio.to_thread(stopping.wait, 5.0)
                await self._pause(more)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await self._env.base.database.dispose()

    async def _release_unknown_claims(self, worker: str) -> None:
        """After a database outage: put runs that are claimed by this worker but not running here back into the queue."""
        if self._claims_unknown:
            self._claims_unknown = False
            await self._env.handler_queue.release(worker, but=[row.id for row in self._running.values()])

    async def _start_runs(self, worker: str, pool: RunThreadPool) -> bool:
        """Start as many runs as possible. Returns whether more runs may be waiting."""
        free = self._concurrency - len(self._running)
        if free <= 0:
            return False
        enabled = await self._enabled_handlers()
        rows = await self._env.handler_queue.claim(
            worker,
            enabled,
            free,
            lambda waiting: select_runs(waiting, self._running.values(), enabled, self._concurrency),
        )
        events = await self._env.events.many([row.event_id for row in rows]) if rows else {}
        for row in rows:
            task = asyncio.create_task(self._run_in_thread(pool, row, events.get(row.event_id)))
            self._running[task] = row
            task.add_done_callback(self._on_done)
        return len(rows) == free

    async def _enabled_handlers(self) -> list[str]:
        """Return the names of the enabled handlers whose wire and plugs are enabled."""
        wires, handlers, plugs = await self._env.handler_queue.all_off()
        return [
            name
            for name, handler in self._env.handlers.items()
            if name not in handlers
            and handler.wire.id not in wires
            and not any(plug.name in plugs for plug in handler.plugs)
        ]

    async def _fail_orphans(self) -> None:
        """Fail the runs of handlers that no longer exist, every _ORPHAN_CHECK_SECONDS."""
        if time.monotonic() < self._next_orphan_check:
            return
        before = utc_now() - timedelta(days=_ORPHAN_DAYS)
        for name in await self._env.handler_queue.end_unknown(list(self._env.handlers), before):
            logger.warning("Runs of handler %s have failed: the handler is no longer in this app", name)
        self._next_orphan_check = time.monotonic() + _ORPHAN_CHECK_SECONDS

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if self._wake is not None:
            self._wake.set()

    async def _pause(self, more: bool) -> None:
        assert self._wake is not None
        if more and len(self._running) < self._concurrency:
            return
        try:
            await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)
        except TimeoutError:
            return
        self._wake.clear()

    async def _run_in_thread(self, pool: RunThreadPool, row: RunData, event: EventData | None) -> None:
        handler = self._env.handlers[row.flow]
        work = asyncio.ensure_future(pool.run(lambda: run_handler(self._env, handler, row, event)))
        try:
            if handler.timeout is None:
                await work
                return
            done, _ = await asyncio.wait({work}, timeout=handler.timeout + _GRACE_SECONDS)
            if done:
                work.result()
                return
            error = {
                "error": "flow_timeout",
                "message": f"Handler {handler.name!r} took longer than {handler.timeout:g} s and blocked its thread",
                "hint": "Replace the blocking call with await, or wrap it in asyncio.to_thread(…).",
            }
            work.cancel()
            # In another thread: a hook that blocks must not stop the queue.
            await pool.run(lambda: _retry_or_fail(self._env, handler, row, error))
        except KhotanError as exc:
            # The database was down for longer than a run waits for it. The run starts again when the database is back.
            logger.error("The end of run %s could not be stored: %s", row.id, exc.message)
            task = asyncio.current_task()
            assert task is not None
            self._running.pop(task, None)
            self._claims_unknown = True
        except asyncio.CancelledError:
            work.cancel()
            raise


async def run_handler(env: WebhookEnvironment, handler: Handler, row: RunData, stored: EventData | None) -> None:
    """Run one attempt. Returns when the end of the run, or its next attempt, is stored."""
    with patience(OUTAGE_SECONDS):
        await _try_once(env, handler, row, stored)


async def _try_once(env: WebhookEnvironment, handler: Handler, row: RunData, stored: EventData | None) -> None:
    base = env.base
    if stored is None:
        error = {
            "error": "unknown_event",
            "message": "The event no longer exists",
            "hint": "It was deleted after its retention period.",
        }
        await _fail(env, handler, row, error)
        return
    if crashes(row) >= _MAX_CRASHES:
        await _fail(env, handler, row, _with_replay(_crash_error(handler), row))
        return
    recorder = StepRecorder(base, handler, row.id, row.epoch)
    try:
        if row.cancel_requested:
            raise RunCancelled
        if row.epoch == 1:
            await notify_hooks(base, handler, row, started=True)
        else:
            await recorder.load()
        ctx = FlowContext(base, handler, recorder, variant="", source=row.source)
        try:
            with user_code_guard(f"The model of handler {handler.name!r}"):
                ctx.event = StoredEvent(stored, handler.wire.envelope).event(handler.adapter, ctx, row.failures + 1)
        except ValidationError as exc:
            await _fail_invalid(
                env, handler, recorder, row, reason_of(exc), "Correct the model, then replay the event."
            )
            return
        except Undecodable as exc:
            hint = "Ask the sender to correct it, or remove the handler's model and read event.body."
            await _fail_invalid(env, handler, recorder, row, str(exc), hint)
            return
        message = await run_function(handler, ctx)
        ended = await retry_while_database_down(
            lambda: base.runs.finish(row.id, row.epoch, "completed", message=message)
        )
    except StepsLost as exc:
        logger.warning("Run %s resumes from the stored steps: the database server crashed", row.id)
        await _retry_or_fail(env, handler, row, await failure_of(exc, base, handler))
        return
    except RunLost:
        logger.info("Run %s now belongs to another process", row.id)
        return
    except RunCancelled:
        ended = await retry_while_database_down(lambda: base.runs.finish(row.id, row.epoch, "cancelled"))
    except Exception as exc:
        error = await failure_of(exc, base, handler)
        logger.warning("Handler %s failed: %s", handler.name, error["message"])
        await _retry_or_fail(env, handler, row, error, final=isinstance(exc, KeyReused))
        return
    if ended is not None:
        await notify_hooks(base, handler, ended, started=False)


async def _retry_or_fail(
    env: WebhookEnvironment, handler: Handler, row: RunData, error: dict[str, Any], *, final: bool = False
) -> None:
    """Schedule the next attempt, or fail the run after the last one. final: do not retry."""
    failures, retry, error = row.failures + 1, handler.retry, _with_replay(error, row)
    if failures < retry.attempts and not final:
        pause = pause_of(retry, failures)
        until = utc_now() + timedelta(seconds=random.uniform(SHORTEST_PAUSE * pause, pause))
        await retry_while_database_down(lambda: env.handler_queue.postpone(row.id, row.epoch, failures, error, until))
        return
    await _fail(env, handler, row, error)


async def _fail(env: WebhookEnvironment, handler: Handler, row: RunData, error: dict[str, Any]) -> None:
    ended = await retry_while_database_down(lambda: env.base.runs.finish(row.id, row.epoch, "failed", error=error))
    if ended is not None:
        await notify_hooks(env.base, handler, ended, started=False)


def _with_replay(error: dict[str, Any], row: RunData) -> dict[str, Any]:
    """Adapt the error of a flow to a handler: its event is replayed, its run is not retried."""
    hint = error.get("hint", "")
    if "retry" in hint:
        hint = _HINTS.get(error["error"], hint)
    replay = f"khotan wire replay {row.event_id} --handler {row.flow}"
    return {**error, "hint": hint, "next": [*error.get("next", []), replay]}


def _crash_error(handler: Handler) -> dict[str, Any]:
    return {
        "error": "handler_deadly",
        "message": f"Handler {handler.name!r} was started {_MAX_CRASHES} times and crashed the process each time",
        "hint": "Find the cause (out of memory, os._exit, a crash in native code), then replay the event.",
    }


async def _fail_invalid(
    env: WebhookEnvironment, handler: Handler, recorder: StepRecorder, row: RunData, why: str, hint: str
) -> None:
    """Fail the run of an event that does not match the handler's model. The event stays stored and can be replayed."""
    reason = (await recorder.secrets.masker()).text(why)
    rejects = [Reject("validate", reason, {"event": str(row.event_id)})]

    async def count(_: Any) -> Outcome:
        return Outcome(None, {"failed": 1}, rejects)

    if recorder.finished("validate") is None:
        await recorder.commit("validate", count)
    error = {
        "error": "event_invalid",
        "message": f"The event does not match the model of {handler.function_name}: {reason}",
        "hint": hint,
        "next": [f"khotan wire replay {row.event_id}"],
    }
    await _fail(env, handler, row, error)
