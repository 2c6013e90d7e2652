"""`khotan caches`: show and change cache entries."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from khotan_cli.commands.arguments import read_json
from khotan_cli.commands.times import when
from khotan_cli.console import console
from khotan_cli.errors import UsageError
from khotan_cli.options import options

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Show and change the entries of caches, which flows keep between runs.",
)

Name = Annotated[str, typer.Argument(help="Name of a cache.", show_default=False)]
Key = Annotated[str, typer.Argument(help="Key of an entry.", show_default=False)]
Owner = Annotated[
    str,
    typer.Option(
        help="Owner of the entries: flow, or flow/variant, depending on the cache's scope.", show_default=False
    ),
]


@app.command("list")
def list_caches() -> None:
    """List the caches and their number of entries."""
    with options.client() as client:
        document = client.caches()

    def render() -> None:
        if not document["items"]:
            console.line("There are no caches.")
            _show_flow_state(document)
            console.next_steps([*_state_commands(document), "khotan add cache NAME"])
            return
        rows = [[c["name"], c["scope"], _ttl(c["ttl"]), f"{c['entries']:,}"] for c in document["items"]]
        console.table(["Cache", "Scope", "Time to live", "Entries"], rows)
        _show_flow_state(document)
        console.next_steps(_state_commands(document))

    steps = _state_commands(document)
    console.result({**document, **({"next": steps} if steps else {})}, render)


def _show_flow_state(document: dict[str, Any]) -> None:
    """Show how many cursors and sent records flows keep outside caches."""
    if document["flows"]:
        cursors = f"{document['cursors']:,} cursor{'' if document['cursors'] == 1 else 's'}"
        sent = f"{document['sent']:,} sent record{'' if document['sent'] == 1 else 's'}"
        console.line(f"Flows keep {cursors} and {sent}.")


def _state_commands(document: dict[str, Any]) -> list[str]:
    return [f"khotan flows state {flow}" for flow in document["flows"][:5]]


@app.command()
def show(
    name: Name,
    owner: Owner = "",
    prefix: Annotated[str, typer.Option(help="Only keys with this prefix.", show_default=False)] = "",
) -> None:
    """List the entries of a cache that have not expired."""
    with options.client() as client:
        document = client.cache_entries(name, owner or None, prefix)
    console.result(document, lambda: _entries(document["items"]))


@app.command()
def get(name: Name, key: Key, owner: Owner = "") -> None:
    """Show the value of an entry."""
    with options.client() as client:
        entry = client.cache_entry(name, key, owner)
    console.result(entry, lambda: console.line(json.dumps(entry["value"], ensure_ascii=False, indent=2)))


@app.command("set")
def set_entry(
    name: Name,
    key: Key,
    value: Annotated[str, typer.Argument(help="JSON, @file or -.", show_default=False)],
    ttl: Annotated[
        str, typer.Option(help="Time to live, such as 90s or 6h. Default: the cache's.", show_default=False)
    ] = "",
    owner: Owner = "",
) -> None:
    """Store an entry."""
    try:
        parsed = read_json("VALUE", value)
    except UsageError as exc:
        if re.fullmatch(r"\w[\w .-]*", value):  # looks like plain text
            exc.hint = f"A string needs quotes: '\"{value}\"'"
        raise
    with options.client() as client:
        entry = client.set_cache_entry(name, key, parsed, ttl or None, owner)
    console.result(entry, lambda: console.success(f"Stored {key} in {name}."))


@app.command()
def delete(name: Name, key: Key, owner: Owner = "") -> None:
    """Remove an entry."""
    with options.client() as client:
        done = client.delete_cache_entry(name, key, owner)
    console.result(done, lambda: console.success(f"Removed {key} from {name}."))


@app.command()
def clear(
    name: Name,
    owner: Owner = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove all entries of a cache, or only those of one owner."""
    if not yes and not console.confirm(f"Remove all entries of {name}?", instead="--yes"):
        raise UsageError("Nothing was removed", hint="Answer y, or give --yes.")
    with options.client() as client:
        done = client.clear_cache(name, owner or None)
    console.result(done, lambda: console.success(f"Removed {done['deleted']} entries of {name}."))


def _entries(items: Sequence[dict[str, Any]]) -> None:
    if not items:
        console.line("There are no entries.")
        return
    rows = [
        [
            e["owner"] or "–",
            e["key"],
            json.dumps(e["value"], ensure_ascii=False)[:120],
            when(e["expiresAt"], "never"),
        ]
        for e in items
    ]
    console.table(["Owner", "Key", "Value", "Expires"], rows)


def _ttl(seconds: float | None) -> str:
    return "unlimited" if seconds is None else f"{seconds:g} s"
