"""`khotan mappings`: which systems' ids belong together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from khotan_cli.commands.times import when
from khotan_cli.console import console
from khotan_cli.errors import KhotanError, UsageError
from khotan_cli.options import options

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Look up and change which systems' ids belong together.",
)

Resource = Annotated[str, typer.Argument(help="Name of a resource.", show_default=False)]
Key = Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="The key, each part a word.")]
Ref = Annotated[list[str] | None, typer.Option("--ref", metavar="PLUG=ID", help="A plug's id.", show_default=False)]
Replace = Annotated[bool, typer.Option("--replace", help="Keep no other plug's id.")]


@app.command("list")
def list_mappings(
    resource: Annotated[str, typer.Argument(help="Default: show the resources.", show_default=False)] = "",
    search: Annotated[str, typer.Option(help="Text in the key or an id.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    offset: Annotated[int, typer.Option(min=0, help="Pass over so many.")] = 0,
) -> None:
    """The resources, or the mappings of one in the order of their keys."""
    with options.client() as client:
        document = client.mappings(resource, search, limit, offset) if resource else client.resources()
    console.result(document, lambda: _show(document) if resource else _show_resources(document["items"]))


@app.command()
def lookup(resource: Resource, key: Key = None, ref: Ref = None) -> None:
    """One mapping, by its key or by a plug's id."""
    asked = _which(resource, key, ref)
    with options.client() as client:
        found = client.lookup_mappings(asked)["items"]
    if not found:
        raise KhotanError(
            f"{resource} has no mapping for {_said(key, ref)}",
            code="unknown_mapping",
            hint="Search for a part of it.",
            next=[f"khotan mappings list {resource}"],
        )
    console.result({"ok": True, **found[0]}, lambda: _show({"items": found, "total": 1}))


@app.command()
def upsert(
    resource: Resource,
    key: Key = None,
    ref: Ref = None,
    replace: Replace = False,
    file: Annotated[
        str, typer.Option(metavar="FILE", help='JSON lines: {"key": …, "refs": {…}}.', show_default=False)
    ] = "",
) -> None:
    """Tie ids to a key, or to many from a file; all or none."""
    if bool(file) == bool(key):
        raise UsageError("Give a KEY with --ref, or --file", hint="khotan mappings upsert products SKU-1 --ref shop=42")
    if key and not ref:
        raise UsageError("Which ids?", hint="--ref PLUG=ID")
    asked: dict[str, Any] = {"resource": resource, "replace": replace}
    asked |= {"items": _lines(file)} if file else {"key": key, "refs": _refs(ref)}
    with options.client() as client:
        done = client.upsert_mappings(asked)
    text = f"{done['created']} created, {done['updated']} updated, {done['unchanged']} unchanged."
    console.result(done, lambda: console.success(text))


@app.command()
def update(resource: Resource, key: Key = None, ref: Ref = None, replace: Replace = False) -> None:
    """Change ids of a mapping that is there."""
    if not key or not ref:
        raise UsageError("Give KEY and --ref", hint="khotan mappings update products SKU-1 --ref shop=42")
    with options.client() as client:
        found = client.lookup_mappings({"resource": resource, "key": key})["items"]
        if not found:
            raise KhotanError(
                f"{resource} has no mapping for {_said(key, None)}: nothing was changed",
                code="unknown_mapping",
                hint="upsert creates one.",
            )
        done = client.change_mapping(found[0]["id"], _refs(ref), replace=replace)
    changed = done["refs"] != found[0]["refs"]
    nothing = f"{resource} {_said(key, None)} had these ids already: nothing was changed."
    document = {**done, "changed": changed, **({} if changed else {"message": nothing})}
    console.result(document, lambda: _show({"items": [done], "total": 1}) if changed else console.line(nothing))


@app.command()
def delete(
    resource: Resource,
    key: Key = None,
    ref: Ref = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a mapping; the systems keep their records."""
    with options.client() as client:
        found = client.lookup_mappings(_which(resource, key, ref))["items"]
        if not found:
            raise KhotanError(
                f"{resource} has no mapping for {_said(key, ref)}: nothing was removed",
                code="unknown_mapping",
                hint="Search for a part of it.",
                next=[f"khotan mappings list {resource}"],
            )
        if not yes and not console.confirm(f"Remove the mapping of {' / '.join(found[0]['key'])}?", instead="--yes"):
            raise UsageError("Nothing was removed", hint="Answer y, or give --yes.")
        done = client.delete_mapping(found[0]["id"])
    console.result(done, lambda: console.success(f"Removed {' / '.join(found[0]['key'])}."))


def _which(resource: str, key: list[str] | None, ref: list[str] | None) -> dict[str, Any]:
    if bool(key) == bool(ref):
        raise UsageError("Give a KEY, or one --ref PLUG=ID", hint=f"khotan mappings lookup {resource} SKU-1")
    if key:
        return {"resource": resource, "key": key}
    refs = _refs(ref)
    if len(refs) != 1:
        raise UsageError("Give one --ref", hint="One id says which mapping it is.")
    plug, value = next(iter(refs.items()))
    return {"resource": resource, "plug": plug, "ref": value}


def _refs(given: list[str] | None) -> dict[str, str]:
    refs: dict[str, str] = {}
    for text in given or []:
        plug, equals, value = text.partition("=")
        if not plug or not equals or not value:
            raise UsageError(f"--ref {text!r} is not PLUG=ID", hint="--ref shop=42")
        refs[plug] = value
    return refs


def _lines(file: str) -> list[Any]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(
            f"{file} cannot be read: {exc.strerror if isinstance(exc, OSError) else 'not UTF-8'}",
            code="file_not_readable",
            hint="A UTF-8 file of JSON lines.",
        ) from None
    items: list[Any] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            items.append(json.loads(line))
        except ValueError:
            raise UsageError(f"{file}:{number} is not JSON", code="invalid_json", hint="One object per line.") from None
    if not items:
        raise UsageError(f"{file} holds no mapping", hint='One per line: {"key": "SKU-1", "refs": {"shop": "42"}}')
    return items


def _said(key: list[str] | None, ref: list[str] | None) -> str:
    return repr(" / ".join(key)) if key else (ref or [""])[0]


def _show_resources(items: list[dict[str, Any]]) -> None:
    if not items:
        console.line("There is no resource yet.")
        console.next_steps(["khotan add resource NAME"])
        return
    rows = [
        [
            r["name"],
            ", ".join(r["connectField"]),
            ", ".join(f"{p}: {f}" for p, f in r["plugs"].items()),
            f"{r['mappings']:,}",
        ]
        for r in items
    ]
    console.table(["Resource", "Key", "Ids", "Mappings"], rows)


def _show(document: dict[str, Any]) -> None:
    items = document["items"]
    if not items:
        console.line("There is no such mapping.")
        return
    rows = [
        [" / ".join(m["key"]), ", ".join(f"{p}={r}" for p, r in m["refs"].items()), when(m["updatedAt"])] for m in items
    ]
    console.table(["Key", "Ids", "Updated"], rows, whole=["Key"])
    if document["total"] > len(items):
        console.line(f"{document['total'] - len(items)} more are not shown.", "dim")
