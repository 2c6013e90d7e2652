"""What an application wants to be told of its runs."""

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
"""Some services wait for an answer for three seconds (docs.slack.dev/apis/events-api)."""

logger = logging.getLogger("khotan.flows")


@dataclass(frozen=True)
class RunInfo:
    """A run as hooks see it. `counts` are the counters by name; `error` is the error document of a failed run."""

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
        """How long it took; None while it has not ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


Hook = Callable[[RunInfo], Awaitable[None] | None]


@dataclass(frozen=True)
class EventInfo:
    """A webhook event as hooks see it: stored, and not yet processed."""

    id: str
    wire: str
    type: str
    remote_id: str
    handlers: tuple[str, ...] = ()


EventHook = Callable[[EventInfo], Awaitable[None] | None]


@dataclass(frozen=True)
class Hooks:
    """Functions of a RunInfo, sync or async: for a variant, a flow, or the whole app.

    on_start: a run begins; not told again where it is resumed. on_end: it has ended, however; one that never began, too.
    on_success: completed. on_failure: failed or partial. on_webhook_received, for the whole app only: an event was stored;
    not told of repeats. The sender waits for it, two seconds at most; a run waits for a hook half a minute. A hook that
    raises, or takes longer, changes nothing but a line in the log; one is called at most once per event.
    A sync one is called in a thread of its own.
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


async def _call(hook: Callable[[Any], Any] | None, told: RunInfo | EventInfo, seconds: float = _RUN_SECONDS) -> None:
    if hook is None:
        return
    try:
        async with asyncio.timeout(seconds):
            # One that is not async may block: in the event loop it would hold up everybody.
            done = hook(told) if inspect.iscoroutinefunction(hook) else await asyncio.to_thread(hook, told)
            if inspect.isawaitable(done):
                await done
    except (Exception, SystemExit, asyncio.CancelledError) as exc:  # the user's code, and none of the run's business
        if isinstance(exc, asyncio.CancelledError) and cancelled_from_outside():
            raise
        # The message may hold a secret, a webhook's URL say: only the kind of error is named.
        name = getattr(hook, "__name__", type(hook).__name__)
        about = f"flow {told.flow}" if isinstance(told, RunInfo) else f"wire {told.wire}"
        logger.warning("The hook %s of %s raised %s", name, about, type(exc).__name__)
