"""`khotan init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from khotan_cli.commands.add.views import show_written
from khotan_cli.console import console


def init(
    package: Annotated[
        str, typer.Option(help="Package that will hold the integrations.", show_default="khotan, or <pkg>.khotan")
    ] = "",
    full: Annotated[bool, typer.Option("--full", help="Also write main.py, a runnable FastAPI application.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask questions.")] = False,
) -> None:
    """Write khotan's files into this folder: khotan.toml, the package, .env.template, .env with a fresh secret.

    Detects a new folder, a flat project, a src layout or a FastAPI application. Existing files are never overwritten.
    """
    from khotan_cli.scaffold.detect import detect
    from khotan_cli.scaffold.project_component import init_project

    root = Path.cwd()
    if console.interactive and not yes and not package and not (root / "khotan.toml").exists():
        package = console.ask("Package for the integrations", instead="--package", default=detect(root).package)
    written = init_project(root, package=package, full=full, dry_run=dry_run)
    layout = written.project.layout if written.project else "new"
    title = f"khotan in {root.name} ({layout} project)" if written.written else "All files exist: nothing to write."
    show_written("project", "", written, title=title, dry_run=dry_run)
