"""`khotan wire vars`: the variables of a wire, such as its signing secret."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from khotan_cli.commands.arguments import read_stdin
from khotan_cli.console import console
from khotan_cli.errors import UnknownName, UsageError
from khotan_cli.options import options

Name = Annotated[str, typer.Argument(help="Name of a wire: plug, or plug/name.", show_default=False)]


def variables(
    name: Name,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[set [KEY[=VALUE]]… | set KEY --stdin | clear [KEY…]]", show_default=False),
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read the value from stdin, which keeps it out of the shell's history.")
    ] = False,
) -> None:
    """Show, set or clear the variables of a wire, such as its signing secret. Two lines set two valid secrets.

    khotan wire vars shop set secret (prompts, hidden) · khotan wire vars shop set secret --stdin < secret.txt
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
            console.warn("The value is now in your shell's history. Use --stdin or the hidden prompt to avoid this.")
        console.result(done, lambda: console.success(f"Stored {', '.join(done['set'])} of {name}, encrypted."))
    elif action == "clear" and not stdin:
        with options.client() as client:
            cleared = client.clear_wire_vars(name, rest)
        keys = ", ".join(cleared["cleared"])
        text = f"Cleared {keys}." if keys else "There are no stored values to clear."
        console.result(cleared, lambda: console.line(text))
    else:
        raise UsageError(
            "Invalid arguments", hint="khotan wire vars NAME [set KEY=VALUE… | set KEY --stdin | set KEY | clear]"
        )


def _values(name: str, words: list[str], stdin: bool, declared: dict[str, Any]) -> dict[str, str]:
    """Values from KEY=VALUE, stdin or a prompt. Without words: a prompt for each declared variable that is not set."""
    if stdin and (len(words) != 1 or "=" in words[0]):
        raise UsageError("--stdin needs exactly one KEY", hint=f"khotan wire vars {name} set KEY --stdin")
    assignments = words or [key for key, var in declared.items() if not var["set"]]
    if not assignments:
        raise UsageError("All variables are set: name the KEY to set", hint=f"khotan wire vars {name} set KEY")
    pairs = [word.partition("=") for word in assignments]
    for key, _, _ in pairs:
        if key not in declared:
            raise UnknownName("var", key, declared, where=f"wire {name!r}")
    if stdin:
        return {words[0]: read_stdin().strip()}
    instead = "{0}=VALUE, or {0} --stdin"
    return {
        key: value
        if equals
        else console.ask(f"{name}.{key}", instead=instead.format(key), hidden=declared[key]["secret"])
        for key, equals, value in pairs
    }


def _vars(items: list[dict[str, Any]]) -> None:
    if not items:
        console.line("The wire has no variables.")
        return
    rows = [[v["key"], v["masked"] or "–", v["source"] or "not set", v["env"]] for v in items]
    console.table(["Variable", "Value", "From", "Environment"], rows)
