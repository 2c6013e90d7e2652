"""`khotan add ingest`: writes one file, based on the project's declarations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from khotan_cli.errors import UnknownName, UsageError
from khotan_cli.scaffold.catalog import component
from khotan_cli.scaffold.code_reader import Source
from khotan_cli.scaffold.components import found_plug, write_part
from khotan_cli.scaffold.names import check_plug_name, class_name, module_name
from khotan_cli.scaffold.project_component import Written

_PATH = re.compile(r"/[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class IngestOptions:
    """The answers for an ingest. `path` begins with a slash; `plug` and `resource` go together."""

    name: str
    signature: str
    path: str = ""
    organisation: bool = False
    plug: str = ""
    resource: str = ""


def ingest_signatures() -> list[str]:
    return component("ingest").choices("signature")


def add_ingest(
    root: Path, package_path: str, source: Source, asked: IngestOptions, *, force: bool = False, dry_run: bool = False
) -> Written:
    """Write an ingest. Raises UnknownName for what the code does not declare, UsageError, WouldOverwrite."""
    check_plug_name(asked.name)
    path = asked.path or f"/{asked.name}"
    if not _PATH.fullmatch(path):
        raise UsageError(f"Invalid --path {path!r}", hint="Use for example /orders, or /shop/orders.")
    if asked.signature not in ingest_signatures():
        raise UnknownName("signature", asked.signature, ingest_signatures(), code="invalid_input")
    if bool(asked.plug) != bool(asked.resource):
        raise UsageError(
            "--plug and --resource need each other",
            hint="Give both, or neither.",
        )
    if asked.resource and asked.resource not in source.resources:
        raise UnknownName("resource", asked.resource, source.resources, where="this project")
    plug = found_plug(source, asked.plug) if asked.plug else None
    if plug is not None and plug.name not in source.resources[asked.resource]:
        known = source.resources[asked.resource]
        raise UnknownName("plug", plug.name, known, where=f"resource {asked.resource!r}")
    answers = {
        "package_path": package_path,
        "name": asked.name,
        "module": module_name(asked.name),
        "path": path,
        "model": f"{class_name(asked.name)}Record",
        "signature": asked.signature,
        "organisation": asked.organisation,
        "resource": asked.resource,
        "plug": "" if plug is None else plug.name,
        "plug_module": "" if plug is None else plug.module,
    }
    steps = [f"khotan wire vars ingest{path} set secret --stdin", f"khotan wire send ingest{path} {asked.name}"]
    if asked.signature == "unsigned":
        steps.pop(0)
    return write_part(root, "ingest", "ingest", asked.name, answers, [], steps, force=force, dry_run=dry_run)
