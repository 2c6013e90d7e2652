"""Discovers the declarations of a package. The files are the registry, so adding a file is enough."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from khotan_cli.errors import AppImportError, ConfigError, KhotanError, UnknownName
from khotan_cli.runtime.fingerprint import fingerprint_of
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.redaction.masker import Masker
from khotan_cli.runtime.resources.caches import Cache
from khotan_cli.runtime.resources.mappings import Resource
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.user_traceback import user_location
from khotan_cli.runtime.webhooks.endpoint import InboundEndpoint
from khotan_cli.runtime.webhooks.handler import Handler
from khotan_cli.runtime.webhooks.ingest import Ingest

_SENSITIVE = re.compile(r"secret|token|passw|pwd|key|credential|database_url|dsn", re.IGNORECASE)


class Registry:
    """The declarations of a package, by name. Raises ConfigError and UnknownName for inconsistent declarations."""

    def __init__(
        self,
        plugs: Mapping[str, Plug],
        flows: Mapping[str, Flow] | None = None,
        resources: Mapping[str, Resource] | None = None,
        caches: Mapping[str, Cache] | None = None,
        wires: Mapping[str, InboundEndpoint] | None = None,
    ) -> None:
        self.package, self.code = "", ""
        self.plugs = dict(sorted(plugs.items()))
        self.flows = dict(sorted((flows or {}).items()))
        self.resources = dict(sorted((resources or {}).items()))
        self.caches = dict(sorted((caches or {}).items()))
        for resource in self.resources.values():
            for plug in resource.plugs:
                if plug not in self.plugs:
                    raise UnknownName(
                        "plug", plug, self.plugs, code="config_invalid", where=f"resource {resource.name!r}"
                    )
        for flow in self.flows.values():
            _check_flow(flow, self.plugs, self.resources)
        self.wires = dict(sorted((wires or {}).items()))
        for wire in self.wires.values():
            _check_wire(wire, self.plugs, self.resources)

    def plug(self, name: str) -> Plug:
        """The plug of that name. Raises UnknownName."""
        if name not in self.plugs:
            raise UnknownName("plug", name, self.plugs)
        return self.plugs[name]

    @classmethod
    def discover(cls, package: str) -> Registry:
        """Import every module of the package and collect its plugs, flows, resources and caches.

        The default name of a plug is that of the module attribute it was assigned to. A copy of a plug (`with_vars` and
        similar) is not a separate plug. Raises AppImportError for a module that cannot be imported, ConfigError for two
        plugs with the same name.
        """
        code = fingerprint_of(package)
        modules = _modules(package)
        module_plugs = [
            (module.__name__, attribute, value)
            for module in modules
            for attribute, value in vars(module).items()
            if isinstance(value, Plug)
        ]
        found: dict[str, tuple[str, Plug]] = {}
        names: dict[int, str] = {}
        for module_name, attribute, plug in _created(module_plugs):
            if id(plug.shared) in names:
                continue
            name = plug.name if plug.named else attribute
            if name in found:
                raise ConfigError(
                    f"Two plugs have the name {name!r}: in {found[name][0]} and in {module_name}",
                    hint="Rename one of them.",
                )
            names[id(plug.shared)] = name
            found[name] = (module_name, plug)
        for _, _, plug in module_plugs:
            plug.name = names.get(id(plug.shared), plug.name)
        registry = cls(
            {name: plug for name, (_, plug) in found.items()},
            _named(modules, Flow, "flows"),
            _named(modules, Resource, "resources"),
            _named(modules, Cache, "caches"),
            _wires(modules),
        )
        registry.package, registry.code = package, code
        return registry


def _check_flow(flow: Flow, plugs: Mapping[str, Plug], resources: Mapping[str, Resource]) -> None:
    where = f"flow {flow.name!r} ({flow.module})"
    if flow.resource is not None and flow.resource not in resources:
        raise UnknownName("resource", flow.resource, resources, code="config_invalid", where=where)
    for plug in flow.plugs:
        if all(plug.shared is not known.shared for known in plugs.values()):
            raise ConfigError(
                f"{where}: its plug {plug.name!r} is not defined in the package",
                hint="Create the plug in a module of the package, and import it from there.",
            )


def _wires(modules: Sequence[ModuleType]) -> dict[str, InboundEndpoint]:
    """Wires and ingests by id, after plugs have their names. Raises ConfigError for two with the same path."""
    found: dict[str, InboundEndpoint] = {}
    for module in modules:
        for member in vars(module).values():
            value = member.wire if isinstance(member, Handler) and isinstance(member.wire, Ingest) else member
            if isinstance(value, InboundEndpoint) and found.setdefault(value.id, value) is not value:
                raise ConfigError(
                    f"Two {value.kind}s have the id {value.id!r}: in {found[value.id].module} and in {value.module}",
                    hint="Change the name or path of one of them.",
                )
    return found


def _check_wire(wire: InboundEndpoint, plugs: Mapping[str, Plug], resources: Mapping[str, Resource]) -> None:
    wire.check()
    if isinstance(wire, Ingest) and wire.resource is not None and wire.plug is not None:
        where = f"ingest {wire.id!r} ({wire.module})"
        if wire.resource not in resources:
            raise UnknownName("resource", wire.resource, resources, code="config_invalid", where=where)
        known = resources[wire.resource].plugs
        if wire.plug.name not in known:
            raise UnknownName("plug", wire.plug.name, known, code="config_invalid", where=f"resource {wire.resource!r}")
    used = [plug for handler in wire.handlers.values() for plug in handler.plugs]
    used += [] if wire.plug is None else [wire.plug]
    for plug in used:
        if all(plug.shared is not known.shared for known in plugs.values()):
            raise ConfigError(
                f"Wire {wire.id!r} ({wire.module}): its plug {plug.name!r} is not defined in the package",
                hint="Create the plug in a module of the package, and import it from there.",
            )


N = TypeVar("N", Flow, Resource, Cache)


def _named(modules: Sequence[ModuleType], kind: type[N], plural: str) -> dict[str, N]:
    """All objects of a kind in the modules, by name. Raises ConfigError for two with the same name."""
    found: dict[str, tuple[str, N]] = {}
    for module in modules:
        for value in vars(module).values():
            if not isinstance(value, kind) or isinstance(value, Handler):
                continue
            where, known = found.setdefault(value.name, (module.__name__, value))
            if known is not value:
                raise ConfigError(
                    f"Two {plural} have the name {value.name!r}: in {where} and in {module.__name__}",
                    hint="Rename one of them.",
                )
    return {name: value for name, (_, value) in found.items()}


def _created(module_plugs: Sequence[tuple[str, str, Plug]]) -> Iterator[tuple[str, str, Plug]]:
    """The entries that define a plug, in the order of modules, without those that import one.

    A plug records the module in which it was created. With a base class that has its own `__init__`, this is the base
    class's module; such a plug counts as defined in the first module that contains it.
    """
    for module, attribute, plug in module_plugs:
        if plug.module == module:
            yield module, attribute, plug
    for module, attribute, plug in module_plugs:
        origin = sys.modules.get(plug.module)
        there = [] if origin is None else [value for value in vars(origin).values() if isinstance(value, Plug)]
        if all(value.shared is not plug.shared for value in there):
            yield module, attribute, plug


def _modules(package: str) -> list[ModuleType]:
    root = import_module(package)
    names: dict[str, None] = {}
    for folder in getattr(root, "__path__", []):
        if Path(folder).is_dir():
            names |= dict.fromkeys(_names(Path(folder), package))
    return [root, *(import_module(name) for name in names)]


def _names(folder: Path, package: str) -> Iterator[str]:
    """Modules below a folder, packages first. A package needs no `__init__.py` (PEP 420)."""
    for entry in sorted(folder.iterdir()):
        name = f"{package}.{entry.stem}"
        if entry.is_dir() and entry.name.isidentifier() and any(entry.rglob("*.py")):
            if entry.name != "__pycache__":
                yield name
                yield from _names(entry, name)
        elif entry.suffix == ".py" and entry.stem.isidentifier() and entry.stem not in ("__init__", "__main__"):
            yield name


def import_module(name: str) -> ModuleType:
    """Import a user's module. Raises AppImportError with file, line and exception, without a traceback."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as exc:
        raise import_error(name, exc) from None


def import_error(name: str, exc: BaseException) -> KhotanError:
    """The error for a module that raised. It contains the exception's message, but no values and source lines."""
    if isinstance(exc, KhotanError):
        return _located(exc)
    if isinstance(exc, ModuleNotFoundError) and exc.name and (name == exc.name or name.startswith(f"{exc.name}.")):
        return AppImportError(
            f"Module {name!r} does not exist",
            hint="Run khotan init, or correct `package` and `app` in khotan.toml.",
        )
    return AppImportError(f"{name} cannot be imported: {described(exc)}", hint="Correct the error, then try again.")


def _located(exc: KhotanError) -> KhotanError:
    """A KhotanError about a user's declaration, with the location of the declaration added once."""
    location = user_location(exc)
    if location and "file" not in exc.details:
        exc.message += f" ({location})"
        exc.details["file"] = location
    return exc


def described(exc: BaseException) -> str:
    """`ValueError: message (file:line)` for an exception of the user's code, with secrets of the environment masked."""
    secrets = [value for name, value in os.environ.items() if _SENSITIVE.search(name)]
    text = " ".join(Masker(secrets).text(str(exc)).split())[:300]
    location = user_location(exc)
    return type(exc).__name__ + (f": {text}" if text else "") + (f" ({location})" if location else "")
