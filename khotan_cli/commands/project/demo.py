"""`khotan demo`: the main use of khotan, step by step."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from khotan_cli.console import console

if TYPE_CHECKING:
    from khotan_cli.sandbox.tour import Step


def demo(
    folder: Annotated[
        str, typer.Option("--dir", metavar="DIR", help="Folder of the project.", show_default="khotan-demo[-N]")
    ] = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Loopback port of the sandbox API.", show_default="a free one")
    ] = 0,
    serve: Annotated[
        bool, typer.Option("--serve", help="Only serve the sandbox API, for the project in --dir, until Ctrl-C.")
    ] = False,
) -> None:
    """Show the main use of khotan: declare an API, check the declaration against the live service, correct it, check again.

    Works without a network: the service is a bundled sandbox API. The project is kept, so that you can continue with it.
    """
    if serve:
        _serve(folder, port)
    else:
        _show_demo(folder, port)


def _serve(folder: str, port: int) -> None:
    from khotan_cli.sandbox.serve import serve
    from khotan_cli.sandbox.tour import port_of

    if folder and not port:
        port = port_of(Path(folder))

    def ready(url: str) -> None:
        document = {"ok": True, "url": url, "docs": f"{url}/docs", "openapi": f"{url}/openapi.json"}
        console.result(document, lambda: console.success(f"The sandbox listens on {url} (documentation: {url}/docs)"))
        console.note("Press Ctrl-C to stop.")

    serve(port, ready)


def _show_demo(wanted: str, port: int) -> None:
    from khotan_cli.sandbox.tour import make_folder, run, sandbox, steps

    reports: list[dict[str, Any]] = []
    if not console.machine:
        console.line("khotan demo", "bold")
        console.line(
            "An API's documentation and its behaviour often differ. This demo shows how khotan finds the differences."
        )
    with sandbox(port) as url:
        folder = make_folder(wanted)
        try:
            demo_steps = steps(url)
            _show_sandbox(url, len(demo_steps) + 1)
            for number, step in enumerate(demo_steps, start=2):
                _show_step(step, number, len(demo_steps) + 1)
                outcome = run(step, folder, capture=console.machine)
                reports.append(
                    {
                        "step": step.name,
                        "why": step.why,
                        "command": step.typed or None,
                        "exitCode": outcome.exit_code,
                        "seconds": round(outcome.seconds, 3),
                        "result": outcome.document,
                    }
                )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # an incomplete project is useless
            raise
    program = _program()
    serving = f"{program} demo --serve --dir {folder}"
    trying = f"{program} -C {folder} plug shop --endpoint list_orders --compare"
    document = {"ok": True, "project": str(folder), "sandbox": url, "steps": reports, "next": [serving, trying]}
    console.result(document, lambda: _close(folder, serving, trying))


def _show_sandbox(url: str, total: int) -> None:
    if console.machine:
        return
    _heading(1, total, "Start an API to work with")
    console.line(
        "A small commerce service, bundled with khotan, on loopback. It stands for the service you want to integrate."
    )
    console.line(f"$ python -m khotan_cli.sandbox --port {url.rpartition(':')[2]}", "bold cyan")
    console.success(f"{url}/docs")


def _show_step(step: Step, number: int, total: int) -> None:
    if console.machine:
        return
    _heading(number, total, step.title)
    console.line(step.why)
    if step.shown:
        from rich.syntax import Syntax

        language, text = step.shown
        console.draw(Syntax(text.rstrip(), language, theme="ansi_dark", background_color="default"))
    if step.typed:
        console.line(f"$ {step.typed}", "bold cyan")
    sys.stdout.flush()  # the command's own output follows


def _heading(number: int, total: int, title: str) -> None:
    from rich.rule import Rule

    console.line()
    console.draw(Rule(f"[bold]{number}/{total}[/bold]  {title}", align="left", style="dim"))


def _close(folder: Path, serving: str, trying: str) -> None:
    console.line()
    console.success(f"Done. The project is in {folder}; the sandbox has stopped.")
    console.line("To continue, start the sandbox again in another terminal, then correct the orders yourself:")
    console.next_steps([serving, trying])


def _program() -> str:
    """The command that starts this khotan from the current folder."""
    executable = Path(sys.executable).with_name("khotan")
    on_path = shutil.which("khotan")
    if on_path is None or Path(on_path).resolve() != executable.resolve():
        if executable.is_relative_to(Path.cwd()):
            return str(executable.relative_to(Path.cwd()))
        if executable.exists():
            return str(executable)
        return f"{sys.executable} -m khotan_cli"
    return "khotan"
