"""`khotan add COMPONENT NAME`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from khotan_cli.commands.add import flows, webhooks
from khotan_cli.commands.add.views import show_written
from khotan_cli.console import console
from khotan_cli.errors import KhotanError, UsageError
from khotan_cli.options import options

if TYPE_CHECKING:
    from khotan_cli.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Write a component into the project. The code is yours from then on.",
)


@app.callback()
def add() -> None:
    """Write a component into the project. The code is yours from then on."""


@app.command("plug")
def plug(
    name: Annotated[str, typer.Argument(help="Name of the plug: a Python identifier.", show_default=False)] = "",
    base_url: Annotated[str, typer.Option(help="Base URL of the API.", show_default=False)] = "",
    auth: Annotated[
        str,
        typer.Option(
            help="none, bearer, basic, api-key, api-key-query, oauth2-client-credentials, oauth2-authorization-code, "
            "token, hmac or custom.",
            show_default="bearer",
        ),
    ] = "",
    title: Annotated[str, typer.Option(help="Name of the service, for people.", show_default=False)] = "",
    auth_param: Annotated[str, typer.Option(help="Header or query parameter of the API key.", show_default=False)] = "",
    token_url: Annotated[str, typer.Option(help="Token endpoint.", show_default="/oauth/token")] = "",
    authorize_url: Annotated[str, typer.Option(help="Authorization endpoint.", show_default="/oauth/authorize")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask questions; use defaults.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that you changed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what would change; write nothing.")] = False,
) -> None:
    """Write a client of an API: base URL, authentication, variables, and a sample endpoint with its model.

    khotan add plug shop --base-url https://api.example.com/v1 --auth bearer
    """
    settings = options.settings()
    from khotan_cli.scaffold.names import check_base_url, check_plug_name
    from khotan_cli.scaffold.plug_component import PlugOptions, add_plug, auth_kinds, check_auth
    from khotan_cli.scaffold.project_component import package_path
    from khotan_cli.settings import require_project

    require_project(settings)
    if not name:
        name = console.ask("Name of the plug", instead="NAME")
    check_plug_name(name)
    if not base_url:
        if yes:
            raise UsageError("Missing --base-url: it has no default", hint="Use --base-url https://api.example.com")
        base_url = console.ask("Base URL of the API", instead="--base-url")
    check_base_url(base_url)
    if not auth:
        can_ask = console.interactive and not yes
        auth = (
            console.choose("Authentication", auth_kinds(), instead="--auth", default="bearer") if can_ask else "bearer"
        )
    check_auth(auth)
    plug_options = PlugOptions(name, base_url, auth, title, auth_param, token_url, authorize_url)
    folder = package_path(settings.package, settings.source)
    look_only = dry_run or diff
    written = add_plug(settings.root, folder, plug_options, force=force, dry_run=look_only)
    written = replace(written, next=[*_migration_step(settings), *written.next])
    heading = f"Plug {name}" if written.written else f"Plug {name} already exists: nothing to write."
    show_written("plug", name, written, title=heading, dry_run=look_only, diff=diff)


def _migration_step(settings: Settings) -> list[str]:
    """`khotan migrate` if the tables of the variables do not exist yet."""
    from khotan_cli.runtime.store import migrate

    try:
        status = migrate.status(settings.database_url, settings.root)
    except KhotanError:
        return ["khotan migrate"]  # the command reports the database error
    return [] if status.up_to_date else ["khotan migrate"]


_PARTS: dict[str, Callable[..., None]] = {
    "inflow": flows.inflow,
    "outflow": flows.outflow,
    "relay": flows.relay,
    "resource": flows.resource,
    "cache": flows.cache,
    "wire": webhooks.wire,
    "catch": webhooks.catch,
    "pass": webhooks.pass_,
    "ingest": webhooks.ingest,
}
for _name, _part in _PARTS.items():
    app.command(_name)(_part)
