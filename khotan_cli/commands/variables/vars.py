"""`khotan vars`, also `khotan plug vars`: variables of plugs."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from khotan_cli.commands.arguments import read_object
from khotan_cli.commands.plugs.views import show_vars
from khotan_cli.console import console
from khotan_cli.errors import UsageError
from khotan_cli.options import options

_USAGE = "khotan vars --list | NAME | NAME set KEY=VALUE … | NAME set KEY --stdin | NAME clear [KEY …] | rotate"


def variables(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME [set|clear] [KEY[=VALUE]]...] | rotate", show_default=False),
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Variables of every plug.")] = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Reveal values.")] = False,
    given: Annotated[
        str, typer.Option("--json", metavar="JSON", help="With set: a JSON object.", show_default=False)
    ] = "",
    stdin: Annotated[bool, typer.Option("--stdin", help="With set KEY: the value is standard input.")] = False,
) -> None:
    """Show, set, clear and rotate variables. Values are stored encrypted; they are shown masked.

    khotan vars shop · khotan vars shop set region=eu · khotan vars shop set token --stdin < token.txt

    khotan vars shop set token (asks, hidden) · khotan vars shop set --json '{"token": "…"}' · khotan vars shop clear token
    """
    args = words or []
    name, action, keys = (args[0] if args else ""), (args[1] if len(args) > 1 else ""), args[2:]
    if action not in ("", "set", "clear"):
        raise UsageError(f"{action!r} is neither set nor clear", hint=_USAGE)
    if action != "set" and (given or stdin):
        raise UsageError(f"{'--json VALUE' if given else '--stdin'} belongs to set", hint=_USAGE)
    if show_secrets and (action or name == "rotate"):
        raise UsageError("--show-secrets belongs to showing", hint="khotan vars NAME --show-secrets")
    if list_all and name:
        raise UsageError("--list shows every plug's variables", hint=f"For one plug: khotan vars {name}")
    if name == "rotate" and not action:
        _rotate()
    elif action == "set":
        _set(name, keys, given, stdin)
    elif action == "clear":
        _clear(name, keys)
    else:
        _show(name, show_secrets)


def _show(name: str, reveal: bool) -> None:
    with options.client() as client:
        document = client.variables(name or None, reveal=reveal)

    def render() -> None:
        if document["items"]:
            show_vars(document["items"])
        else:
            console.line(f"Plug {name} declares no variable." if name else "No plug declares a variable.")

    console.result(document, render)


def _set(name: str, words: list[str], given: str, stdin: bool) -> None:
    with options.client() as client:
        secret = {v["key"]: v["secret"] for v in client.variables(name)["items"]}
        missing = [v["key"] for v in client.plug(name)["vars"] if v["required"] and not v["isSet"]]
        values = _values(name, words, given, stdin, missing)
        done = client.set_variables(name, values)
    if any("=" in word and secret.get(word.partition("=")[0]) for word in words):
        console.warn("The value is in your shell's history now; --stdin or the hidden question keep it out.")
    console.result(done, lambda: console.success(f"Stored {', '.join(done['set'])} of {name}, encrypted."))


def _values(name: str, words: list[str], given: str, stdin: bool, missing: list[str]) -> dict[str, str]:
    if sum([bool(given), stdin, any("=" in w for w in words)]) > 1:
        raise UsageError("KEY=VALUE, --json and --stdin exclude each other", hint=_USAGE)
    if given:
        if words:
            raise UsageError("--json names its keys itself", hint=_USAGE)
        return {key: _text(key, value) for key, value in read_object("--json", given).items()} or _nothing()
    if stdin:
        if len(words) != 1:
            raise UsageError("--stdin needs exactly one KEY", hint=f"khotan vars {name} set KEY --stdin")
        key = words[0]
        if sys.stdin.isatty():  # reading on would wait for an end of input without a word
            return {key: _nonempty(key, console.ask(f"{name}.{key}", instead=f"{key} --stdin < FILE", hidden=True))}
        return {key: _nonempty(key, sys.stdin.read().removesuffix("\n").removesuffix("\r"))}
    values: dict[str, str] = {}
    for word in words or missing:
        key, equals, value = word.partition("=")
        if not equals:
            instead = f"{key}=VALUE, or {key} --stdin"
            value = console.ask(f"{name}.{key}", instead=instead, hidden=True)
        values[key] = _nonempty(key, value)
    if not values:
        if not words:
            raise UsageError("Every required variable has a value: nothing to ask for", hint=_USAGE)
        return _nothing()
    return values


def _nothing() -> dict[str, str]:
    raise UsageError("There is nothing to set", hint=_USAGE)


def _text(key: str, value: Any) -> str:
    if isinstance(value, (dict, list)) or value is None:
        raise UsageError(f"--json: the value of {key!r} is not a text", code="invalid_json", hint="Values are strings.")
    text = value if isinstance(value, str) else "true" if value is True else "false" if value is False else str(value)
    return _nonempty(key, text)


def _nonempty(key: str, value: str) -> str:
    if not value:
        raise UsageError(
            f"The value of {key!r} is empty",
            code="empty_value",
            hint="Nothing was stored. To remove a value, clear it.",
        )
    return value


def _clear(name: str, keys: list[str]) -> None:
    with options.client() as client:
        done = client.clear_variables(name, keys)

    def render() -> None:
        if done["cleared"]:
            console.success(f"Cleared {', '.join(done['cleared'])} of {name}.")
        else:
            console.line(f"Nothing was stored of {name}: nothing to clear.")

    console.result(done, render)


def _rotate() -> None:
    with options.client() as client:
        done = client.rotate_variables()

    def render() -> None:
        console.success(f"{done['rotated']} values encrypted anew; {done['current']} were up to date.")
        for failed in done["failed"]:
            console.warn(f"{failed['plug']}.{failed['key']} cannot be decrypted: set it again.")

    console.result(done, render)
