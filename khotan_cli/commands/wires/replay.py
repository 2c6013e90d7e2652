"""`khotan wire replay`: handlers again, on events that are stored."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from khotan_cli.commands.arguments import moment
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
    _check(
        event,
        failed,
        parked,
        {"--wire": wire, "--since": since},
        {"--handler": handler, "--organisation": organisation},
    )
    begin = moment(since)
    with options.client(engine=wait) as client:
        if event:
            done = client.replay_event(event, handler or None, organisation or None)
        else:
            done = client.replay_many(wire or None, begin, parked=parked)
        if wait:
            done["ended"] = _wait_for(client, done["runs"])
            if done["ended"] and not failed:
                _none_parked(client, event, wire, begin)
    if done["runs"] and not wait and not done["worker"]:
        done |= {"message": NO_WORKER, "next": ["khotan worker"]}
    console.result(done, lambda: _show(done, parked))


def _check(event: str, failed: bool, parked: bool, of_many: dict[str, str], of_one: dict[str, str]) -> None:
    """Raises UsageError unless one thing is to be replayed, with the options that go with it."""
    if [bool(event), failed, parked].count(True) != 1:
        raise UsageError("Name an event, or give --failed or --parked", hint="khotan wire events --status failed")
    if event and any(of_many.values()):
        raise UsageError(
            f"{' and '.join(of_many)} go with --failed or --parked", hint="khotan wire replay --failed --since 2h"
        )
    if not event and any(of_one.values()):
        raise UsageError(f"{' and '.join(of_one)} go with one event", hint="khotan wire replay EVENT --handler NAME")


def _wait_for(client: ApiClient, runs: list[str]) -> list[dict[str, Any]]:
    """The runs once they have ended. Raises KhotanError for the first that did not complete."""
    ended = [_ended(client, run) for run in runs]
    for run in ended:
        if run["status"] != "completed":
            raise run_failed(run)
    return ended


def _show(done: dict[str, Any], parked: bool) -> None:
    runs, gone = done["runs"], done.get("gone", {})
    for name, count in gone.items():
        console.line(f"{count} failed of {name}, which this app has no more: not run again.", "yellow")
    if runs:
        noun = "run" if len(runs) == 1 else "runs"
        console.success(f"{len(runs)} {noun} {'done' if 'ended' in done else 'started'}.")
        if "message" in done:
            console.line(f"{NO_WORKER} (or give --wait).", "yellow")
    elif not gone:
        console.line("Nothing is parked: nothing to do." if parked else "No run has failed: nothing to do.")


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
