"""The durable engine of this process: takes runs from the queue and executes them. The only module that runs DBOS.

DBOS manages the queue, assigns each run to one worker, and reassigns the runs of dead workers. Finished steps are stored by
runs/steps.py, in the transaction of the data they wrote. Workflows never raise to DBOS, which would store the exception and
log its values.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from sqlalchemy import Engine as SyncEngine

from khotan_cli.errors import ConfigError, KhotanError
from khotan_cli.runtime import event_loop
from khotan_cli.runtime.database.errors import translated_errors
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.steps import retry_while_database_down
from khotan_cli.runtime.store.handler_queue import HandlerQueue
from khotan_cli.runtime.store.run_queue import (
    APPLICATION,
    QUEUE,
    SCHEMA,
    VERSION,
    WORKFLOW,
    engine_of,
    queue_of,
    quiet_engine,
    refuse_pickles,
    run_of,
)
from khotan_cli.runtime.worker.execution import execute, notify_hooks
from khotan_cli.runtime.worker.maintenance import Maintenance
from khotan_cli.runtime.worker.threads import RunThreadPool
from khotan_cli.runtime.worker.unknown_flow import handed_back
from khotan_cli.runtime.worker.worker_lock import WorkerLock, worker_lock_for

POLL_SECONDS = {True: 0.04, False: 0.1}
"""Polling interval of the queue. SQLite (True): polling is cheap. PostgreSQL (False): many workers may poll."""
RECOVER_SECONDS = 1.0
_GRACE_SECONDS = 5.0
_BACKGROUND_THREADS = 16

logger = logging.getLogger("khotan.flows")

_only = threading.Lock()
"""One engine per process: DBOS is a singleton."""


class BackgroundTask(Protocol):
    """Further work of the engine, with its own queue."""

    def run(self, worker: str, pool: RunThreadPool, stopping: threading.Event) -> None:
        """Run until `stopping` is set. Called in its own thread."""
        ...


class Engine:
    """Runs flows, maintenance and a background task until it is stopped."""

    def __init__(
        self,
        env: Environment,
        *,
        concurrency: int,
        maintenance: Maintenance | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        self._env, self._concurrency, self._maintenance, self._background = env, concurrency, maintenance, background
        self._pool = RunThreadPool(self._close_loop)
        self._worker_lock: WorkerLock = worker_lock_for(env.database)
        self._sync: SyncEngine | None = None
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.running = False

    async def start(self) -> bool:
        """Start taking runs. Returns False if another process already runs flows on the SQLite database.

        Raises StoreError, DatabaseNotMigrated; ConfigError if this process already runs an engine, and (pooled_database)
        behind a pooler in transaction mode.
        """
        if await self._env.database.detect_pooler():
            raise ConfigError(
                f"{self._env.database.name} is behind a connection pooler in transaction mode (PgBouncer). Flows and handlers "
                "cannot run there, because a worker needs a permanent advisory lock",
                code="pooled_database",
                hint="Set KHOTAN_WORKER_DATABASE_URL to the server, or to a pool in session mode, and run "
                "`khotan worker`. The API, webhooks and other commands work here.",
            )
        return await asyncio.to_thread(self._start)

    def _start(self) -> bool:
        if not _only.acquire(blocking=False):
            raise ConfigError("This process already runs an engine", hint="Run flows for only one app in each process.")
        try:
            with translated_errors(self._env.database.url):
                if not self._worker_lock.acquire():
                    _only.release()
                    return False
                self._launch()
        except BaseException:
            self._worker_lock.release()
            if _only.locked():
                _only.release()
            raise
        self.running = True
        if self._env.database.sqlite:
            self._release(None)  # their worker has ended: the lock was free
        for work in (
            self._recover_dead_workers,
            *([self._maintenance.run] if self._maintenance else []),
            self._run_background,
        ):
            thread = threading.Thread(target=work, args=(self._stopping,), name=f"khotan-{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return True

    def _launch(self) -> None:
        quiet_engine()
        from dbos import DBOS, DBOSPortableJSONSerializer

        refuse_pickles()
        self._env.run_queue.check_migrated()
        self._in_own_loop(self._sign_in)
        self._sync = engine_of(self._env.database)
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_engine": self._sync,
                "dbos_system_schema": SCHEMA,
                "serializer": DBOSPortableJSONSerializer(),
                "application_version": VERSION,
                "executor_id": self._worker_lock.executor,
                "use_listen_notify": False,
                "run_migrations": False,
                "max_executor_threads": self._concurrency + _BACKGROUND_THREADS,
                "log_level": "CRITICAL",
            }
        )
        DBOS.workflow(name=WORKFLOW)(self._workflow())
        # Launched outside any event loop, so that runs are dispatched on the engine's loop, not on the web server's.
        DBOS.launch()
        own_queues = {
            queue_of(flow.name, flow.concurrency)[0]: flow for flow in self._env.flows.values() if flow.concurrency > 1
        }
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=self._concurrency,
            partition_concurrency=1,
            polling_interval_sec=POLL_SECONDS[self._env.database.sqlite],
            on_conflict="always_update",
        )
        for name, flow in own_queues.items():
            DBOS.register_queue(
                name,
                worker_concurrency=max(1, min(self._concurrency, flow.concurrency)),
                global_concurrency=flow.concurrency,
                polling_interval_sec=POLL_SECONDS[self._env.database.sqlite],
                on_conflict="always_update",
            )

    def _workflow(self) -> Callable[[], Any]:
        env, pool = self._env, self._pool

        async def khotan_run() -> str:
            from dbos import DBOS

            workflow_id = DBOS.workflow_id
            assert workflow_id is not None
            run_id = run_of(workflow_id)
            try:
                if await handed_back(env, workflow_id, run_id):
                    return "handed back"
                return await self._bounded(run_id, lambda: pool.run(lambda: execute(env, run_id)))
            except KhotanError as exc:
                # The failure could not be stored. Maintenance ends the run when the database is back.
                logger.error("The end of run %s could not be stored: %s", run_id, exc.message)
                return "unknown"

        return khotan_run

    async def _bounded(self, run_id: str, work: Callable[[], Coroutine[Any, Any, str]]) -> str:
        """Run the work. If the flow blocks its thread beyond its timeout, the run is ended from here."""
        row = await retry_while_database_down(lambda: self._env.runs.get(run_id))
        flow = None if row is None else self._env.flows.get(row.flow)
        task = asyncio.ensure_future(work())
        if flow is None or flow.timeout is None:
            return await task
        ended, _ = await asyncio.wait({task}, timeout=flow.timeout + _GRACE_SECONDS)
        if ended:
            return task.result()
        task.cancel()
        error = {
            "error": "flow_timeout",
            "message": f"Flow {flow.name!r} took longer than {flow.timeout:g} s and blocked its thread",
            "hint": "Replace the blocking call with await, or wrap it in asyncio.to_thread(…).",
        }
        current = await self._env.runs.get(run_id)
        if current is not None:
            failed = await self._env.runs.end(run_id, current.updated_at, "failed", error)
            if failed is not None:  # in a pool thread: a hook that blocks must not stop the queue
                await self._pool.run(lambda: notify_hooks(self._env, flow, failed, started=False))
        return "failed"

    async def _close_loop(self) -> None:
        """Close the connections of a pool thread's event loop before the thread ends."""
        for plug in self._env.plugs.values():
            await plug.aclose()
        await self._env.database.dispose()

    # -- background work -------------------------------------------------------------------------------------------------

    def _recover_dead_workers(self, stopping: threading.Event) -> None:
        """Look for dead workers and recover their runs."""
        from dbos import DBOS

        def recover(executor: str) -> None:
            DBOS._recover_pending_workflows([executor])
            self._release(executor)

        while not stopping.wait(RECOVER_SECONDS):
            try:
                self._worker_lock.recover(recover)
            except Exception as exc:
                logger.warning("Recovery of dead workers raised %s", type(exc).__name__)

    def _run_background(self, stopping: threading.Event) -> None:
        if self._background is not None:
            self._background.run(self._worker_lock.executor, self._pool, stopping)

    def _release(self, executor: str | None) -> None:
        """Put a dead worker's handler runs back into the queue; None: those of all workers."""

        async def release() -> None:
            await HandlerQueue(self._env.database).release(executor)

        self._in_own_loop(release)

    def _in_own_loop(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run database work in a thread without an event loop."""

        async def done() -> None:
            try:
                await work()
            finally:
                await self._env.database.dispose()

        event_loop.run(done())

    async def _sign_in(self) -> None:
        """Register this worker with its code fingerprint, and remove dead workers."""
        workers = self._env.workers
        known = [row.id for row in await workers.all()]
        living = await asyncio.to_thread(self._worker_lock.living, known)
        await workers.remove([worker for worker in known if worker not in living])
        await workers.add(self._worker_lock.executor, self._env.code)

    async def _sign_out(self) -> None:
        await self._env.workers.remove([self._worker_lock.executor])

    async def living(self) -> list[Any]:
        """Return the rows of the live workers, oldest first. Raises StoreError."""
        rows = await self._env.workers.all()
        with translated_errors(self._env.database.url):
            living = await asyncio.to_thread(self._worker_lock.living, [row.id for row in rows])
        return [row for row in rows if row.id in living]

    async def stop(self, *, grace: float = 0.0) -> None:
        """Stop taking runs. Wait `grace` seconds for running ones; the rest are resumed later."""
        if self.running:
            await asyncio.to_thread(self._stop, grace)

    def _stop(self, grace: float) -> None:
        from dbos import DBOS

        self.running = False
        self._stopping.set()
        deadline = time.monotonic() + grace
        for event in _stop_events():
            event.set()
        while self._pool.busy and time.monotonic() < deadline:
            time.sleep(0.05)
        self._pool.stop()
        DBOS.destroy(destroy_registry=True)
        for thread in self._threads:
            thread.join(5.0)
        try:
            self._release(self._worker_lock.executor)
            self._in_own_loop(self._sign_out)
        except KhotanError as exc:
            logger.warning("Handler runs of this worker wait until another worker recovers them: %s", exc.message)
        if self._sync is not None:
            self._sync.dispose()
        self._worker_lock.release()
        _only.release()

    def others(self) -> bool:
        """Whether another process runs flows. Raises StoreError."""
        with translated_errors(self._env.database.url):
            return self._worker_lock.others()


def _stop_events() -> list[threading.Event]:
    """Return DBOS's internal stop events. The name is private; a test checks that it exists."""
    from dbos._dbos import _get_dbos_instance

    return list(_get_dbos_instance().background_thread_stop_events)
