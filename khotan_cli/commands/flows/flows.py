"""`khotan flows`: list, trigger, watch, repair."""

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
    outdated_words,
    show_course,
    show_dry_run,
    show_flows,
    show_rejects,
    show_run,
    show_runs,
)
from khotan_cli.console import console
from khotan_cli.errors import KhotanError, UnknownName, UsageError
from khotan_cli.options import options

if TYPE_CHECKING:
    from khotan_cli.client import ApiClient

_LOOK_SECONDS = 0.25
_OPEN = ("pending", "running")
_STATUSES = (*_OPEN, "completed", "partial", "failed", "cancelled")
_NO_WORKER = "Nothing runs flows now: the run waits for khotan worker or khotan dev (or give --wait)."

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="List flows, start them, watch and repair their runs.",
)

app.command()(state)

Flow = Annotated[str, typer.Argument(help="Name of a flow.", show_default=False)]
Run = Annotated[str, typer.Argument(help="Id of a run.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit 1 where it is not completed.")]
Timeout = Annotated[float | None, typer.Option(min=0.1, help="With --wait: seconds to wait.", show_default=False)]


@app.command("list")
def list_flows() -> None:
    """The flows, their variants and schedules."""
    with options.client() as client:
        document = client.flows()
    console.result(document, lambda: show_flows(document["items"]))


@app.command()
def trigger(
    flow: Flow,
    variant: Annotated[str, typer.Argument(help="Default: the first that is declared.", show_default=False)] = "",
    body: Annotated[str, typer.Option(metavar="JSON", help="What the flow finds as ctx.body: JSON, @file or -.")] = "",
    wait: Wait = False,
    timeout: Timeout = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run it, but send and store nothing; say what.")] = False,
) -> None:
    """Start a run. Without a server it is run by this very process where --wait is given, else by the next worker."""
    if dry_run and wait:
        raise UsageError(
            "--dry-run and --wait exclude each other", hint="A dry run always ends before the command does."
        )
    if timeout is not None and not wait:
        raise UsageError("--timeout has a meaning only with --wait", hint="Add --wait.")
    given = read_json("--body", body) if body else None
    if dry_run:
        with options.client() as client, console.status(f"Running {flow}, holding everything back …"):
            document = client.trigger(flow, variant or None, given, dry_run=True)
        _dry(document)
        return
    if wait:
        _to_the_end(lambda client: client.trigger(flow, variant or None, given), timeout)
        return
    with options.client() as client:
        started = client.trigger(flow, variant or None, given)
    state = "is started" if started["worker"] else "is enqueued"
    _tell_started(started, f"{flow} ({started['variant']}) {state}: run {started['id']}")


def _dry(document: dict[str, Any]) -> None:
    failure = document["failure"]
    if failure:
        raise KhotanError(
            f"The dry run ended with: {failure['message']}",
            code=failure.get("error", "flow_failed"),
            hint=failure.get("hint", ""),
            next=failure.get("next", ()),
            details={"dryRun": True, "report": document},
        )
    console.result(document, lambda: show_dry_run(document))


@app.command()
def runs(
    flow: Annotated[str, typer.Argument(help="Of one flow only.", show_default=False)] = "",
    status: Annotated[list[str] | None, typer.Option(help=f"{', '.join(_STATUSES)}.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Pass over so many.")] = 0,
) -> None:
    """The newest runs first."""
    for one in status or ():
        if one not in _STATUSES:
            raise UnknownName("status", one, _STATUSES, code="invalid_input")
    with options.client() as client:
        document = client.runs(flow or None, status or (), limit, offset)
    console.result(document, lambda: show_runs(document["items"], document["total"]))


@app.command()
def show(run: Run) -> None:
    """A run: counters, steps, log, error."""
    with options.client() as client:
        document = client.run(run)
    steps = next_of(document)
    console.result({**document, **({"next": steps} if steps else {})}, lambda: show_run(document))


@app.command()
def rejects(run: Run, limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20) -> None:
    """Records that a run left out, with the reasons."""
    with options.client() as client:
        document = client.rejects(run, limit)
    console.result(document, lambda: show_rejects(document["items"], document["total"]))


@app.command()
def cancel(run: Run) -> None:
    """Cancel a run: at once where it waits, before its next step where it runs."""
    with options.client() as client:
        done = client.cancel_run(run)
    what = "is cancelled" if done["status"] == "cancelled" else "stops before its next step"
    console.result(done, lambda: console.success(f"Run {done['id']} {what}."))


@app.command()
def retry(
    run: Run,
    from_step: Annotated[
        str,
        typer.Option(metavar="STEP", help="Number or name of a step; what came before is kept.", show_default=False),
    ] = "",
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Start an ended run anew, from its start or from a step."""
    if timeout is not None and not wait:
        raise UsageError("--timeout has a meaning only with --wait", hint="Add --wait.")
    if wait:
        _to_the_end(lambda client: client.retry_run(run, from_step or None), timeout)
        return
    with options.client() as client:
        started = client.retry_run(run, from_step or None)
    _tell_started(started, f"Run {started['id']} {'does' if started['worker'] else 'will do'} it again.")


@app.command()
def reconcile(flow: Annotated[str, typer.Argument(help="Of one flow only.", show_default=False)] = "") -> None:
    """Put right runs that hang: ended for the engine, but waiting or running here."""
    with options.client() as client:
        done = client.reconcile(flow or None)

    def render() -> None:
        for run in done["reconciled"]:
            console.line(f"{run['id']} ({run['flow']}): {run['was']} → {run['now']}")
        if not done["reconciled"]:
            console.line("No run hangs: nothing to do.")

    console.result(done, render)


@app.command()
def enable(flow: Flow) -> None:
    """Let a flow be started again."""
    _switch(flow, True)


@app.command()
def disable(flow: Flow) -> None:
    """Let nobody start a flow, schedules included. Runs that wait or run go on."""
    _switch(flow, False)


def _switch(flow: str, enabled: bool) -> None:
    with options.client() as client:
        was = client.flow(flow)["enabled"]
        now = client.set_flow_enabled(flow, enabled)
    document = {"ok": True, "flow": now["name"], "enabled": now["enabled"], "changed": was != enabled}
    state = "enabled" if enabled else "disabled"
    if was == enabled:
        document["message"] = f"Flow {flow} was {state} already: nothing to do."
        console.result(document, lambda: console.line(document["message"]))
    else:
        console.result(document, lambda: console.success(f"Flow {flow} is {state}."))


def _watch(client: ApiClient, run_id: str, timeout: float | None) -> dict[str, Any]:
    """Follow a run to its end, with a live line for people. Raises KhotanError (wait_timeout; interrupted by Ctrl-C)."""
    started = time.monotonic()
    with _left_to_go_on(run_id), console.live(f"run {run_id[:8]}") as live:
        while True:
            run = client.run(run_id)
            progress = run["progress"] or {}
            text = progress.get("message") or counted(run["counts"]) or run["status"]
            live(text, progress.get("done"), progress.get("total"))
            if run["status"] not in _OPEN:
                return run
            if timeout is not None and time.monotonic() - started > timeout:
                raise KhotanError(
                    f"Run {run_id} has not ended after {timeout:g} s: it is {run['status']}",
                    code="wait_timeout",
                    hint="It goes on where a worker or server runs.",
                    next=[f"khotan flows show {run_id}"],
                )
            time.sleep(_LOOK_SECONDS)


@contextmanager
def _left_to_go_on(run_id: str) -> Iterator[None]:
    """Ctrl-C ends the waiting, not the run: says so, and where to find it."""
    try:
        yield
    except KeyboardInterrupt:
        raise KhotanError(
            f"Interrupted; run {run_id} is not cancelled",
            code="interrupted",
            hint="It goes on where a worker or server runs, or waits for one.",
            next=[f"khotan flows show {run_id}"],
        ) from None


def _tell_started(started: dict[str, Any], text: str) -> None:
    """A run that was started, and not waited for."""
    steps = [f"khotan flows show {started['id']}"]
    document = {**started, "next": steps}
    if not started["worker"]:
        document |= {"message": _NO_WORKER, "next": ["khotan worker", *steps]}

    def render() -> None:
        console.success(text)
        if not started["worker"]:
            console.line(_NO_WORKER, "yellow")
        if started["outdatedWorkers"]:
            console.line(outdated_words(started["outdatedWorkers"]), "yellow")
        console.next_steps(steps)

    console.result(document, render)


def _to_the_end(start: Callable[[ApiClient], dict[str, Any]], timeout: float | None) -> None:
    """Start a run, follow it to its end, and tell. Raises KhotanError (run_failed) where it is not completed."""
    try:
        with options.client(engine=True) as client:
            started = start(client)
            older = started["outdatedWorkers"]
            if older:
                console.note(outdated_words(older))
            run = {**_watch(client, started["id"], timeout), "outdatedWorkers": older}
            _check(run)
    except KhotanError as exc:
        if exc.code == "run_failed" and not console.machine:
            run = exc.details["run"]
            show_course({**run, "steps": []})
            if run["error"] and run["error"].get("place"):
                console.line(f"It stopped at {run['error']['place']}", "dim")
        raise
    console.result(run, lambda: show_run({**run, "steps": []}))


def _check(run: dict[str, Any]) -> None:
    if run["status"] == "completed":
        return
    error = run["error"] or {}
    left_out = f" (records left out: {run['rejects']:,})" if run["rejects"] else ""
    raise KhotanError(
        error.get("message") or f"Run {run['id']} is {run['status']}{left_out}",
        code="run_failed",
        hint=error.get("hint") or "See its steps and what it left out.",
        next=[*next_of(run), f"khotan flows show {run['id']}"],
        details={"run": run},
    )
