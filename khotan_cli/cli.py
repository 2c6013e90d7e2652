"""The root of the command line: the table of lazily imported commands, global options, and the error boundary."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from khotan_cli import __version__
from khotan_cli.console import console
from khotan_cli.error_codes import EXIT_INTERRUPTED
from khotan_cli.errors import KhotanError, UnknownName, UsageError
from khotan_cli.options import options

EXIT_BROKEN_PIPE = 141


class Entry(NamedTuple):
    """A command: `target` is module:attribute of a function or a Typer app."""

    target: str
    help: str


COMMANDS: dict[str, Entry] = {
    "init": Entry("khotan_cli.commands.project.init:init", "Write khotan's files into a project."),
    "add": Entry("khotan_cli.commands.add.plug:app", "Write a component into the project: a plug, a flow, …"),
    "plug": Entry(
        "khotan_cli.commands.plugs.plug:plug", "List plugs, call them, check their contract against the live API."
    ),
    "vars": Entry(
        "khotan_cli.commands.variables.vars:variables", "Show, set, clear and rotate the variables of plugs."
    ),
    "migrate": Entry("khotan_cli.commands.project.migrate:migrate", "Apply khotan's migrations to DATABASE_URL."),
    "flows": Entry("khotan_cli.commands.flows.flows:app", "List flows, start them, watch and repair their runs."),
    "wire": Entry("khotan_cli.commands.wires.wire:app", "Set up webhooks; show, send and replay their events."),
    "mappings": Entry(
        "khotan_cli.commands.resources.mappings:app",
        "Look up and change the ids that a record has in different systems.",
    ),
    "caches": Entry("khotan_cli.commands.resources.caches:app", "Show and change the entries of caches."),
    "worker": Entry("khotan_cli.commands.project.worker:worker", "Run flows and their schedules, without a server."),
    "dev": Entry("khotan_cli.commands.project.dev:dev", "Serve the app for development, with automatic reload."),
    "doctor": Entry("khotan_cli.commands.project.doctor:doctor", "Check the setup and show what to do."),
    "demo": Entry("khotan_cli.commands.project.demo:demo", "Show the main use of khotan with a bundled sandbox API."),
}
ALIASES = {"probe": "plug"}


class LazyGroup(TyperGroup):
    """Lists commands from the table and imports the module of the invoked command only."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS:
            raise UnknownName("command", name, COMMANDS, code="invalid_input")
        command = load_command(name)
        if console.machine and not args[1:] and getattr(command, "commands", None):
            raise _needs_command(f"khotan {name}", command.commands)
        return name, command, args[1:]


def _needs_command(path: str, known: Iterable[str]) -> UsageError:
    """The error for a group without a command, which replaces the group's help in JSON output."""
    names = sorted(known)
    return UsageError(
        f"{path} needs a command",
        hint=f"Use one of {', '.join(names)}.",
        next=[f"{path} --help"],
        details={"known": names},
    )


def load_command(name: str) -> Any:
    """Import a command and wrap a plain function in a Typer app."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(name)(target)
        target = single
    command = typer.main.get_command(target)
    command.name = name
    return command


app = typer.Typer(
    name="khotan",
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Typical order: init → add plug → migrate → vars set → plug NAME --endpoint E --compare → add inflow → dev.",
)


@app.callback()
def root(
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Use the API of a running server.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, as in a pipe.")] = False,
    folder: Annotated[str, typer.Option("--cwd", "-C", metavar="DIR", help="Run in another folder.")] = "",
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Integrations for Python applications: typed API clients, checked against the live service."""


def _placeholder() -> None:
    """Placeholder for a command in the list; LazyGroup loads the real one."""


for _name, _entry in COMMANDS.items():
    app.command(_name, help=_entry.help)(_placeholder)


def split_globals(args: Sequence[str]) -> list[str]:
    """Remove the global options anywhere before `--` and store them in `options` and `console`.

    `vars NAME set --json VALUE` keeps its own --json.
    """
    rest: list[str] = []
    remaining = list(args)
    while remaining:
        arg = remaining.pop(0)
        if arg == "--":
            return [*rest, arg, *remaining]
        name, equals, value = arg.partition("=")
        if name in ("--url", "--cwd", "-C"):
            if not equals and not remaining:
                raise UsageError(f"{name} needs a value", hint=f"{name} VALUE")
            text = value if equals else remaining.pop(0)
            options.url, options.cwd = (text, options.cwd) if name == "--url" else (options.url, text)
        elif arg == "--json" and not ("set" in rest and "vars" in rest):
            console.json_requested = True
        else:
            rest.append(arg)
    return rest


def normalize(args: list[str]) -> list[str]:
    """Map `plug vars …` to `vars …`, and old command names to current ones."""
    if args and args[0] in ALIASES:
        args = [ALIASES[args[0]], *args[1:]]
    return args[1:] if args[:2] == ["plug", "vars"] else args


def run(argv: Sequence[str]) -> int:
    """Run a command line; returns the exit code. Raises nothing."""
    options.reset()
    try:
        args = normalize(split_globals(argv))
        if os.environ.get("KHOTAN_OUTPUT", "") not in ("", "json", "text"):
            raise UsageError("Invalid KHOTAN_OUTPUT: it must be json or text", hint="Correct or unset it.")
        if options.cwd:
            _enter(options.cwd)
        if args == ["--version"]:
            console.result({"ok": True, "version": __version__}, lambda: console.write(f"khotan {__version__}\n"))
            return 0
        if not args and console.machine:
            raise _needs_command("khotan", COMMANDS)
        done = app(args, standalone_mode=False)
        if done == EXIT_INTERRUPTED:  # Typer's exit code for Ctrl-C
            raise KeyboardInterrupt
        return done if isinstance(done, int) else 0
    except KhotanError as exc:
        console.error(exc)
        return exc.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.error(KhotanError("Interrupted", code="interrupted", hint="No operation was left incomplete."))
        return EXIT_INTERRUPTED
    except typer.Exit as exc:
        return exc.exit_code
    except typer.TyperException as exc:
        return _usage(exc)
    except BrokenPipeError:
        # The reader of the output has gone: write nothing more, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as exc:
        return _unexpected(exc)


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as exc:
        raise UsageError(f"--cwd {folder}: {exc.strerror}", hint="Use an existing folder.") from None


def _usage(exc: typer.TyperException) -> int:
    """Show one of Typer's usage errors as a KhotanError."""
    context = getattr(exc, "ctx", None)
    if type(exc).__name__ == "NoArgsIsHelpError":
        console.write(exc.format_message() + "\n")
        return 0
    path = context.command_path if context is not None else "khotan"
    error = UsageError(exc.format_message(), hint=f"See {path} --help.")
    console.error(error)
    return error.exit_code


def _unexpected(exc: Exception) -> int:
    if os.environ.get("KHOTAN_TRACEBACK") == "1":
        import traceback

        sys.stderr.write("".join(traceback.format_exception(exc)))
    error = KhotanError(
        f"Unexpected error ({type(exc).__name__})",
        code="internal_error",
        hint="Set KHOTAN_TRACEBACK=1 to see the traceback, and report the error.",
    )
    console.error(error)
    return error.exit_code


def main() -> None:
    """Entry point of the `khotan` command."""
    # Keeps httpx from importing its own command line, with click and Rich.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    sys.exit(run(sys.argv[1:]))
