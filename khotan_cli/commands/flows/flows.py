"""`khotan flows`: list and start flows, watch and repair their runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from khotan_cli.commands.arguments import read_json
from khotan_cli.commands.flows.state import state
from khotan_cli.commands.flows.views import (
    counted,
    next_of,
    outdated_warning,
    show_dry_run,
    show_flows,
    show_rejects,
    show_run,
    show_runs,
    show_summary,
)
from khotan_cli.console import console
from khotan_cli.errors import KhotanError, UnknownName, UsageError
from khotan_cli.options import options

if TYPE_CHECKING:
    from khotan_cli.client import ApiClient

_LOOK_SECONDS = 0.25
_OPEN = ("pending", "running")
_STATUSES = (*_OPEN, "completed", "partial", "failed", "cancelled")
_NO_WORKER = (
    "No worker is running: the run waits until khotan worker or khotan dev starts. With --wait, this command runs it."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="List flows, start them, watch and repair their runs.",
)

app.command()(state)

Flow = Annotated[str, typer.Argument(help="Name of a flow.", show_default=False)]
Run = Annotated[str, typer.Argument(help="Id of a run.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the run ends; exit with 1 if it is not completed.")]
Timeout = Annotated[float | None, typer.Option(min=0.1, help="With --wait: seconds to wait.", show_default=False)]


@app.command("list")
def list_flows() -> None:
    """List the flows, their variants and schedules."""
    with options.client() as client:
        document = client.flows()
    console.result(document, lambda: show_flows(document["items"]))


@app.command()
def trigger(
    flow: Flow,
    variant: Annotated[str, typer.Argument(help="Default: the first declared variant.", show_default=False)] = "",
    body: Annotated[
        str, typer.Option(metavar="JSON", help="Input of the flow, read as ctx.body: JSON, @file or -.")
    ] = "",
    wait: Wait = False,
    timeout: Timeout = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Send and store nothing; report what would be."),
    ] = False,
) -> None:
    """Start a run. Without a server, this process runs it if --wait is given; otherwise the next worker does."""
    if dry_run and wait:
        raise UsageError(
            "--dry-run and --wait exclude each other",
            hint="A dry run always ends before the command ends: omit --wait.",
        )
    if timeout is not None and not wait:
        raise UsageError("--timeout needs --wait", hint="Add --wait.")
    body_json = read_json("--body", body) if body else None
    if dry_run:
        with options.client() as client, console.status(f"Dry run of {flow} …"):
            document = client.trigger(flow, variant or None, body_json, dry_run=True)
        _dry(document)
        return
    if wait:
        _run_to_end(lambda client: client.trigger(flow, variant or None, body_json), timeout)
        return
    with options.client() as client:
        started = client.trigger(flow, variant or None, body_json)
    state = "started" if started["worker"] else "enqueued"
    _show_started(started, f"{flow} ({started['variant']}) {state}: run {started['id']}")


def _dry(document: dict[str, Any]) -> None:
    failure = document["failure"]
    if failure:
        raise KhotanError(
            f"The dry run failed: {failure['message']}",
            code=failure.get("error", "flow_failed"),
            hint=failure.get("hint", ""),
            next=failure.get("next", ()),
            details={"dryRun": True, "report": document},
        )
    console.result(document, lambda: show_dry_run(document))


@app.command()
def runs(
    flow: Annotated[str, typer.Argument(help="Only this flow.", show_default=False)] = "",
    status: Annotated[list[str] | None, typer.Option(help=f"{', '.join(_STATUSES)}.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number to show.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Number to skip.")] = 0,
) -> None:
    """List runs, newest first."""
    for value in status or ():
        if value not in _STATUSES:
            raise UnknownName("status", value, _STATUSES, code="invalid_input")
    with options.client() as client:
        document = client.runs(flow or None, status or (), limit, offset)
    console.result(document, lambda: show_runs(document["items"], document["total"]))


@app.command()
def show(run: Run) -> None:
    """Show the counters, steps, log and error of a run."""
    with options.client() as client:
        document = client.run(run)
    steps = next_of(document)
    console.result({**document, **({"next": steps} if steps else {})}, lambda: show_run(document))


@app.command()
def rejects(
    run: Run, limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number to show.")] = 20
) -> None:
    """List the records that a run rejected, with the reasons."""
    with options.client() as client:
        document = client.rejects(run, limit)
    console.result(document, lambda: show_rejects(document["items"], document["total"]))


@app.command()
def cancel(run: Run) -> None:
    """Cancel a run: immediately if it is pending, before its next step if it is running."""
    with options.client() as client:
        done = client.cancel_run(run)
    effect = "is cancelled" if done["status"] == "cancelled" else "stops before its next step"
    console.result(done, lambda: console.success(f"Run {done['id']} {effect}."))


@app.command()
def retry(
    run: Run,
    from_step: Annotated[
        str,
        typer.Option(
            metavar="STEP",
            help="Number or name of the first step to repeat.",
            show_default=False,
        ),
    ] = "",
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Run an ended run again, from the start or from a step."""
    if timeout is not None and not wait:
        raise UsageError("--timeout needs --wait", hint="Add --wait.")
    if wait:
        _run_to_end(lambda client: client.retry_run(run, from_step or None), timeout)
        return
    with options.client() as client:
        started = client.retry_run(run, from_step or None)
    _show_started(started, f"Retry {'started' if started['worker'] else 'enqueued'}: run {started['id']}")


@app.command()
def reconcile(flow: Annotated[str, typer.Argument(help="Only this flow.", show_default=False)] = "") -> None:
    """Reconcile runs that the engine has finished but khotan still lists as active."""
    with options.client() as client:
        done = client.reconcile(flow or None)

    def render() -> None:
        for run in done["reconciled"]:
            console.line(f"{run['id']} ({run['flow']}): {run['was']} → {run['now']}")
        if not done["reconciled"]:
            console.line("No runs to reconcile.")

    console.result(done, render)


@app.command()
def enable(flow: Flow) -> None:
    """Enable a disabled flow."""
    _switch(flow, True)


@app.command()
def disable(flow: Flow) -> None:
    """Disable a flow, including its schedules. Pending and running runs continue."""
    _switch(flow, False)


def _switch(flow: str, enabled: bool) -> None:
    with options.client() as client:
        was = client.flow(flow)["enabled"]
        now = client.set_flow_enabled(flow, enabled)
    document = {"ok": True, "flow": now["name"], "enabled": now["enabled"], "changed": was != enabled}
    state = "enabled" if enabled else "disabled"
    if was == enabled:
        document["message"] = f"Flow {flow} is already {state}."
        console.result(document, lambda: console.line(document["message"]))
    else:
        console.result(document, lambda: console.success(f"Flow {flow} is {state}."))


def _watch(client: ApiClient, run_id: str, timeout: float | None) -> dict[str, Any]:
    """Follow a run to its end, with a progress line at a terminal. Raises KhotanError (wait_timeout, interrupted)."""
    started = time.monotonic()
    with _explain_interrupt(run_id), console.live(f"run {run_id[:8]}") as live:
        while True:
            run = client.run(run_id)
            progress = run["progress"] or {}
            text = progress.get("message") or counted(run["counts"]) or run["status"]
            live(text, progress.get("done"), progress.get("total"))
            if run["status"] not in _OPEN:
                return run
            if timeout is not None and time.monotonic() - started > timeout:
                raise KhotanError(
                    f"Run {run_id} did not end within {timeout:g} s: it is {run['status']}",
                    code="wait_timeout",
                    hint="The run continues in a worker or server.",
                    next=[f"khotan flows show {run_id}"],
                )
            time.sleep(_LOOK_SECONDS)


@contextmanager
def _explain_interrupt(run_id: str) -> Iterator[None]:
    """Turns Ctrl-C into an error that says that the run continues. Raises KhotanError (interrupted)."""
    try:
        yield
    except KeyboardInterrupt:
        raise KhotanError(
            f"Interrupted: run {run_id} was not cancelled",
            code="interrupted",
            hint="The run continues in a worker or server, or waits until one starts.",
            next=[f"khotan flows show {run_id}"],
        ) from None


def _show_started(started: dict[str, Any], text: str) -> None:
    """Show a run that was started without --wait."""
    steps = [f"khotan flows show {started['id']}"]
    document = {**started, "next": steps}
    if not started["worker"]:
        document |= {"message": _NO_WORKER, "next": ["khotan worker", *steps]}

    def render() -> None:
        console.success(text)
        if not started["worker"]:
            console.line(_NO_WORKER, "yellow")
        if started["outdatedWorkers"]:
            console.line(outdated_warning(started["outdatedWorkers"]), "yellow")
        console.next_steps(steps)

    console.result(document, render)


def _run_to_end(start: Callable[[ApiClient], dict[str, Any]], timeout: float | None) -> None:
    """Start a run, follow it to its end and show it. Raises KhotanError (run_failed) if it is not completed."""
    try:
        with options.client(engine=True) as client:
            started = start(client)
            outdated = started["outdatedWorkers"]
            if outdated:
                console.note(outdated_warning(outdated))
            run = {**_watch(client, started["id"], timeout), "outdatedWorkers": outdated}
            _check(run)
    except KhotanError as exc:
        if exc.code == "run_failed" and not console.machine:
            run = exc.details["run"]
            show_summary({**run, "steps": []})
            if run["error"] and run["error"].get("place"):
                console.line(f"Stopped at {run['error']['place']}", "dim")
        raise
    console.result(run, lambda: show_run({**run, "steps": []}))


def _check(run: dict[str, Any]) -> None:
    if run["status"] == "completed":
        return
    error = run["error"] or {}
    rejected = f" (rejected records: {run['rejects']:,})" if run["rejects"] else ""
    raise KhotanError(
        error.get("message") or f"Run {run['id']} is {run['status']}{rejected}",
        code="run_failed",
        hint=error.get("hint") or "See the run's steps and rejected records.",
        next=[*next_of(run), f"khotan flows show {run['id']}"],
        details={"run": run},
    )
