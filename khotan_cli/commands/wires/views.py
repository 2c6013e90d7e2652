"""Terminal output of wires and events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from khotan_cli.commands.times import clock, span, when
from khotan_cli.commands.wires.replay import NO_WORKER
from khotan_cli.console import console

COLOURS = {
    "completed": "green",
    "failed": "red",
    "running": "cyan",
    "pending": "yellow",
    "parked": "yellow",
    "cancelled": "dim",
    "unhandled": "dim",
}


def show_wires(items: Sequence[dict[str, Any]]) -> None:
    if not items:
        console.line("There are no wires yet.")
        console.next_steps(["khotan add wire"])
        return
    rows = []
    for wire in items:
        state = "enabled" if wire["enabled"] else "disabled"
        state += " · subscribed" if wire["subscribed"] else " · manual" if wire["callbackUrl"] else ""
        state += f" · {', '.join(wire['missingVars'])} not set" if wire["missingVars"] else ""
        runs = f"{wire['waiting']:,} waiting, {wire['failed']:,} failed"
        rows.append([wire["id"], wire["scheme"], str(len(wire["handlers"])), f"{wire['events']:,}", runs, state])
    console.table(["Wire", "Signature", "Handlers", "Events", "Runs", "State"], rows, whole=["Wire"])


def show_wire(wire: dict[str, Any]) -> None:
    mode = "managed: khotan subscribes" if wire["managed"] else "manual: set up at the service by hand"
    if wire["kind"] == "ingest":
        mode = "other systems post records to it"
    console.line(
        f"{wire['kind'].capitalize()} {wire['id']} ({'enabled' if wire['enabled'] else 'disabled'}), {mode}", "bold"
    )
    console.line(f"receives at /api/khotan{wire['path']}, signed: {wire['scheme']}")
    if wire["callbackUrl"]:
        label = "callback" if wire["managed"] else "URL for the service:"
        console.line(f"{label} {wire['callbackUrl']}")
    if wire["subscribed"]:
        until = f", until {when(wire['expiresAt'])}" if wire["expiresAt"] else ""
        renewed = f", renewed at {when(wire['renewAt'])}" if wire["renewAt"] else ""
        console.line(f"subscribed{' as ' + wire['remoteId'] if wire['remoteId'] else ''}{until}{renewed}", "green")
    if wire["error"]:
        console.line(f"✗ {wire['error']['message']}", "red")
    for var in wire["vars"]:
        value = f"{var['masked']} ({var['source']})" if var["set"] else f"not set ({var['env']})"
        console.line(f"{var['key']}: {value}", "" if var["set"] else "yellow")
    if wire["handlers"]:
        rows = [
            [
                h["name"],
                h["kind"] + (f" → {h['to']}" if h["to"] else ""),
                ", ".join(h["types"]),
                h["model"] or "–",
                tries(h["attempts"], h["retrySpan"]),
                "enabled" if h["enabled"] else "disabled",
            ]
            for h in wire["handlers"]
        ]
        console.table(["Handler", "Kind", "Types", "Model", "Tries", "State"], rows, whole=["Handler"])
    console.line(f"{wire['events']:,} events, {wire['waiting']:,} runs waiting, {wire['failed']:,} failed", "dim")
    if wire["waiting"] and not wire["worker"]:
        console.line(f"{NO_WORKER}.", "yellow")


def tries(attempts: int, seconds: float) -> str:
    return "once" if attempts == 1 else f"{attempts} over {span(seconds)}"


def show_events(items: Sequence[dict[str, Any]], total: int) -> None:
    if not items:
        console.line("There are no events.")
        return
    console.table(
        ["Event", "Received", "Wire", "Type", "Status", "Runs"], [event_row(e) for e in items], whole=["Event"]
    )
    if total > len(items):
        console.line(f"{total - len(items)} more are not shown.", "dim")


def event_row(event: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    state = Text(event["status"], style=COLOURS.get(event["status"], ""))
    newest = {run["handler"].partition(".")[2]: run["status"] for run in event["runs"]}
    runs = ", ".join(f"{handler}: {status}" for handler, status in newest.items())
    repeats = f" (+{event['repeats']})" if event["repeats"] else ""
    problem = " · body unreadable" if event.get("problem") else ""
    return [
        event["id"],
        when(event["receivedAt"]),
        event["wire"],
        event["type"] or "–",
        state,
        runs + repeats + problem,
    ]


def show_event(event: dict[str, Any]) -> None:
    console.line(f"Event {event['id']}: {event['type'] or 'no type'} of {event['wire']}, {event['status']}", "bold")
    console.line(
        f"{event['method']} {when(event['receivedAt'])}, {event['size']:,} bytes, sender's id {event['remoteId']}"
    )
    for name, value in (event["path"] or {}).items():
        console.line(f"path {name}: {value}")
    if event.get("problem"):
        console.line(f"The body is unreadable: {event['problem']}.", "yellow")
    if event["repeats"]:
        altered = f", {event['altered']} of them with a different body" if event["altered"] else ""
        console.line(f"Received {event['repeats']} more times{altered}.", "yellow")
    if event["parked"]:
        console.line(f"Parked: {event['parked']}", "yellow")
        console.next_steps([f"khotan wire replay {event['id']} --organisation NAME"])
    elif event["organisation"]:
        console.line(f"organisation {event['organisation']}")
    for name, value in event["headers"].items():
        console.line(f"{name}: {value}", "dim")
    if event["json"] is not None:
        console.line(json.dumps(event["json"], ensure_ascii=False, indent=2))
    else:
        console.line(event["text"] if event["text"] is not None else f"base64: {(event['base64'] or '')[:2000]}")
    show_deliveries(event)


def show_deliveries(event: dict[str, Any]) -> None:
    """Show what each handler did."""
    if not event["runs"]:
        console.line(f"No handler accepts {event['type'] or 'this event'}: it is stored and can be replayed.", "yellow")
    for run in event["runs"]:
        mark = {"completed": "✓", "failed": "✗"}.get(run["status"], "…")
        console.line(f"{mark} {run['handler']}: {run['status']}", COLOURS.get(run["status"], ""))
        if run["error"]:
            console.line(f"  {run['error']['message']}")
            if run["error"].get("hint"):
                console.line(f"  {run['error']['hint']}", "dim")
        if run["nextAt"]:
            tried = "once" if run["failures"] == 1 else f"{run['failures']} times"
            limit = f"; at most {tries(run['attempts'], run['retrySpan'])}" if run["attempts"] else ""
            console.line(f"  tried {tried}; again at {clock(run['nextAt'])}{limit}", "dim")
