"""Periodic maintenance in processes that run flows: due schedules, stuck runs, old rows."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from khotan_cli.errors import KhotanError
from khotan_cli.runtime import event_loop
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.worker.dispatch import Dispatcher

TICK_SECONDS = 0.5
_RECONCILE_SECONDS = 30.0
_SWEEP_SECONDS = 600.0

logger = logging.getLogger("khotan.flows")


PeriodicTask = Callable[[], Awaitable[object]]
Retention = Callable[[datetime], Awaitable[object]]


class Maintenance:
    """Dispatches due runs, reconciles runs and deletes old rows.

    retention_days: days for which ended runs are kept; 0: no limit. periodic: further tasks for each tick. retentions:
    functions that delete further rows older than a given time.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        retention_days: float,
        periodic: Sequence[PeriodicTask] = (),
        retentions: Sequence[Retention] = (),
    ) -> None:
        self._dispatcher, self._days = dispatcher, retention_days
        self._periodic, self._retentions = periodic, retentions

    def run(self, stopping: threading.Event) -> None:
        """Run until `stopping` is set. Call it in its own thread."""
        event_loop.run(self._loop(stopping))

    async def _loop(self, stopping: threading.Event) -> None:
        reconciled = swept = time.monotonic() - _SWEEP_SECONDS
        try:
            while not stopping.is_set():
                try:
                    await self._dispatcher.dispatch_due()
                    for task in self._periodic:
                        await task()
                    if time.monotonic() - reconciled >= _RECONCILE_SECONDS:
                        reconciled = time.monotonic()
                        await self._dispatcher.reconcile()
                    if time.monotonic() - swept >= _SWEEP_SECONDS:
                        swept = time.monotonic()
                        await self.sweep()
                except KhotanError as exc:
                    logger.warning("Maintenance: %s", exc.message)
                except Exception as exc:
                    logger.warning("Maintenance raised %s", type(exc).__name__)
                await asyncio.to_thread(stopping.wait, TICK_SECONDS)
        finally:
            await self._dispatcher.env.database.dispose()

    async def sweep(self) -> int:
        """Delete old runs and expired cache entries. Returns the number of deleted runs."""
        env = self._dispatcher.env
        await env.entries.sweep()
        if not self._days:
            return 0
        before = utc_now() - timedelta(days=self._days)
        for delete_before in self._retentions:
            await delete_before(before)
        deleted = await env.runs.sweep(before)
        if deleted:
            await env.run_queue.delete(deleted)
        return len(deleted)
