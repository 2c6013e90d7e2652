"""`khotan migrate`."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from khotan_cli.console import console
from khotan_cli.errors import UsageError
from khotan_cli.options import options


def migrate(
    push: Annotated[bool, typer.Option("--push", help="Create missing tables directly from the models.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the migration as SQL; do not connect.")] = False,
    show_status: Annotated[bool, typer.Option("--status", help="Show pending migrations; change nothing.")] = False,
) -> None:
    """Apply khotan's migrations to DATABASE_URL. Other tables, and your own Alembic history, are not touched."""
    if sum([push, sql, show_status]) > 1:
        raise UsageError("--push, --sql and --status exclude each other", hint="Give one of them.")
    settings = options.settings()
    if not os.environ.get("DATABASE_URL"):  # only the default database needs a project
        from khotan_cli.settings import require_project

        require_project(settings)
    from khotan_cli.runtime.store import migrate as migrations

    url, root = settings.database_url, settings.root
    if sql:
        text = migrations.sql(url, root)
        console.result({"ok": True, "sql": text}, lambda: console.write(text))
        return
    if show_status:
        status = migrations.status(url, root)
        document = _document(status, []) | ({} if status.up_to_date else {"next": ["khotan migrate"]})
        console.result(document, lambda: _show_status(document))
        return
    with console.status("Migrating …"):
        if push:
            status, applied = migrations.push(url, root), []
        else:
            before, status = migrations.upgrade(url, root)
            applied = before.pending
    document = _document(status, applied)
    up_to_date = f"{status.database} is already up to date (revision {status.current})."
    if not push and not applied:
        document["message"] = up_to_date

    def render() -> None:
        if push:
            console.success(f"{status.database} has every table (revision {status.current}).")
        elif applied:
            for step in applied:
                console.line(f"  {step['revision']}  {step['title']}")
            console.success(f"{status.database} is at revision {status.current}.")
        else:
            console.line(up_to_date)

    console.result(document, render)


def _document(status: Any, applied: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "ok": True,
        "database": status.database,
        "current": status.current,
        "head": status.head,
        "upToDate": status.up_to_date,
        "pending": status.pending,
        "applied": applied,
    }


def _show_status(document: dict[str, Any]) -> None:
    console.line(f"{document['database']}: revision {document['current'] or 'none'}, newest {document['head']}")
    if document["upToDate"]:
        console.success("Up to date.")
        return
    for step in document["pending"]:
        console.line(f"  pending: {step['revision']}  {step['title']}", "yellow")
    console.next_steps(["khotan migrate"])
