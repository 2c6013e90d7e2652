"""`khotan worker`: a process that only runs flows."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Annotated, Any

import typer

from khotan_cli.console import console
from khotan_cli.errors import KhotanError
from khotan_cli.options import options
from khotan_cli.runtime import event_loop


def worker(
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Number of concurrent runs.", show_default="KHOTAN_CONCURRENCY, or 8"),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds that runs may take to finish on shutdown; other runs are resumed later."),
    ] = 10.0,
) -> None:
    """Run flows and their schedules until stopped (SIGTERM, Ctrl-C). On PostgreSQL, several workers share the work."""
    if concurrency is not None:
        os.environ["KHOTAN_CONCURRENCY"] = str(concurrency)
    settings = options.settings().for_worker()
    from khotan_cli.in_process import load_khotan
    from khotan_cli.runtime.redaction.log_filter import mask_stream

    mask_stream("stderr")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("khotan").setLevel(logging.INFO)
    khotan = load_khotan(settings)
    _tune()
    event_loop.run(_work(khotan, grace))


def _tune() -> None:
    """Tune this process for many short-lived records and several threads (measured by bench/flows.py)."""
    import gc

    # Loaded modules stay, so collections can skip them. One page of 1,000 records should not start a collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    # A run must not wait 5 ms for the thread that polls for work.
    sys.setswitchinterval(0.0005)


async def _work(khotan: Any, grace: float) -> None:
    from khotan_cli.runtime.redaction.log_filter import mask_stream

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    _stop_on_signals(loop, stop)
    services = khotan.services
    async with khotan:
        await services.database.check_migrated()
        if not services.has_work:
            raise KhotanError(
                "The app has no flows and no wires",
                code="unknown_flow",
                hint="Add a flow or a wire.",
                next=["khotan add inflow"],
            )
        if not await services.start_engine():
            raise KhotanError(
                "Another process already runs the flows and handlers of this SQLite database",
                code="engine_busy",
                hint="Stop that process, or use PostgreSQL, where several workers share the work.",
            )
        flows, handlers = list(services.registry.flows), sorted(services.webhooks.handlers)
        concurrency = services.settings.concurrency
        document = {"ok": True, "flows": flows, "handlers": handlers, "concurrency": concurrency}
        console.result(
            document, lambda: console.success(f"Running {', '.join([*flows, *handlers])}. Press Ctrl-C to stop.")
        )
        mask_stream("stdout")  # from here on only the user's code writes there
        await stop.wait()
        console.note("Stopping …")
        await services.engine.stop(grace=grace)


def _stop_on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set the event on SIGINT and SIGTERM. Event loops on Windows have no signal handlers: Python's are used there."""

    def on_signal(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(stop.set)

    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, stop.set)
        except NotImplementedError:
            signal.signal(name, on_signal)
