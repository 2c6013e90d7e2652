"""`khotan flows state`: what a flow keeps from run to run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from khotan_cli.commands.times import when
from khotan_cli.console import console
from khotan_cli.errors import UsageError
from khotan_cli.options import options


def state(
    flow: Annotated[str, typer.Argument(help="Name of a flow.", show_default=False)],
    reset: Annotated[
        list[str] | None,
        typer.Option(
            help="Forget cursor:NAME, sent:DESTINATION, sent:DESTINATION:KEY, or all. Can be given several times.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --reset: do not ask.")] = False,
    destination: Annotated[str, typer.Option(help="Show this destination only.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Records to show of each destination.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Records to pass over.")] = 0,
) -> None:
    """Show or reset what a flow keeps from run to run: its cursors, and the records that it sent."""
    if reset:
        _reset(flow, reset, yes)
        return
    if yes:
        raise UsageError("--yes has a meaning only with --reset", hint="Add --reset.")
    with options.client() as client:
        document = client.flow_state(flow, destination or None, limit, offset)
    console.result(document, lambda: _show(document))


def _reset(flow: str, what: list[str], yes: bool) -> None:
    if not yes and not console.confirm(f"Reset {', '.join(what)} of flow {flow}?", instead="--yes"):
        raise UsageError("Nothing was reset", hint="Answer y, or give --yes.")
    with options.client() as client:
        done = client.reset_flow_state(flow, what)
    text = f"Flow {flow} forgot {_number(done['cursors'], 'cursor')} and {_number(done['records'], 'sent record')}."
    console.result(done, lambda: console.success(text))


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _show(document: dict[str, Any]) -> None:
    if not document["cursors"] and not document["destinations"]:
        console.line(f"Flow {document['flow']} keeps no cursor, and it has sent no record.")
        return
    if document["cursors"]:
        rows = [
            [cursor["name"], json.dumps(cursor["value"], ensure_ascii=False)[:120], when(cursor["updatedAt"])]
            for cursor in document["cursors"]
        ]
        console.table(["Cursor", "Value", "Stored"], rows)
    for one in document["destinations"]:
        place = " (kept in the mappings)" if one["keptIn"] == "mappings" else ""
        console.line(f"{one['name']}: {_number(one['records'], 'record')} sent{place}", "bold")
        if one["items"]:
            rows = [[item["key"], item["ref"] or "–", when(item["updatedAt"])] for item in one["items"]]
            console.table(["Key", "Id there", "Stored"], rows, whole=["Key"])
        left = one["records"] - document["offset"] - len(one["items"])
        if one["items"] and left > 0:
            console.line(f"{left:,} more are not shown: --offset {document['offset'] + len(one['items'])}.", "dim")
