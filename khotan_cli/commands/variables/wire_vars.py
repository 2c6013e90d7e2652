"""`khotan wire vars`: the variables of a wire, the signing secret first of all."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from khotan_cli.commands.arguments import read_stdin
from khotan_cli.console import console
from khotan_cli.errors import UnknownName, UsageError
from khotan_cli.options import options

Name = Annotated[str, typer.Argument(help="A wire: its plug, or plug/name.", show_default=False)]


def variables(
    name: Name,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[set [KEY[=VALUE]]… | set KEY --stdin | clear [KEY…]]", show_default=False),
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read the value from stdin: it stays out of the history.")
    ] = False,
) -> None:
    """Show, set or clear the variables of a wire, the signing secret first of all. Two lines are two valid secrets.

    khotan wire vars shop set secret (asks, hidden) · khotan wire vars shop set secret --stdin < secret.txt
    """
    action, *rest = words or ["show"]
    if action == "show" and not rest and not stdin:
        with options.client() as client:
            shown = {"ok": True, "items": client.wire(name)["vars"]}
        console.result(shown, lambda: _vars(shown["items"]))
    elif action == "set":
        with options.client() as client:
            declared = {var["key"]: var for var in client.wire(name)["vars"]}
            done = client.set_wire_vars(name, _values(name, rest, stdin, declared))
        if any("=" in word and declared[word.partition("=")[0]]["secret"] for word in rest):
            console.warn("The value is in your shell's history now; --stdin or the hidden question keep it out.")
        console.result(done, lambda: console.success(f"Stored {', '.join(done['set'])} of {name}, encrypted."))
    elif action == "clear" and not stdin:
        with options.client() as client:
            cleared = client.clear_wire_vars(name, rest)
        gone = ", ".join(cleared["cleared"])
        text = f"Cleared {gone}." if gone else "Nothing was stored: nothing to clear."
        console.result(cleared, lambda: console.line(text))
    else:
        raise UsageError(
            "This is not understood", hint="khotan wire vars NAME [set KEY=VALUE… | set KEY --stdin | set KEY | clear]"
        )


def _values(name: str, words: list[str], stdin: bool, declared: dict[str, Any]) -> dict[str, str]:
    """What is given, read, or asked for: without words what is declared and not set."""
    if stdin and (len(words) != 1 or "=" in words[0]):
        raise UsageError("--stdin is the value of one variable", hint=f"khotan wire vars {name} set KEY --stdin")
    wanted = words or [key for key, var in declared.items() if not var["set"]]
    if not wanted:
        raise UsageError("Every variable has a value: nothing to ask for", hint=f"khotan wire vars {name} set KEY")
    pairs = [word.partition("=") for word in wanted]
    for key, _, _ in pairs:
        if key not in declared:
            raise UnknownName("var", key, declared, where=f"wire {name!r}")
    if stdin:
        return {words[0]: read_stdin().strip()}
    asked = "{0}=VALUE, or {0} --stdin"
    return {
        key: value
        if equals
        else console.ask(f"{name}.{key}", instead=asked.format(key), hidden=declared[key]["secret"])
        for key, equals, value in pairs
    }


def _vars(items: list[dict[str, Any]]) -> None:
    if not items:
        console.line("The wire has no variables.")
        return
    rows = [[v["key"], v["masked"] or "–", v["source"] or "not set", v["env"]] for v in items]
    console.table(["Variable", "Value", "From", "Environment"], rows)
