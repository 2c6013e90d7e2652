"""`khotan wire`: set up webhooks; show, send and replay their events."""

from __future__ import annotations

import time
from collections.abc import Container
from typing import TYPE_CHECKING, Annotated, Any

import typer

from khotan_cli.commands.arguments import moment, read_json
from khotan_cli.commands.times import when
from khotan_cli.commands.variables.wire_vars import Name, variables
from khotan_cli.commands.wires.replay import LOOK_SECONDS, OPEN, Since, replay, run_failed
from khotan_cli.commands.wires.views import show_deliveries, show_event, show_events, show_wire, show_wires
from khotan_cli.console import console
from khotan_cli.errors import KhotanError, UsageError
from khotan_cli.options import options

if TYPE_CHECKING:
    from khotan_cli.client import ApiClient

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Set up webhooks; show, send and replay their events.",
)

Limit = Annotated[int, typer.Option(min=1, max=1000, help="Maximum number to show.")]


@app.command("list")
def list_wires() -> None:
    """List the wires with their handlers and the state of their events."""
    with options.client() as client:
        document = client.wires()
    console.result(document, lambda: show_wires(document["items"]))


@app.command()
def status(name: Name) -> None:
    """Show the subscription, variables and handlers of a wire."""
    with options.client() as client:
        document = client.wire(name)
    console.result(document, lambda: show_wire(document))


@app.command()
def create(
    name: Name,
    public_url: Annotated[
        str, typer.Option(metavar="URL", help="Public base URL of the app. Default: KHOTAN_PUBLIC_URL.")
    ] = "",
) -> None:
    """Subscribe with the service. For a wire that is set up by hand, show the URL to register."""
    with options.client() as client:
        document = client.create_wire(name, public_url or None)

    def render() -> None:
        if document["managed"]:
            console.success(f"{name} is subscribed: {document['callbackUrl']}")
            return
        console.line(f"Register this URL with the service: {document['callbackUrl']}")
        for var in document["vars"]:
            if not var["set"]:
                console.line(f"{var['key']} is not set.", "yellow")
                console.next_steps([f"khotan wire vars {name} set {var['key']} --stdin"])

    console.result(document, render)


@app.command()
def renew(name: Name) -> None:
    """Renew the subscription now. Normally the engine renews it before it expires."""
    with options.client() as client:
        document = client.renew_wire(name)
    until = f" until {when(document['expiresAt'])}" if document["expiresAt"] else ""
    console.result(document, lambda: console.success(f"Renewed the subscription of {name}{until}."))


@app.command()
def delete(name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """End the subscription with the service. For a wire that is set up by hand, forget the URL. Stored events stay."""
    with options.client() as client:
        managed = client.wire(name)["managed"]
        question = f"End the subscription of {name}?" if managed else f"Forget the URL of {name}?"
        if not yes and not console.confirm(question, instead="--yes"):
            raise UsageError("The subscription was not ended", hint="Answer y, or give --yes.")
        client.delete_wire(name)
    manual_text = f"Removed the URL of {name}. End the subscription in the service yourself."
    text = f"{name} is no longer subscribed." if managed else manual_text
    document = {"ok": True, "wire": name, "managed": managed, "message": text}
    console.result(document, lambda: console.success(text))


@app.command()
def enable(
    name: Annotated[str, typer.Argument(help="Name of a wire, or of a handler: wire.handler.", show_default=False)],
) -> None:
    """Enable a wire or a handler. Waiting events are processed now."""
    _switch(name, True)


@app.command()
def disable(
    name: Annotated[str, typer.Argument(help="Name of a wire, or of a handler: wire.handler.", show_default=False)],
) -> None:
    """Disable a wire or a handler. Events are stored, and processed when it is enabled again."""
    _switch(name, False)


def _switch(name: str, enabled: bool) -> None:
    with options.client() as client:
        if "." in name:
            client.set_handler_enabled(name, enabled)
        else:
            client.set_wire_enabled(name, enabled)
    state = "enabled" if enabled else "disabled: its events are stored and wait"
    console.result({"ok": True, "name": name, "enabled": enabled}, lambda: console.success(f"{name} is {state}."))


app.command("vars")(variables)


@app.command()
def events(
    name: Annotated[str, typer.Argument(help="Only this wire.", show_default=False)] = "",
    kind: Annotated[str, typer.Option("--type", help="Only this type.", show_default=False)] = "",
    state: Annotated[
        str,
        typer.Option(
            "--status", help="pending, running, completed, failed, cancelled, parked, unhandled.", show_default=False
        ),
    ] = "",
    since: Since = "",
    limit: Limit = 20,
    offset: Annotated[int, typer.Option(min=0, help="Number to skip.")] = 0,
) -> None:
    """List events, newest first, with the results of their handlers."""
    with options.client() as client:
        document = client.events(
            wire=name or None, type=kind or None, status=state or None, since=moment(since), limit=limit, offset=offset
        )
    console.result(document, lambda: show_events(document["items"], document["total"]))


@app.command()
def show(event: Annotated[str, typer.Argument(help="Id of an event.", show_default=False)]) -> None:
    """Show the headers, body and runs of an event."""
    with options.client() as client:
        document = client.event(event)
    console.result(document, lambda: show_event(document))


app.command("replay")(replay)


@app.command()
def send(
    name: Name,
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="Type of the event.", show_default=False)],
    body: Annotated[
        str, typer.Option(metavar="JSON", help="Body of the event: JSON, @file or -.", show_default=False)
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the handlers.")] = 30.0,
    forged: Annotated[
        bool, typer.Option("--forged", help="Sign with a wrong secret; the wire must reject it.")
    ] = False,
) -> None:
    """Send a test event, signed as the service would sign it, and show what each handler did."""
    event_body = read_json("--body", body) if body else None
    if forged:
        _send_forged(name, kind, event_body)
        return
    with options.client(engine=True) as client:
        accepted = client.send_event(client.sample_event(name, kind, event_body))
        if "id" not in accepted:
            raise KhotanError(f"{name} treated the request as a challenge", hint="Send an event of another type.")
        disabled = {} if accepted["duplicate"] else _disabled(client.wire(name))
        shown = _settled(client, accepted["id"], 0.0 if accepted["duplicate"] else timeout, disabled)
    failed = [] if accepted["duplicate"] else [run for run in shown["runs"] if run["status"] != "completed"]
    if failed and not console.machine:
        show_deliveries(shown)
    if failed:
        failed.sort(key=lambda run: run["handler"] in disabled)
        raise run_failed(failed[0], shown, disabled.get(failed[0]["handler"], ""))

    def render() -> None:
        if accepted["duplicate"]:
            console.line(f"Event {shown['id']} is a duplicate: {name} ran nothing. Its current state:", "yellow")
        else:
            console.success(f"{name} accepted event {shown['id']} ({kind})")
        show_deliveries(shown)

    console.result({**shown, "duplicate": accepted["duplicate"]}, render)


def _disabled(wire: dict[str, Any]) -> dict[str, str]:
    """The disabled handlers, each with the name to enable: the handler's or the wire's."""
    waiting = [handler["name"] for handler in wire["handlers"] if not (wire["enabled"] and handler["enabled"])]
    return {name: name if wire["enabled"] else wire["id"] for name in waiting}


def _send_forged(name: str, kind: str, body: object) -> None:
    with options.client() as client:
        sample = client.sample_event(name, kind, body, forged=True)
        try:
            client.send_event(sample)
        except KhotanError as exc:
            if exc.code != "signature_invalid":
                raise
            result = {"ok": True, "wire": name, "refused": True, "status": exc.http_status, "message": exc.message}
        else:
            raise KhotanError(
                f"{name} accepted a forged event: it does not verify signatures",
                code="forgery_accepted",
                hint="Set verify=signatures.… on the wire.",
            )
    console.result(result, lambda: console.success(f"{name} rejected it ({result['status']}): {result['message']}."))


@app.command()
def listen(
    name: Name,
    since: Since = "",
    count: Annotated[int, typer.Option(min=0, help="Stop after this number of events.", show_default="none")] = 0,
    seconds: Annotated[float, typer.Option("--for", min=0, metavar="SECONDS", show_default="until q")] = 0.0,
) -> None:
    """Watch events arrive. At a terminal, the arrow keys select an event, r replays it, and q quits."""
    from khotan_cli.commands.wires.listen import listen as follow

    watch = console.interactive
    if not watch and not count and not seconds:
        raise UsageError(
            "Without a terminal, --count or --for is required", hint="Use --count 10, or --for 30 for 30 seconds."
        )
    with options.client() as client:
        events_seen = follow(client, name, since=moment(since), count=count, seconds=seconds, watch=watch)
    console.result({"ok": True, "wire": name, **events_seen}, lambda: None)


def _settled(client: ApiClient, event: str, timeout: float, disabled: Container[str]) -> dict[str, Any]:
    """Wait until each enabled handler has ended or failed once, or `timeout` is over. Returns the event."""
    deadline = time.monotonic() + timeout
    with console.status("Waiting for the handlers …"):
        while True:
            shown = client.event(event)
            waiting = [run for run in shown["runs"] if run["status"] in OPEN and not run["failures"]]
            waiting = [run for run in waiting if run["handler"] not in disabled]
            if not waiting or time.monotonic() > deadline:
                return shown
            time.sleep(LOOK_SECONDS)
