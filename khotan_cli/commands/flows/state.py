"""`khotan flows state`: the state that a flow keeps between runs."""

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
            help="State to reset: cursor:NAME, sent:DESTINATION, sent:DESTINATION:KEY, or all. Repeatable.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --reset: do not ask for confirmation.")] = False,
    destination: Annotated[str, typer.Option(help="Show only this destination.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of records per destination.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Number of records to skip.")] = 0,
) -> None:
    """Show or reset the state that a flow keeps between runs: its cursors, and the records that it sent."""
    if reset:
        _reset(flow, reset, yes)
        return
    if yes:
        raise UsageError("--yes needs --reset", hint="Add --reset.")
    with options.client() as client:
        document = client.flow_state(flow, destination or None, limit, offset)
    console.result(document, lambda: _show(document))


def _reset(flow: str, what: list[str], yes: bool) -> None:
    if not yes and not console.confirm(f"Reset {', '.join(what)} of flow {flow}?", instead="--yes"):
        raise UsageError("Nothing was reset", hint="Answer y, or give --yes.")
    with options.client() as client:
        done = client.reset_flow_state(flow, what)
    text = f"Reset {_number(done['cursors'], 'cursor')} and {_number(done['records'], 'sent record')} of flow {flow}."
    console.result(done, lambda: console.success(text))


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _show(document: dict[str, Any]) -> None:
    if not document["cursors"] and not document["destinations"]:
        console.line(f"Flow {document['flow']} has no cursors and no sent records.")
        return
    if document["cursors"]:
        rows = [
            [cursor["name"], json.dumps(cursor["value"], ensure_ascii=False)[:120], when(cursor["updatedAt"])]
            for cursor in document["cursors"]
        ]
        console.table(["Cursor", "Value", "Stored"], rows)
    for sent in document["destinations"]:
        location = " (stored in the mappings)" if sent["keptIn"] == "mappings" else ""
        console.line(f"{sent['name']}: {_number(sent['records'], 'record')} sent{location}", "bold")
        if sent["items"]:
            rows = [[item["key"], item["ref"] or "–", when(item["updatedAt"])] for item in sent["items"]]
            console.table(["Key", "Id there", "Stored"], rows, whole=["Key"])
        remaining = sent["records"] - document["offset"] - len(sent["items"])
        if sent["items"] and remaining > 0:
            console.line(
                f"{remaining:,} more are not shown: --offset {document['offset'] + len(sent['items'])}.", "dim"
            )
