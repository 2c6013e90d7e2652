"""`khotan wire replay`: handlers again, on events that are stored."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from khotan_cli.commands.values import moment
from khotan_cli.console import console
from khotan_cli.errors import KhotanError, UsageError
from khotan_cli.options import options

if TYPE_CHECKING:
    from khotan_cli.client import ApiClient

LOOK_SECONDS = 0.2
OPEN = ("pending", "running")
NO_WORKER = "Nothing runs handlers now: the runs wait for khotan dev or khotan worker"

Since = Annotated[str, typer.Option(metavar="TIME", help="ISO 8601, or a span such as 2h.", show_default=False)]


def replay(
    event: Annotated[str, typer.Argument(help="Id of an event.", show_default=False)] = "",
    failed: Annotated[bool, typer.Option("--failed", help="All that failed, instead of one event.")] = False,
    parked: Annotated[bool, typer.Option("--parked", help="All records that are parked.")] = False,
    wire: Annotated[str, typer.Option(help="With --failed or --parked: of one wire only.", show_default=False)] = "",
    since: Since = "",
    handler: Annotated[str, typer.Option(help="One handler only.", show_default=False)] = "",
    organisation: Annotated[str, typer.Option(help="Whose a parked record is.", show_default=False)] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is done; exit 1 where one failed, or is parked.")
    ] = False,
) -> None:
    """Run handlers again on stored events: on one, on all that failed, or on all that are parked."""
    if [bool(event), failed, parked].count(True) != 1:
        raise UsageError("Name an event, or give --failed or --parked", hint="khotan wire events --status failed")
    if (wire or since) and event:
        raise UsageError(
            "--wire and --since go with --failed or --parked", hint="khotan wire replay --failed --since 2h"
        )
    if (handler or organisation) and not event:
        raise UsageError(
            "--handler and --organisation go with one event", hint="khotan wire replay EVENT --handler NAME"
        )
    begin = moment(since)
    with options.client(engine=wait) as client:
        done = (
            client.replay_event(event, handler or None, organisation or None)
            if event
            else client.replay_many(wire or None, begin, parked=parked)
        )
        ended = [_ended(client, run) for run in done["runs"]] if wait else []
        if any(run["status"] != "completed" for run in ended):
            raise run_failed(next(run for run in ended if run["status"] != "completed"))
        if ended and not failed:
            _none_parked(client, event, wire, begin)
    if done["runs"] and not wait and not done["worker"]:
        done |= {"message": NO_WORKER, "next": ["khotan worker"]}

    def render() -> None:
        for name, count in done.get("gone", {}).items():
            console.line(f"{count} failed of {name}, which this app has no more: not run again.", "yellow")
        if not done["runs"] and done.get("gone"):
            return
        if not done["runs"]:
            console.line("Nothing is parked: nothing to do." if parked else "No run has failed: nothing to do.")
            return
        console.success(
            f"{len(done['runs'])} {'run' if len(done['runs']) == 1 else 'runs'} {'done' if wait else 'started'}."
        )
        if not wait and not done["worker"]:
            console.line(f"{NO_WORKER} (or give --wait).", "yellow")

    console.result({**done, **({"ended": ended} if wait else {})}, render)


def _ended(client: ApiClient, run_id: str) -> dict[str, Any]:
    while True:
        run = client.run(run_id)
        if run["status"] not in OPEN or (run["error"] and run["status"] == "pending"):
            return run
        time.sleep(LOOK_SECONDS)


def _none_parked(client: ApiClient, event: str, wire: str, since: str | None) -> None:
    """Raises KhotanError where the event, or without one a record of the wire since then, is parked."""
    if event:
        parked = [one for one in [client.event(event)] if one["parked"]]
    else:
        parked = client.events(wire=wire or None, since=since, status="parked", limit=1)["items"]
    if parked:
        one = parked[0]
        raise KhotanError(
            f"Event {one['id']} is still parked: {one['parked']}",
            code="run_failed",
            hint="Say whose it is: --organisation NAME.",
            next=[f"khotan wire show {one['id']}"],
            details={"event": one},
        )


def run_failed(run: dict[str, Any], shown: dict[str, Any] | None = None, disabled: str = "") -> KhotanError:
    """disabled: what the run waits for, rather than that it failed."""
    if disabled and shown:
        return KhotanError(
            f"{disabled} is disabled: event {shown['id']} is stored, and waits",
            code="wire_disabled",
            hint="It is processed as soon as that is enabled.",
            next=[f"khotan wire enable {disabled}"],
            details={"event": shown},
        )
    error = run["error"] or {}
    name = run.get("handler") or run.get("flow")
    state = "failed, and is tried again" if error and run["status"] == "pending" else f"is {run['status']}"
    return KhotanError(
        f"{name} {state}: {error.get('message') or 'it has not ended'}",
        code="run_failed",
        hint=error.get("hint") or "See the run.",
        next=[f"khotan flows show {run['id']}"],
        details={"event": shown} if shown else {"run": run},
    )
