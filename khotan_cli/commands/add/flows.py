"""`khotan add inflow|outflow|relay|resource|cache`: asks questions at a terminal, then writes one file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from khotan_cli.commands.add.views import show_written
from khotan_cli.console import console
from khotan_cli.errors import UnknownName, UsageError
from khotan_cli.options import options

if TYPE_CHECKING:
    from khotan_cli.scaffold.code_reader import Source
    from khotan_cli.scaffold.project_component import Written

Name = Annotated[str, typer.Argument(help="Name of the component: a Python identifier.", show_default=False)]
Plug = Annotated[str, typer.Option(help="Plug that records come from, or, for an outflow, go to.", show_default=False)]
Endpoint = Annotated[str, typer.Option(help="Endpoint of that plug.", show_default=False)]
Resource = Annotated[str, typer.Option(help="Resource whose mappings the flow updates.", show_default="none")]
Key = Annotated[str, typer.Option(help="Field that identifies a record.", show_default="id")]
Schedule = Annotated[
    str, typer.Option(metavar="CRON", help="Schedule: a cron expression with five fields.", show_default="never")
]
Update = Annotated[
    str, typer.Option(help="Endpoint that updates records that exist in the service.", show_default="none")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask questions; use defaults.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that you changed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")]
Diff = Annotated[bool, typer.Option("--diff", help="Show what would change; write nothing.")]
_UPDATES = "Which endpoint updates a record that exists in the service"


class Project:
    """The project that components are written to, and the components that it has."""

    def __init__(self, yes: bool) -> None:
        settings = options.settings()
        from khotan_cli.scaffold.code_reader import read_source
        from khotan_cli.scaffold.project_component import package_path
        from khotan_cli.settings import require_project

        require_project(settings)
        self.root, self.folder = settings.root, package_path(settings.package, settings.source)
        self.source: Source = read_source(settings.package_dir)
        self._asking = console.interactive and not yes

    def pick(self, question: str, given: str, choices: Sequence[str], option: str, *, optional: bool = False) -> str:
        """The given value, else the answer to a question, else the only choice. Raises UsageError."""
        if given or (not choices and optional):
            return given
        if not choices:
            raise self._none_yet(question, option)
        if self._asking:
            offered = [*(["none"] if optional else []), *choices]
            answer = console.choose(question, offered, instead=option, default=offered[0])
            return "" if optional and answer == "none" else answer
        if optional:
            return ""
        if len(choices) == 1:
            return choices[0]
        raise UsageError(f"Missing {option}", hint=f"{question}? Choose one of {', '.join(choices)}.")

    def _none_yet(self, question: str, option: str) -> UsageError:
        step, hint = [], "Declare one in the plug."
        if not option.endswith("endpoint"):
            plug = next(iter(self.source.plugs), "")
            step = [f"khotan add wire {plug} --plug {plug}" if plug and option == "--wire" else "khotan add plug"]
            hint = "The project has none yet. Add one."
        return UsageError(f"Missing {option}", hint=f"{question}? {hint}", next=step)

    def plug(self, question: str, given: str, option: str = "--plug") -> str:
        """The name of a plug of the project. Raises UnknownName before any further question."""
        from khotan_cli.scaffold.components import found_plug

        return found_plug(self.source, self.pick(question, given, list(self.source.plugs), option)).name

    def wire(self, given: str) -> str:
        """The name of a wire of the project. Raises UnknownName before any further question."""
        wire = self.pick("Which wire's events does it process", given, list(self.source.wires), "--wire")
        if wire not in self.source.wires:
            raise UnknownName("wire", wire, self.source.wires, where="this project")
        return wire

    def types(self, given: Sequence[str] | None, question: str) -> list[str]:
        """Event types: the given ones, else the answer to a question. An empty list means all."""
        if given or not self._asking:
            return list(given or ())
        return console.ask(f"{question}, separated by commas (empty: all)", instead="--type").replace(",", " ").split()

    def confirm(self, question: str, given: bool, option: str) -> bool:
        return given or (self._asking and console.confirm(question, instead=option))

    def field(self, question: str, default: str, option: str) -> str:
        return console.ask(question, instead=option, default=default) if self._asking else default

    def name(self, given: str, kind: str) -> str:
        from khotan_cli.scaffold.names import check_plug_name

        return check_plug_name(given or console.ask(f"Name of the {kind}", instead="NAME"))

    def endpoints(self, plug: str, kind: Literal["lists", "takes", "updates"]) -> list[str]:
        """Endpoints to offer: paginated ones, writing ones, or writing ones whose path or method identifies a record."""
        from khotan_cli.scaffold.components import found_plug

        endpoints = found_plug(self.source, plug).endpoints.values()
        if kind == "lists":
            return [endpoint.name for endpoint in endpoints if endpoint.lists]
        writes = [endpoint for endpoint in endpoints if endpoint.method in ("POST", "PUT", "PATCH")]
        return [e.name for e in writes if kind == "takes" or e.method != "POST" or "{" in e.path]


def show_part(kind: str, name: str, written: Written, look_only: bool, diff: bool) -> None:
    heading = f"{kind.capitalize()} {name}" if written.written else f"{kind.capitalize()} {name}: nothing to write."
    show_written(kind, name, written, title=heading, dry_run=look_only, diff=diff)


def _flow(kind: str, project: Project, answers: dict[str, Any], *, force: bool, dry_run: bool, diff: bool) -> None:
    from khotan_cli.scaffold.components import FlowOptions, add_flow

    flow_options = FlowOptions(kind=kind, **answers)
    look_only = dry_run or diff
    written = add_flow(project.root, project.folder, project.source, flow_options, force=force, dry_run=look_only)
    show_part(kind, flow_options.name, written, look_only, diff)


def inflow(
    name: Name = "",
    plug: Plug = "",
    endpoint: Endpoint = "",
    resource: Resource = "",
    into: Annotated[str, typer.Option(help="Class name of the table's rows.", show_default="NameRow")] = "",
    key: Key = "",
    schedule: Schedule = "",
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    diff: Diff = False,
) -> None:
    """Write a flow that brings records of a service into the application.

    khotan add inflow products --plug shop --endpoint list_products
    """
    project = Project(yes)
    name = project.name(name, "flow")
    plug = project.plug("Which plug do the records come from", plug)
    endpoint = project.pick(
        "Which endpoint lists the records", endpoint, project.endpoints(plug, "lists"), "--endpoint"
    )
    resource = project.pick(
        "Which resource do the records belong to", resource, list(project.source.resources), "--resource", optional=True
    )
    answers = {"name": name, "plug": plug, "endpoint": endpoint, "resource": resource}
    answers |= {"into": into, "key": key, "schedule": schedule}
    _flow("inflow", project, answers, force=force, dry_run=dry_run, diff=diff)


def outflow(
    name: Name = "",
    plug: Plug = "",
    endpoint: Endpoint = "",
    update: Update = "",
    table: Annotated[
        str, typer.Option("--from", help="Table class whose rows are sent.", show_default="a new one")
    ] = "",
    resource: Resource = "",
    key: Key = "",
    schedule: Schedule = "",
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    diff: Diff = False,
) -> None:
    """Write a flow that sends records of the application to a service.

    khotan add outflow customers --plug crm --endpoint create_contact --update update_contact
    """
    project = Project(yes)
    name = project.name(name, "flow")
    plug = project.plug("Which plug do the records go to", plug)
    endpoint = project.pick(
        "Which endpoint accepts the records", endpoint, project.endpoints(plug, "takes"), "--endpoint"
    )
    update = project.pick(_UPDATES, update, project.endpoints(plug, "updates"), "--update", optional=True)
    table = project.pick(
        "Which table are the records from", table, list(project.source.tables), "--from", optional=True
    )
    resource = project.pick(
        "Which resource do the records belong to", resource, list(project.source.resources), "--resource", optional=True
    )
    answers = {"name": name, "plug": plug, "endpoint": endpoint, "update": update, "into": table}
    answers |= {"resource": resource, "key": key, "schedule": schedule}
    _flow("outflow", project, answers, force=force, dry_run=dry_run, diff=diff)


def relay(
    name: Name = "",
    plug: Plug = "",
    endpoint: Endpoint = "",
    to: Annotated[str, typer.Option(help="Plug that records go to.", show_default=False)] = "",
    to_endpoint: Annotated[str, typer.Option(help="Endpoint that accepts the records.", show_default=False)] = "",
    update: Update = "",
    resource: Resource = "",
    key: Key = "",
    schedule: Schedule = "",
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    diff: Diff = False,
) -> None:
    """Write a flow from one service to another.

    khotan add relay orders --plug shop --endpoint list_orders --to erp --to-endpoint create_order
    """
    project = Project(yes)
    name = project.name(name, "flow")
    plug = project.plug("Which plug do the records come from", plug)
    endpoint = project.pick(
        "Which endpoint lists the records", endpoint, project.endpoints(plug, "lists"), "--endpoint"
    )
    to = project.plug("Which plug do the records go to", to, "--to")
    to_endpoint = project.pick(
        "Which endpoint accepts the records", to_endpoint, project.endpoints(to, "takes"), "--to-endpoint"
    )
    update = project.pick(_UPDATES, update, project.endpoints(to, "updates"), "--update", optional=True)
    resource = project.pick(
        "Which resource do the records belong to", resource, list(project.source.resources), "--resource", optional=True
    )
    answers = {"name": name, "plug": plug, "endpoint": endpoint, "to": to, "to_endpoint": to_endpoint}
    answers |= {"update": update, "resource": resource, "key": key, "schedule": schedule}
    _flow("relay", project, answers, force=force, dry_run=dry_run, diff=diff)


def resource(
    name: Name = "",
    connect_field: Annotated[
        list[str] | None,
        typer.Option(help="Field of the canonical key. Repeat for a composite key.", show_default=False),
    ] = None,
    plug: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLUG=FIELD", help="Plug, and the field that holds the id in its records.", show_default=False
        ),
    ] = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    diff: Diff = False,
) -> None:
    """Write a resource, which matches records of several systems that describe the same thing.

    khotan add resource products --connect-field sku --plug shop=id --plug erp=id
    """
    project = Project(yes)
    name = project.name(name, "resource")
    if not plug:
        plug_name = project.plug("Which plug has it", "", "--plug PLUG=FIELD")
        plug = [f"{plug_name}={project.field(f'Field that holds the id in records of {plug_name}', 'id', '--plug')}"]
    plugs: dict[str, str] = {}
    for text in plug:
        plug_name, _, field = text.partition("=")
        if not plug_name or not field:
            raise UsageError(
                f"Invalid --plug {text!r}: it must be PLUG=FIELD",
                hint=f"Use --plug {plug_name or 'shop'}=id, where the field id holds the id in that plug's records.",
            )
        plugs[project.plug("", plug_name)] = field
    fields = connect_field or [console.ask("Field of the canonical key", instead="--connect-field")]
    from khotan_cli.scaffold.components import add_resource

    look_only = dry_run or diff
    written = add_resource(
        project.root, project.folder, project.source, name, fields, plugs, force=force, dry_run=look_only
    )
    show_part("resource", name, written, look_only, diff)


def cache(
    name: Name = "",
    ttl: Annotated[str, typer.Option(help="Time to live of an entry, such as 6h.", show_default="unlimited")] = "",
    scope: Annotated[str, typer.Option(help="Owner of the entries: app, flow or variant.")] = "app",
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    diff: Diff = False,
) -> None:
    """Write a cache: durable key-value state with a time to live.

    khotan add cache snapshots --ttl 6h
    """
    project = Project(yes)
    name = project.name(name, "cache")
    from khotan_cli.scaffold.components import add_cache

    look_only = dry_run or diff
    written = add_cache(project.root, project.folder, name, ttl, scope, force=force, dry_run=look_only)
    show_part("cache", name, written, look_only, diff)
