"""`khotan wire vars`: the variables of a wire, the signing secret first of all."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from khotan_cli.console import console
from khotan_cli.errors import UsageError
from khotan_cli.options import options

Name = Annotated[str, typer.Argument(help="A wire: its plug, or plug/name.", show_default=False)]


def variables(
    name: Name,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[set KEY=VALUE… | set KEY --stdin | clear [KEY…]]", show_default=False),
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read the value from stdin: it stays out of the history.")
    ] = False,
) -> None:
    """Show, set or clear the variables of a wire, the signing secret first of all. Two lines are two valid secrets."""
    action, *rest = words or ["show"]
    if action == "show" and not rest and not stdin:
        with options.client() as client:
            shown = {"ok": True, "items": client.wire(name)["vars"]}
        console.result(shown, lambda: _vars(shown["items"]))
    elif action == "set" and rest:
        values = _values(rest, stdin)
        with options.client() as client:
            done = client.set_wire_vars(name, values)
        console.result(done, lambda: console.success(f"Stored {', '.join(done['set'])} of {name}, encrypted."))
    elif action == "clear" and not stdin:
        with options.client() as client:
            cleared = client.clear_wire_vars(name, rest)
        gone = ", ".join(cleared["cleared"])
        text = f"Cleared {gone}." if gone else "Nothing was stored: nothing to clear."
        console.result(cleared, lambda: console.line(text))
    else:
        raise UsageError(
            "This is not understood", hint="khotan wire vars NAME [set KEY=VALUE… | set KEY --stdin | clear]"
        )


def _values(words: list[str], stdin: bool) -> dict[str, str]:
    if stdin:
        if len(words) != 1 or "=" in words[0]:
            raise UsageError("--stdin is the value of one variable", hint="khotan wire vars NAME set KEY --stdin")
        return {words[0]: sys.stdin.read().strip()}
    pairs = [word.partition("=") for word in words]
    if not all(equals and key for key, equals, _ in pairs):
        raise UsageError("A variable is given as KEY=VALUE", hint="Or KEY --stdin, which stays out of the history.")
    return {key: value for key, _, value in pairs}


def _vars(items: list[dict[str, Any]]) -> None:
    if not items:
        console.line("The wire has no variables.")
        return
    rows = [[v["key"], v["masked"] or "–", v["source"] or "not set", v["env"]] for v in items]
    console.table(["Variable", "Value", "From", "Environment"], rows)
