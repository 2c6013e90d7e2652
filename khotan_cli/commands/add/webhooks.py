"""`khotan add wire|catch|pass|ingest`: asks questions at a terminal, then writes one file."""

from __future__ import annotations

from typing import Annotated

import typer

from khotan_cli.commands.add.flows import Diff, DryRun, Force, Name, Project, Yes, show_part

Types = Annotated[
    list[str] | None, typer.Option("--type", help="Event type, or a pattern such as invoice.*.", show_default="all")
]
WireId = Annotated[
    str, typer.Option(help="Wire whose events the handler processes: plug, or plug/name.", show_default=False)
]
OrderedBy = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="Path of a key in the body; events with equal keys stay in order.",
        show_default="none",
    ),
]


def wire(
    name: Name = "",
    plug: Annotated[str, typer.Option(help="Plug whose service sends the events.", show_default=False)] = "",
    signature: Annotated[
        str,
        typer.Option(
            help="stripe, github, shopify, slack, twilio, standard_webhooks, svix, hmac, ed25519, ecdsa, token or unsigned.",
            show_default=False,
        ),
    ] = "",
    types: Types = None,
    managed: Annotated[bool, typer.Option("--managed", help="khotan subscribes with the service.")] = False,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    diff: Diff = False,
) -> None:
    """Write a webhook endpoint of a plug, at /webhook/PLUG if NAME is the plug's name, else at /webhook/PLUG/NAME.

    khotan add wire stripe --plug stripe --signature stripe --type invoice.paid
    """
    project = Project(yes)
    plug = project.plug("Which plug sends the events", plug)
    name = project.name(name or (plug if yes else ""), "wire")
    from khotan_cli.scaffold.webhook_components import WireOptions, add_wire, signature_kinds

    signature = project.pick("How does the service sign events", signature, signature_kinds(), "--signature")
    types = project.types(types, "Which event types")
    managed = project.confirm("Can khotan subscribe with the service, through its API?", managed, "--managed")
    handler_options = WireOptions(name, plug, signature, types, managed)
    look_only = dry_run or diff
    written = add_wire(project.root, project.folder, project.source, handler_options, force=force, dry_run=look_only)
    show_part("wire", name, written, look_only, diff)


def catch(
    name: Name = "",
    wire: WireId = "",
    types: Types = None,
    ordered_by: OrderedBy = "",
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    diff: Diff = False,
) -> None:
    """Write a handler that processes events of a wire.

    khotan add catch record_invoice --wire stripe --type invoice.paid
    """
    project = Project(yes)
    name = project.name(name, "handler")
    wire = project.wire(wire)
    _handler(project, "catch", name, wire, types, "", "", ordered_by, force=force, look_only=dry_run or diff, diff=diff)


def pass_(
    name: Name = "",
    wire: WireId = "",
    to: Annotated[str, typer.Option(help="Plug that events go to.", show_default=False)] = "",
    endpoint: Annotated[str, typer.Option(help="Endpoint of that plug.", show_default="POST /")] = "",
    types: Types = None,
    ordered_by: OrderedBy = "",
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    diff: Diff = False,
) -> None:
    """Write a handler that forwards events of a wire to another plug.

    khotan add pass notify --wire stripe --to slack --type invoice.paid
    """
    project = Project(yes)
    name = project.name(name, "handler")
    wire = project.wire(wire)
    to = project.plug("Which plug receives the events", to, "--to")
    _handler(
        project, "pass", name, wire, types, to, endpoint, ordered_by, force=force, look_only=dry_run or diff, diff=diff
    )


def ingest(
    name: Name = "",
    path: Annotated[str, typer.Option(help="Last part of the URL.", show_default="/NAME")] = "",
    signature: Annotated[
        str, typer.Option(help="token, hmac, standard_webhooks or unsigned.", show_default=False)
    ] = "",
    organisation: Annotated[
        bool, typer.Option("--organisation", help="Look up the organisation of each record; park records without one.")
    ] = False,
    plug: Annotated[str, typer.Option(help="Plug that the ids of the records belong to.", show_default="none")] = "",
    resource: Annotated[str, typer.Option(help="Resource whose mappings are updated.", show_default="none")] = "",
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    diff: Diff = False,
) -> None:
    """Write an endpoint at /ingest/NAME that other systems post records to.

    khotan add ingest orders --signature token
    """
    project = Project(yes)
    name = project.name(name, "ingest")
    from khotan_cli.scaffold.ingest_component import IngestOptions, add_ingest, ingest_signatures

    signature = project.pick("How do senders authenticate", signature, ingest_signatures(), "--signature")
    handler_options = IngestOptions(name, signature, path, organisation, plug, resource)
    look_only = dry_run or diff
    written = add_ingest(project.root, project.folder, project.source, handler_options, force=force, dry_run=look_only)
    show_part("ingest", name, written, look_only, diff)


def _handler(
    project: Project,
    kind: str,
    name: str,
    wire: str,
    types: list[str] | None,
    to: str,
    endpoint: str,
    ordered_by: str,
    *,
    force: bool,
    look_only: bool,
    diff: bool,
) -> None:
    from khotan_cli.scaffold.webhook_components import HandlerOptions, add_handler

    known_types = ", ".join(project.source.wires[wire].types)
    types = project.types(types, "Which event types does it process" + (f" of {known_types}" if known_types else ""))
    handler_options = HandlerOptions(kind, name, wire, types, to, endpoint, ordered_by)
    written = add_handler(project.root, project.folder, project.source, handler_options, force=force, dry_run=look_only)
    show_part(kind, name, written, look_only, diff)
