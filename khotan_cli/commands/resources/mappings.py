"""`khotan mappings`: the ids that a record has in different systems."""

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
    help="Look up and change the ids that a record has in different systems.",
)

Resource = Annotated[str, typer.Argument(help="Name of a resource.", show_default=False)]
Key = Annotated[list[str] | None, typer.Argument(metavar="[KEY]...", help="Key, one word for each part.")]
Ref = Annotated[list[str] | None, typer.Option("--ref", metavar="PLUG=ID", help="Id in a plug.", show_default=False)]
Replace = Annotated[bool, typer.Option("--replace", help="Remove the ids of other plugs.")]


@app.command("list")
def list_mappings(
    resource: Annotated[str, typer.Argument(help="Default: list the resources.", show_default=False)] = "",
    search: Annotated[str, typer.Option(help="Text to find in keys and ids.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number to show.")] = 100,
    offset: Annotated[int, typer.Option(min=0, help="Number to skip.")] = 0,
) -> None:
    """List the resources, or the mappings of one resource in key order."""
    with options.client() as client:
        document = client.mappings(resource, search, limit, offset) if resource else client.resources()
    console.result(document, lambda: _show(document) if resource else _show_resources(document["items"]))


@app.command()
def lookup(resource: Resource, key: Key = None, ref: Ref = None) -> None:
    """Show a mapping, matches by its key or by an id."""
    query = _query(resource, key, ref)
    with options.client() as client:
        matches = client.lookup_mappings(query)["items"]
    if not matches:
        raise KhotanError(
            f"{resource} has no mapping for {_described(key, ref)}",
            code="unknown_mapping",
            hint="Search for part of it.",
            next=[f"khotan mappings list {resource}"],
        )
    console.result({"ok": True, **matches[0]}, lambda: _show({"items": matches, "total": 1}))


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
    """Store ids for a key, or for many keys from a file. All are stored, or none."""
    if bool(file) == bool(key):
        raise UsageError("Give a KEY with --ref, or --file", hint="khotan mappings upsert products SKU-1 --ref shop=42")
    if key and not ref:
        raise UsageError("Missing --ref PLUG=ID", hint="Use for example --ref shop=42.")
    request: dict[str, Any] = {"resource": resource, "replace": replace}
    request |= {"items": _lines(file)} if file else {"key": key, "refs": _refs(ref)}
    with options.client() as client:
        done = client.upsert_mappings(request)
    text = f"{done['created']} created, {done['updated']} updated, {done['unchanged']} unchanged."
    console.result(done, lambda: console.success(text))


@app.command()
def update(resource: Resource, key: Key = None, ref: Ref = None, replace: Replace = False) -> None:
    """Change the ids of an existing mapping."""
    if not key or not ref:
        raise UsageError("Give KEY and --ref", hint="khotan mappings update products SKU-1 --ref shop=42")
    with options.client() as client:
        matches = client.lookup_mappings({"resource": resource, "key": key})["items"]
        if not matches:
            raise KhotanError(
                f"{resource} has no mapping for {_described(key, None)}: nothing was changed",
                code="unknown_mapping",
                hint="Use khotan mappings upsert to create it.",
            )
        done = client.change_mapping(matches[0]["id"], _refs(ref), replace=replace)
    changed = done["refs"] != matches[0]["refs"]
    unchanged = f"{resource} {_described(key, None)} already has these ids."
    document = {**done, "changed": changed, **({} if changed else {"message": unchanged})}
    console.result(document, lambda: _show({"items": [done], "total": 1}) if changed else console.line(unchanged))


@app.command()
def delete(
    resource: Resource,
    key: Key = None,
    ref: Ref = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove a mapping. The records in the systems stay."""
    with options.client() as client:
        matches = client.lookup_mappings(_query(resource, key, ref))["items"]
        if not matches:
            raise KhotanError(
                f"{resource} has no mapping for {_described(key, ref)}: nothing was removed",
                code="unknown_mapping",
                hint="Search for part of it.",
                next=[f"khotan mappings list {resource}"],
            )
        if not yes and not console.confirm(f"Remove the mapping of {' / '.join(matches[0]['key'])}?", instead="--yes"):
            raise UsageError("Nothing was removed", hint="Answer y, or give --yes.")
        done = client.delete_mapping(matches[0]["id"])
    console.result(done, lambda: console.success(f"Removed {' / '.join(matches[0]['key'])}."))


def _query(resource: str, key: list[str] | None, ref: list[str] | None) -> dict[str, Any]:
    if bool(key) == bool(ref):
        raise UsageError("Give a KEY, or one --ref PLUG=ID", hint=f"khotan mappings lookup {resource} SKU-1")
    if key:
        return {"resource": resource, "key": key}
    refs = _refs(ref)
    if len(refs) != 1:
        raise UsageError("Give one --ref", hint="One id identifies the mapping.")
    plug, value = next(iter(refs.items()))
    return {"resource": resource, "plug": plug, "ref": value}


def _refs(assignments: list[str] | None) -> dict[str, str]:
    refs: dict[str, str] = {}
    for text in assignments or []:
        plug, equals, value = text.partition("=")
        if not plug or not equals or not value:
            raise UsageError(f"Invalid --ref {text!r}: it must be PLUG=ID", hint="Use for example --ref shop=42.")
        refs[plug] = value
    return refs


def _lines(file: str) -> list[Any]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(
            f"Cannot read {file}: {exc.strerror if isinstance(exc, OSError) else 'not UTF-8'}",
            code="file_not_readable",
            hint="Use a UTF-8 file of JSON lines.",
        ) from None
    items: list[Any] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            items.append(json.loads(line))
        except ValueError:
            raise UsageError(
                f"{file}:{number}: invalid JSON", code="invalid_json", hint="Use one object per line."
            ) from None
    if not items:
        raise UsageError(
            f"{file} contains no mappings", hint='Write one per line: {"key": "SKU-1", "refs": {"shop": "42"}}'
        )
    return items


def _described(key: list[str] | None, ref: list[str] | None) -> str:
    return repr(" / ".join(key)) if key else (ref or [""])[0]


def _show_resources(items: list[dict[str, Any]]) -> None:
    if not items:
        console.line("There are no resources yet.")
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
        console.line("There are no matching mappings.")
        return
    rows = [
        [" / ".join(m["key"]), ", ".join(f"{p}={r}" for p, r in m["refs"].items()), when(m["updatedAt"])] for m in items
    ]
    console.table(["Key", "Ids", "Updated"], rows, whole=["Key"])
    if document["total"] > len(items):
        console.line(f"{document['total'] - len(items)} more are not shown.", "dim")
