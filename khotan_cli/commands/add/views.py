"""Terminal output of written files."""

from __future__ import annotations

from typing import Any

from khotan_cli.console import console
from khotan_cli.scaffold.project_component import Written

_MARKS = {
    "create": ("+", "green"),
    "update": ("~", "cyan"),
    "overwrite": ("~", "yellow"),
    "same": ("=", "dim"),
    "keep": ("=", "yellow"),
    "conflict": ("!", "red"),
}
_WORDS = {"keep": "kept: your version differs", "same": "unchanged", "conflict": "would overwrite your changes"}


def show_written(
    component: str, name: str, written: Written, *, title: str, dry_run: bool = False, diff: bool = False
) -> None:
    """Show the result of writing a component."""
    document: dict[str, Any] = {
        "ok": True,
        "component": component,
        "name": name,
        "dryRun": dry_run,
        "files": [{**change.to_json(), **({"diff": change.diff()} if diff else {})} for change in written.changes],
        "notes": list(written.notes),
        "next": [step for step in written.next if "NAME" not in step],
    }

    def render() -> None:
        console.line(f"{title}{' — dry run, nothing written' if dry_run else ''}", "bold")
        for change in written.changes:
            mark, style = _MARKS[change.action]
            word = _WORDS.get(change.action)
            console.line(f"  {mark} {change.path}{f'  ({word})' if word else ''}", style)
        if diff:
            from rich.syntax import Syntax

            for change in written.changes:
                if change.diff():
                    console.draw(Syntax(change.diff(), "diff", background_color="default", word_wrap=True))
        for note in written.notes:
            console.line(f"! {note}", "yellow")
        console.line("Next:")
        console.next_steps(written.next)

    console.result(document, render)
