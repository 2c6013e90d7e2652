"""Hooks: functions that the application is notified with about runs and events."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from khotan_cli.runtime.runs.user_code import cancelled_from_outside

_RUN_SECONDS = 30.0
_SENDER_SECONDS = 2.0
"""Some services wait only three seconds for a response (docs.slack.dev/apis/events-api)."""

logger = logging.getLogger("khotan.flows")


@dataclass(frozen=True)
class RunInfo:
    """The run that a hook is called for. `counts`: counters by name. `error`: the error document of a failed run."""

    id: str
    flow: str
    variant: str | None
    status: str
    source: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    message: str | None = None
    error: dict[str, Any] | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def seconds(self) -> float | None:
        """Duration in seconds, or None if the run has not ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


Hook = Callable[[RunInfo], Awaitable[None] | None]


@dataclass(frozen=True)
class EventInfo:
    """The webhook event that a hook is called for: stored, not yet processed."""

    id: str
    wire: str
    type: str
    remote_id: str
    handlers: tuple[str, ...] = ()


EventHook = Callable[[EventInfo], Awaitable[None] | None]


@dataclass(frozen=True)
class Hooks:
    """Functions of a RunInfo, sync or async, for a variant, a flow or the whole app.

    on_start: a run begins; not called when it is resumed. on_end: a run has ended with any status, even if it never began.
    on_success: completed. on_failure: failed or partial. on_webhook_received (app only): a new event was stored; not called
    for repeats. The sender waits for on_webhook_received, at most 2 seconds; a run waits for a hook at most 30 seconds. If a
    hook raises or takes longer, a warning is logged and nothing else changes. A hook is called at most once per event. Sync
    hooks run in their own thread.
    """

    on_start: Hook | None = None
    on_end: Hook | None = None
    on_success: Hook | None = None
    on_failure: Hook | None = None
    on_webhook_received: EventHook | None = None

    async def started(self, run: RunInfo) -> None:
        await _call(self.on_start, run)

    async def ended(self, run: RunInfo) -> None:
        if run.status == "completed":
            await _call(self.on_success, run)
        elif run.status in ("failed", "partial"):
            await _call(self.on_failure, run)
        await _call(self.on_end, run)

    async def received(self, event: EventInfo) -> None:
        await _call(self.on_webhook_received, event, _SENDER_SECONDS)


async def _call(hook: Callable[[Any], Any] | None, info: RunInfo | EventInfo, seconds: float = _RUN_SECONDS) -> None:
    if hook is None:
        return
    try:
        async with asyncio.timeout(seconds):
            # A sync hook may block, which would stop the event loop.
            result = hook(info) if inspect.iscoroutinefunction(hook) else await asyncio.to_thread(hook, info)
            if inspect.isawaitable(result):
                await result
    except (Exception, SystemExit, asyncio.CancelledError) as exc:  # the user's code must not affect the run
        if isinstance(exc, asyncio.CancelledError) and cancelled_from_outside():
            raise
        # The message may contain a secret, such as a webhook's URL: log only the type.
        name = getattr(hook, "__name__", type(hook).__name__)
        about = f"flow {info.flow}" if isinstance(info, RunInfo) else f"wire {info.wire}"
        logger.warning("The hook %s of %s raised %s", name, about, type(exc).__name__)
