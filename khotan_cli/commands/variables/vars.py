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
    list_all: Annotated[bool, typer.Option("--list", help="Show the variables of all plugs.")] = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Show values unmasked.")] = False,
    json_values: Annotated[
        str, typer.Option("--json", metavar="JSON", help="With set: values as a JSON object.", show_default=False)
    ] = "",
    stdin: Annotated[bool, typer.Option("--stdin", help="With set KEY: read the value from standard input.")] = False,
) -> None:
    """Show, set, clear and rotate variables. Values are stored encrypted and shown masked.

    khotan vars shop · khotan vars shop set region=eu · khotan vars shop set token --stdin < token.txt

    khotan vars shop set token (prompts, hidden) · khotan vars shop set --json '{"token": "…"}' · khotan vars shop clear token
    """
    args = words or []
    name, action, keys = (args[0] if args else ""), (args[1] if len(args) > 1 else ""), args[2:]
    if action not in ("", "set", "clear"):
        raise UsageError(f"Unknown action {action!r}: it must be set or clear", hint=_USAGE)
    if action != "set" and (json_values or stdin):
        raise UsageError(f"{'--json VALUE' if json_values else '--stdin'} needs the action set", hint=_USAGE)
    if show_secrets and (action or name == "rotate"):
        raise UsageError("--show-secrets is valid only when showing variables", hint="khotan vars NAME --show-secrets")
    if list_all and name:
        raise UsageError("--list shows every plug's variables", hint=f"To show one plug: khotan vars {name}")
    if name == "rotate" and not action:
        _rotate()
    elif action == "set":
        _set(name, keys, json_values, stdin)
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
            console.line(f"Plug {name} declares no variables." if name else "No plug declares variables.")

    console.result(document, render)


def _set(name: str, words: list[str], json_values: str, stdin: bool) -> None:
    with options.client() as client:
        secret = {v["key"]: v["secret"] for v in client.variables(name)["items"]}
        missing = [v["key"] for v in client.plug(name)["vars"] if v["required"] and not v["isSet"]]
        values = _values(name, words, json_values, stdin, missing)
        done = client.set_variables(name, values)
    if any("=" in word and secret.get(word.partition("=")[0]) for word in words):
        console.warn("The value is now in your shell's history. Use --stdin or the hidden prompt to avoid this.")
    console.result(done, lambda: console.success(f"Stored {', '.join(done['set'])} of {name}, encrypted."))


def _values(name: str, words: list[str], json_values: str, stdin: bool, missing: list[str]) -> dict[str, str]:
    if sum([bool(json_values), stdin, any("=" in w for w in words)]) > 1:
        raise UsageError("KEY=VALUE, --json and --stdin exclude each other", hint=_USAGE)
    if json_values:
        if words:
            raise UsageError("--json and KEY exclude each other", hint=_USAGE)
        return {key: _text(key, value) for key, value in read_object("--json", json_values).items()} or _no_values()
    if stdin:
        if len(words) != 1:
            raise UsageError("--stdin needs exactly one KEY", hint=f"khotan vars {name} set KEY --stdin")
        key = words[0]
        if sys.stdin.isatty():  # reading stdin would wait for its end without a prompt
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
            raise UsageError("All required variables are set: name the KEY to set", hint=_USAGE)
        return _no_values()
    return values


def _no_values() -> dict[str, str]:
    raise UsageError("No variables given to set", hint=_USAGE)


def _text(key: str, value: Any) -> str:
    if isinstance(value, (dict, list)) or value is None:
        raise UsageError(
            f"--json: the value of {key!r} must be a string", code="invalid_json", hint="Use strings as values."
        )
    text = value if isinstance(value, str) else "true" if value is True else "false" if value is False else str(value)
    return _nonempty(key, text)


def _nonempty(key: str, value: str) -> str:
    if not value:
        raise UsageError(
            f"The value of {key!r} is empty",
            code="empty_value",
            hint="Nothing was stored. To remove a value, use clear.",
        )
    return value


def _clear(name: str, keys: list[str]) -> None:
    with options.client() as client:
        done = client.clear_variables(name, keys)

    def render() -> None:
        if done["cleared"]:
            console.success(f"Cleared {', '.join(done['cleared'])} of {name}.")
        else:
            console.line(f"{name} has no stored values to clear.")

    console.result(done, render)


def _rotate() -> None:
    with options.client() as client:
        done = client.rotate_variables()

    def render() -> None:
        console.success(f"{done['rotated']} values re-encrypted; {done['current']} already up to date.")
        for failed in done["failed"]:
            console.warn(f"{failed['plug']}.{failed['key']} cannot be decrypted. Set it again.")

    console.result(done, render)
