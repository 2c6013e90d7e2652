"""`khotan add wire|catch|pass`: writes one file each, based on the project's declarations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from khotan_cli.errors import UnknownName, UsageError
from khotan_cli.scaffold.catalog import component
from khotan_cli.scaffold.code_reader import FoundPlug, Source
from khotan_cli.scaffold.components import found_endpoint, found_plug, write_part
from khotan_cli.scaffold.names import check_plug_name, class_name, module_name
from khotan_cli.scaffold.project_component import Written

_TYPE = re.compile(r"[A-Za-z0-9_.:*/?-]+")


@dataclass(frozen=True)
class WireOptions:
    """The answers for a wire."""

    name: str
    plug: str
    signature: str
    types: Sequence[str] = ()
    managed: bool = False


@dataclass(frozen=True)
class HandlerOptions:
    """The answers for a handler. `to` and `endpoint` are a pass's."""

    kind: str
    name: str
    wire: str
    types: Sequence[str] = ()
    to: str = ""
    endpoint: str = ""
    ordered_by: str = ""


def signature_kinds() -> list[str]:
    return component("wire").choices("signature")


def add_wire(
    root: Path, package_path: str, source: Source, asked: WireOptions, *, force: bool = False, dry_run: bool = False
) -> Written:
    """Write a wire. Raises UnknownName for what the code does not declare, WouldOverwrite with nothing written."""
    check_plug_name(asked.name)
    plug = found_plug(source, asked.plug)
    if asked.signature not in signature_kinds():
        raise UnknownName("signature", asked.signature, signature_kinds(), code="invalid_input")
    _check_types(asked.types)
    suffix = "" if asked.name == plug.name else asked.name
    wire_id = f"{plug.name}/{suffix}" if suffix else plug.name
    answers = {
        "package_path": package_path,
        "name": asked.name,
        "module": module_name(asked.name),
        "variable": f"{asked.name}_wire",
        "plug": plug.name,
        "plug_module": plug.module,
        "suffix": suffix,
        "signature": asked.signature,
        "types": list(asked.types),
        "managed": asked.managed,
    }
    steps = [
        f"khotan add catch NAME --wire {wire_id}",
        f"khotan wire vars {wire_id} set secret --stdin",
        f"khotan wire create {wire_id}",
    ]
    if asked.managed or asked.signature == "unsigned":
        steps.pop(1)
    return write_part(root, "wire", "wire", asked.name, answers, [], steps, force=force, dry_run=dry_run)


def add_handler(
    root: Path, package_path: str, source: Source, asked: HandlerOptions, *, force: bool = False, dry_run: bool = False
) -> Written:
    """Write a catch or a pass. Raises UnknownName for what the code does not declare, WouldOverwrite."""
    check_plug_name(asked.name)
    if asked.wire not in source.wires:
        raise UnknownName("wire", asked.wire, source.wires, where="this project")
    _check_types(asked.types)
    wire, notes = source.wires[asked.wire], list[str]()
    to: FoundPlug | None = None
    if asked.kind == "pass":
        to = found_plug(source, asked.to)
        if asked.endpoint:
            found_endpoint(to, asked.endpoint, notes)
    answers = {
        "package_path": package_path,
        "kind": asked.kind,
        "name": asked.name,
        "module": module_name(asked.name),
        "folder": "passes" if asked.kind == "pass" else "catches",
        "wire": wire.variable,
        "wire_id": wire.id,
        "wire_module": wire.module,
        "types": list(asked.types),
        "to": "" if to is None else to.name,
        "to_module": "" if to is None else to.module,
        "endpoint": asked.endpoint,
        "model": f"{class_name(asked.name)}Body",
        "ordered_by": asked.ordered_by,
    }
    sample = asked.types[0].replace("*", "test") if asked.types else "test"
    steps = [f"khotan wire send {wire.id} {sample}", f"khotan wire events {wire.id}"]
    return write_part(root, "handler", asked.kind, asked.name, answers, notes, steps, force=force, dry_run=dry_run)


def _check_types(types: Sequence[str]) -> None:
    for one in types:
        if not _TYPE.fullmatch(one):
            raise UsageError(
                f"Invalid --type {one!r}", hint="Use for example invoice.paid, or invoice.* for several types."
            )
