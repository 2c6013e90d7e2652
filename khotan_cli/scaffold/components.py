"""`khotan add inflow|outflow|relay|resource|cache`: writes one file each, based on the project's declarations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from khotan_cli.errors import UnknownName, UsageError, WouldOverwrite
from khotan_cli.scaffold.apply import apply
from khotan_cli.scaffold.catalog import component
from khotan_cli.scaffold.code_reader import Column, FoundEndpoint, FoundPlug, FoundTable, Source
from khotan_cli.scaffold.manifest import Manifest
from khotan_cli.scaffold.names import check_plug_name, class_name, module_name
from khotan_cli.scaffold.plan import plan
from khotan_cli.scaffold.project_component import Written
from khotan_cli.scaffold.render import render


@dataclass(frozen=True)
class FlowOptions:
    """The answers for a flow. `into` is the row's class: one to write, or for an outflow one that is there."""

    kind: str
    name: str
    plug: str
    endpoint: str
    to: str = ""
    to_endpoint: str = ""
    update: str = ""
    resource: str = ""
    into: str = ""
    key: str = ""
    schedule: str = ""


def add_flow(
    root: Path, package_path: str, source: Source, asked: FlowOptions, *, force: bool = False, dry_run: bool = False
) -> Written:
    """Write a flow. Raises UnknownName for undeclared names, and WouldOverwrite, with nothing written."""
    check_plug_name(asked.name)
    _check_schedule(asked.schedule)
    if asked.resource and asked.resource not in source.resources:
        raise UnknownName("resource", asked.resource, source.resources, where="this project")
    notes: list[str] = []
    answers = {
        "package_path": package_path,
        "kind": asked.kind,
        "name": asked.name,
        "module": module_name(asked.name),
        "update": asked.update,
        "resource": asked.resource,
        "schedule": asked.schedule,
    }
    endpoint = _source_answers(source, asked, answers, notes)
    _table_answers(source, asked, endpoint, answers, notes)
    steps = [f"khotan flows trigger {asked.name} --dry-run", f"khotan flows trigger {asked.name} --wait"]
    return write_part(
        root, "flow", asked.kind, asked.name, answers, notes, ["khotan migrate", *steps], force=force, dry_run=dry_run
    )


def _source_answers(source: Source, asked: FlowOptions, answers: dict[str, Any], notes: list[str]) -> FoundEndpoint:
    """Add the plugs and endpoints that the flow reads from and writes to. Returns the endpoint that it reads from."""
    plug = found_plug(source, asked.plug)
    endpoint = found_endpoint(plug, asked.endpoint, notes)
    target, target_endpoint = plug, endpoint
    if asked.kind == "relay":
        target = found_plug(source, asked.to)
        target_endpoint = found_endpoint(target, asked.to_endpoint, notes)
    if asked.update:
        found_endpoint(target, asked.update, notes)
    if asked.kind != "outflow" and not endpoint.paginated:
        notes.append(
            f"No paginator found for {plug.name}.{endpoint.name}: set one on the plug or the endpoint, "
            "SinglePagePaginator() where all comes in one response."
        )
    answers |= {
        "plug": plug.name,
        "plug_module": plug.module,
        "endpoint": endpoint.name,
        "to": target.name if asked.kind == "relay" else "",
        "to_module": target.module,
        "to_endpoint": target_endpoint.name,
        "deletion": _deletion(endpoint),
    }
    return endpoint


def _table_answers(
    source: Source, asked: FlowOptions, endpoint: FoundEndpoint, answers: dict[str, Any], notes: list[str]
) -> None:
    """Add the table of the rows: its columns, or the module that declares it already. Raises UnknownName for the key."""
    row, there, columns, left_out = _row(source, asked, endpoint)
    if there and not asked.into:
        notes.append(f"{row} is already declared in {there.module or 'the package'} and imported from there.")
    names = [column.name for column in columns]
    key = asked.key or ("id" if not names or "id" in names else names[0])
    if names and key not in names:
        raise UnknownName("field", key, names, code="invalid_input", where=row)
    types = set() if there else {column.type for column in columns}
    answers |= {
        "row": row,
        "row_from": _import_path(there.module) if there else "",
        "table": module_name(asked.name),
        "columns": [_column(column, key) for column in columns] or [f"{key}: str = Field(primary_key=True)"],
        "imports": _imports(columns),
        "zoned": "datetime" in types,
        "wide": "int" in types,
        "left_out": list(left_out) if columns else ["the fields of the item's model, which could not be read"],
        "key": key,
    }


def found_plug(source: Source, name: str) -> FoundPlug:
    """The plug of that name in the project's code. Raises UnknownName."""
    if name not in source.plugs:
        raise UnknownName("plug", name, source.plugs, where="this project")
    return source.plugs[name]


def found_endpoint(plug: FoundPlug, name: str, notes: list[str]) -> FoundEndpoint:
    """The endpoint of that name. Raises UnknownName, except for a plug whose endpoints cannot be read."""
    if name in plug.endpoints:
        return plug.endpoints[name]
    if plug.endpoints or not name.isidentifier():
        raise UnknownName("endpoint", name, plug.endpoints, where=f"plug {plug.name!r}")
    notes.append(f"The endpoints of {plug.name} could not be read from its code: check {plug.name}.{name} yourself.")
    return FoundEndpoint(name, "GET", True)


def add_resource(
    root: Path,
    package_path: str,
    source: Source,
    name: str,
    connect_fields: Sequence[str],
    plugs: Mapping[str, str],
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Written:
    """Write a resource. Raises UnknownName for a plug that the code does not declare."""
    check_plug_name(name)
    if not connect_fields or not plugs:
        raise UsageError(
            "A resource needs a connect field and at least one plug", hint="Use --connect-field sku --plug shop=id."
        )
    for plug in plugs:
        found_plug(source, plug)
    answers = {
        "package_path": package_path,
        "name": name,
        "module": module_name(name),
        "connect_fields": list(connect_fields),
        "plugs": dict(plugs),
    }
    steps = [f"khotan add inflow {name} --plug {next(iter(plugs))} --resource {name}", f"khotan mappings list {name}"]
    return write_part(root, "resource", "resource", name, answers, [], steps, force=force, dry_run=dry_run)


def add_cache(
    root: Path, package_path: str, name: str, ttl: str, scope: str, *, force: bool = False, dry_run: bool = False
) -> Written:
    """Write a cache. Raises UsageError for an invalid time to live or scope."""
    check_plug_name(name)
    import re

    if ttl and not re.fullmatch(r"[1-9]\d*(\.\d+)?[smhdw]?", ttl):
        raise UsageError(f"Invalid --ttl {ttl!r}", hint="Use for example 90s, 30m, 6h or 7d; omit it for unlimited.")
    if scope not in component("cache").choices("scope"):
        raise UsageError(f"Invalid --scope {scope!r}", hint="Use app, flow or variant.")
    answers = {"package_path": package_path, "name": name, "module": module_name(name), "ttl": ttl, "scope": scope}
    return write_part(
        root, "cache", "cache", name, answers, [], [f"khotan caches show {name}"], force=force, dry_run=dry_run
    )


def write_part(
    root: Path,
    template_name: str,
    kind: str,
    name: str,
    answers: Mapping[str, Any],
    notes: list[str],
    steps: Sequence[str],
    *,
    force: bool,
    dry_run: bool,
) -> Written:
    """Render a template, and write what is new. Raises WouldOverwrite, with nothing written."""
    template = component(template_name)
    staged = {
        path: text
        for path, text in render(template, answers).items()
        if not (path.endswith("/__init__.py") and (root / path).exists())
    }
    manifest = Manifest.load(root)
    changes = plan(root, staged, manifest, force=force)
    conflicts = [change.path for change in changes if change.action == "conflict"]
    if conflicts and not dry_run:
        raise WouldOverwrite(
            f"{', '.join(conflicts)} differs from what would be written: nothing was written",
            hint="Use another name. --diff shows the difference, --force overwrites.",
            details={"files": [change.to_json() for change in changes]},
        )
    if not dry_run:
        records = manifest.record(kind, name, version=template.version, answers=dict(answers), files=staged)
        apply(root, changes, records)
    return Written(changes, notes, list(steps))


def _row(
    source: Source, asked: FlowOptions, endpoint: FoundEndpoint
) -> tuple[str, FoundTable | None, tuple[Column, ...], tuple[str, ...]]:
    """The row's class, where it is if another module has it, its columns, and the item's fields that are left out."""
    name = asked.into or f"{class_name(asked.name)}Row"
    there = source.tables.get(name) if asked.kind != "relay" else None
    if asked.kind == "outflow" and asked.into and there is None:
        raise UnknownName("table", asked.into, source.tables, code="invalid_input", where="this project")
    if there is not None and there.module == f"flows.{module_name(asked.name)}":
        there = None  # of this flow, which is rewritten
    if there is not None:
        return name, there, there.columns, ()
    if asked.kind == "outflow":
        return name, None, (Column("id", "str", False), Column("name", "str", False)), ()
    if not name.isidentifier():
        raise UsageError(
            f"Invalid class name --into {name!r}", code="invalid_name", hint="Use a name such as ProductRow."
        )
    return name, None, endpoint.columns, endpoint.left_out


def _import_path(module: str) -> str:
    """A module of the package, as one of its flows imports it."""
    folder, _, rest = module.partition(".")
    return f".{rest}" if folder == "flows" else f"..{module}"


def _column(column: Column, key: str) -> str:
    kind = f"{column.type} | None" if column.nullable and column.name != key else column.type
    wide = ", sa_type=BigInteger" if column.type == "int" else ""  # SQLite's integers have 64 bits, PostgreSQL's 32
    if column.name == key:
        return f"{column.name}: {kind} = Field(primary_key=True{wide})"
    if wide:
        return f"{column.name}: {kind} = Field({'default=None, ' if column.nullable else ''}sa_type=BigInteger)"
    if column.type == "datetime":
        given = ["default=None"] if column.nullable else []
        given.append(f"sa_column=Column(DateTime(timezone=True){'' if column.nullable else ', nullable=False'})")
        return f"{column.name}: {kind} = Field(\n        " + ",\n        ".join(given) + ",\n    )"
    return f"{column.name}: {kind}" + (" = None" if column.nullable else "")


def _deletion(endpoint: FoundEndpoint) -> str:
    """What `delete_missing` means with the endpoint's paginator: the table in docs/flows.md, as a sentence."""
    name = endpoint.paginator
    if name in ("CursorPaginator", "KeysetPaginator", "LinkHeaderPaginator", "NextUrlPaginator"):
        return f"Safe with {name}, if the service's cursor is stable while records are deleted."
    if name in ("OffsetPaginator", "PageNumberPaginator"):
        if endpoint.total:
            return f"Safe with {name}: if the total changes during the walk, that run deletes nothing."
        return f"Safe with {name}, but each page is read twice. Declare total=... to read it once."
    if name == "SinglePagePaginator":
        return "Safe with SinglePagePaginator: all records come in one response."
    return "Whether that is safe depends on the paginator: see the khotan documentation, docs/flows.md."


def _imports(columns: Sequence[Column]) -> list[str]:
    by_module: dict[str, set[str]] = {}
    for column in columns:
        if column.module:
            by_module.setdefault(column.module, set()).add(column.type)
    return [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(by_module.items())]


def _check_schedule(text: str) -> None:
    if not text:
        return
    from cronsim import CronSim, CronSimError

    try:
        if len(text.split()) != 5:
            raise CronSimError("not five fields")
        from datetime import UTC, datetime

        CronSim(text, datetime.now(UTC))
    except CronSimError as exc:
        raise UsageError(
            f"Invalid --schedule {text!r}: {exc}",
            hint="Use five fields, such as '*/15 * * * *' or '0 9 * * mon-fri'.",
        ) from None
