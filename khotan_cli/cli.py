"""The root of the command line: a table of commands imported when invoked, global options, the one error boundary."""

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
    """A command: `where` is module:attribute of a function or a Typer app."""

    where: str
    help: str


COMMANDS: dict[str, Entry] = {
    "init": Entry("khotan_cli.commands.project.init:init", "Write khotan's files into a project."),
    "add": Entry("khotan_cli.commands.add.plug:app", "Write a component into the project: a plug, a flow, …"),
    "plug": Entry(
        "khotan_cli.commands.plugs.plug:plug", "List plugs, call them, prove their contract against the live API."
    ),
    "vars": Entry(
        "khotan_cli.commands.variables.vars:variables", "Show, set, clear and rotate the variables of plugs."
    ),
    "migrate": Entry("khotan_cli.commands.project.migrate:migrate", "Apply khotan's migrations to DATABASE_URL."),
    "flows": Entry("khotan_cli.commands.flows.flows:app", "List flows, start them, watch and repair their runs."),
    "wire": Entry("khotan_cli.commands.wires.wire:app", "Set up webhooks, look at their events, send and replay them."),
    "mappings": Entry(
        "khotan_cli.commands.resources.mappings:app", "Look up and change which systems' ids belong together."
    ),
    "caches": Entry("khotan_cli.commands.resources.caches:app", "Look at and change what flows keep from run to run."),
    "worker": Entry("khotan_cli.commands.project.worker:worker", "Run flows and their schedules, without a server."),
    "dev": Entry("khotan_cli.commands.project.dev:dev", "Serve the app for development, with reload."),
    "doctor": Entry("khotan_cli.commands.project.doctor:doctor", "Check the set-up, and say what to do."),
    "demo": Entry("khotan_cli.commands.project.demo:demo", "See the main job run, on a bundled sandbox API."),
}
ALIASES = {"probe": "plug"}


class LazyGroup(TyperGroup):
    """Lists commands from the table; imports a command's module when it is the one that was typed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS:
            raise UnknownName("command", name, COMMANDS, code="invalid_input")
        command = load_command(name)
        if console.machine and not args[1:] and getattr(command, "commands", None):
            raise _needs_command(f"khotan {name}", command.commands)
        return name, command, args[1:]


def _needs_command(path: str, known: Iterable[str]) -> UsageError:
    """For a machine, which has no use for the help of a group."""
    names = sorted(known)
    return UsageError(
        f"{path} needs a command",
        hint=f"One of {', '.join(names)}.",
        next=[f"{path} --help"],
        details={"known": names},
    )


def load_command(name: str) -> Any:
    """Import a command and make it one that Typer can run."""
    module, _, attribute = COMMANDS[name].where.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(name)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    return command


app = typer.Typer(
    name="khotan",
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The way: init → add plug → migrate → vars set → plug NAME --endpoint E --compare → add inflow → dev.",
)


@app.callback()
def root(
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Talk to a running server instead.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, as in a pipe.")] = False,
    folder: Annotated[str, typer.Option("--cwd", "-C", metavar="DIR", help="Work in another folder.")] = "",
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Integrations for Python applications: typed API clients, proven against the live service."""


def _placeholder() -> None:
    """Stands for a command in the list; LazyGroup puts the real one in its place."""


for _name, _entry in COMMANDS.items():
    app.command(_name, help=_entry.help)(_placeholder)


def split_globals(args: Sequence[str]) -> list[str]:
    """Take the global options out, wherever they stand before `--`, and keep them in `options` and `console`.

    `vars NAME set --json VALUE` has an option of that name of its own.
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
            console.json_asked = True
        else:
            rest.append(arg)
    return rest


def normalize(args: list[str]) -> list[str]:
    """`plug vars …` is `vars …`; old names are today's."""
    if args and args[0] in ALIASES:
        args = [ALIASES[args[0]], *args[1:]]
    return args[1:] if args[:2] == ["plug", "vars"] else args


def run(argv: Sequence[str]) -> int:
    """Run a command line; returns the exit code. Nothing is raised past this boundary."""
    options.reset()
    try:
        args = normalize(split_globals(argv))
        if os.environ.get("KHOTAN_OUTPUT", "") not in ("", "json", "text"):
            raise UsageError("KHOTAN_OUTPUT is neither json nor text", hint="Correct or unset it.")
        if options.cwd:
            _enter(options.cwd)
        if args == ["--version"]:
            console.result({"ok": True, "version": __version__}, lambda: console.write(f"khotan {__version__}\n"))
            return 0
        if not args and console.machine:
            raise _needs_command("khotan", COMMANDS)
        done = app(args, standalone_mode=False)
        if done == EXIT_INTERRUPTED:  # Typer's word for Ctrl-C
            raise KeyboardInterrupt
        return done if isinstance(done, int) else 0
    except KhotanError as exc:
        console.error(exc)
        return exc.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.error(KhotanError("Interrupted", code="interrupted", hint="Nothing was left half done."))
        return EXIT_INTERRUPTED
    except typer.Exit as exc:
        return exc.exit_code
    except typer.TyperException as exc:
        return _usage(exc)
    except BrokenPipeError:
        # Who read the output has gone; say no more, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as exc:
        return _unexpected(exc)


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as exc:
        raise UsageError(f"--cwd {folder}: {exc.strerror}", hint="Name a folder that is there.") from None


def _usage(exc: typer.TyperException) -> int:
    """Typer's own usage errors in our shape."""
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
        f"Something unexpected went wrong ({type(exc).__name__})",
        code="internal_error",
        hint="KHOTAN_TRACEBACK=1 shows where; please report it.",
    )
    console.error(error)
    return error.exit_code


def main() -> None:
    """Entry point of the `khotan` command."""
    # httpx imports the module of its own command, with click and Rich, unless that cannot be imported.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    sys.exit(run(sys.argv[1:]))
