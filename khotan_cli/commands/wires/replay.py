"""`khotan wire replay`: runs handlers again on stored events."""

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
NO_WORKER = "No worker is running: the runs wait until khotan dev or khotan worker starts"

Since = Annotated[
    str, typer.Option(metavar="TIME", help="Start time: ISO 8601, or a span such as 2h.", show_default=False)
]


def replay(
    event: Annotated[str, typer.Argument(help="Id of an event.", show_default=False)] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Replay all failed runs.")] = False,
    parked: Annotated[bool, typer.Option("--parked", help="Replay all parked records.")] = False,
    wire: Annotated[str, typer.Option(help="With --failed or --parked: only this wire.", show_default=False)] = "",
    since: Since = "",
    handler: Annotated[str, typer.Option(help="Only this handler.", show_default=False)] = "",
    organisation: Annotated[
        str, typer.Option(help="Organisation that owns the parked record.", show_default=False)
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the runs end; exit with 1 if one failed or is parked.")
    ] = False,
) -> None:
    """Run handlers again: on one stored event, on all failed events, or on all parked records."""
    _check(
        event,
        failed,
        parked,
        {"--wire": wire, "--since": since},
        {"--handler": handler, "--organisation": organisation},
    )
    start = moment(since)
    with options.client(engine=wait) as client:
        if event:
            done = client.replay_event(event, handler or None, organisation or None)
        else:
            done = client.replay_many(wire or None, start, parked=parked)
        if wait:
            done["ended"] = _wait_for(client, done["runs"])
            if done["ended"] and not failed:
                _check_none_parked(client, event, wire, start)
    if done["runs"] and not wait and not done["worker"]:
        done |= {"message": NO_WORKER, "next": ["khotan worker"]}
    console.result(done, lambda: _show(done, parked))


def _check(event: str, failed: bool, parked: bool, of_many: dict[str, str], of_one: dict[str, str]) -> None:
    """Raises UsageError unless exactly one of event, --failed and --parked is set, with options that it accepts."""
    if [bool(event), failed, parked].count(True) != 1:
        raise UsageError("Give one of EVENT, --failed and --parked", hint="khotan wire events --status failed")
    if event and any(of_many.values()):
        raise UsageError(
            f"{' and '.join(of_many)} need --failed or --parked", hint="khotan wire replay --failed --since 2h"
        )
    if not event and any(of_one.values()):
        raise UsageError(f"{' and '.join(of_one)} need an EVENT", hint="khotan wire replay EVENT --handler NAME")


def _wait_for(client: ApiClient, runs: list[str]) -> list[dict[str, Any]]:
    """Wait until the runs end. Raises KhotanError (run_failed) for the first that is not completed."""
    ended = [_ended(client, run) for run in runs]
    for run in ended:
        if run["status"] != "completed":
            raise run_failed(run)
    return ended


def _show(done: dict[str, Any], parked: bool) -> None:
    runs, gone = done["runs"], done.get("gone", {})
    for name, count in gone.items():
        console.line(f"Skipped {count} failed runs of {name}: the app no longer has this handler.", "yellow")
    if runs:
        noun = "run" if len(runs) == 1 else "runs"
        console.success(f"{len(runs)} {noun} {'done' if 'ended' in done else 'started'}.")
        if "message" in done:
            console.line(f"{NO_WORKER} (or give --wait).", "yellow")
    elif not gone:
        console.line("There are no parked records." if parked else "There are no failed runs.")


def _ended(client: ApiClient, run_id: str) -> dict[str, Any]:
    while True:
        run = client.run(run_id)
        if run["status"] not in OPEN or (run["error"] and run["status"] == "pending"):
            return run
        time.sleep(LOOK_SECONDS)


def _check_none_parked(client: ApiClient, event: str, wire: str, since: str | None) -> None:
    """Raises KhotanError if the event, or without one any record of the wire since then, is still parked."""
    if event:
        parked = [record for record in [client.event(event)] if record["parked"]]
    else:
        parked = client.events(wire=wire or None, since=since, status="parked", limit=1)["items"]
    if parked:
        record = parked[0]
        raise KhotanError(
            f"Event {record['id']} is still parked: {record['parked']}",
            code="run_failed",
            hint="Name its owner with --organisation NAME.",
            next=[f"khotan wire show {record['id']}"],
            details={"event": record},
        )


def run_failed(run: dict[str, Any], shown: dict[str, Any] | None = None, disabled: str = "") -> KhotanError:
    """The error of a run that is not completed. `disabled` names the disabled wire or handler that the run waits for."""
    if disabled and shown:
        return KhotanError(
            f"{disabled} is disabled: event {shown['id']} is stored and waits",
            code="wire_disabled",
            hint=f"The event is processed when you enable {disabled}.",
            next=[f"khotan wire enable {disabled}"],
            details={"event": shown},
        )
    error = run["error"] or {}
    name = run.get("handler") or run.get("flow")
    state = "failed and will be retried" if error and run["status"] == "pending" else f"is {run['status']}"
    return KhotanError(
        f"{name} {state}: {error.get('message') or 'the run has not ended'}",
        code="run_failed",
        hint=error.get("hint") or "See the run's details.",
        next=[f"khotan flows show {run['id']}"],
        details={"event": shown} if shown else {"run": run},
    )
