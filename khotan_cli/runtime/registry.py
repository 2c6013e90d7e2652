"""Finds what a package defines. Files are the registry: adding one is enough."""

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
from khotan_cli.runtime.user_traceback import place_of
from khotan_cli.runtime.webhooks.endpoint import InboundEndpoint
from khotan_cli.runtime.webhooks.handler import Handler
from khotan_cli.runtime.webhooks.ingest import Ingest

_SENSITIVE = re.compile(r"secret|token|passw|pwd|key|credential|database_url|dsn", re.IGNORECASE)


class Registry:
    """What a package declares, by name. Raises ConfigError, UnknownName where its parts do not fit together."""

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
        """Raises UnknownName with the nearest one."""
        if name not in self.plugs:
            raise UnknownName("plug", name, self.plugs)
        return self.plugs[name]

    @classmethod
    def discover(cls, package: str) -> Registry:
        """Import every module of the package and collect its plugs, flows, resources and caches.

        A plug's name is that of the module attribute it was created as, unless it was given one. A copy of a plug
        (`with_vars` and its like) is no plug of its own. Raises AppImportError for a module that does not import,
        ConfigError where two plugs have one name.
        """
        code = fingerprint_of(package)
        modules = _modules(package)
        held = [
            (module.__name__, attribute, value)
            for module in modules
            for attribute, value in vars(module).items()
            if isinstance(value, Plug)
        ]
        found: dict[str, tuple[str, Plug]] = {}
        names: dict[int, str] = {}
        for module_name, attribute, plug in _created(held):
            if id(plug.shared) in names:
                continue
            name = plug.name if plug.named else attribute
            if name in found:
                raise ConfigError(
                    f"Two plugs are called {name!r}: in {found[name][0]} and in {module_name}",
                    hint="Rename one of them.",
                )
            names[id(plug.shared)] = name
            found[name] = (module_name, plug)
        for _, _, plug in held:
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
                f"{where}: its plug {plug.name!r} is not one of the package's",
                hint="Create the plug in a module of the package, and import it from there.",
            )


def _wires(modules: Sequence[ModuleType]) -> dict[str, InboundEndpoint]:
    """Wires and ingests by id, after plugs have their names. Raises ConfigError where two have one path."""
    found: dict[str, InboundEndpoint] = {}
    for module in modules:
        for held in vars(module).values():
            value = held.wire if isinstance(held, Handler) and isinstance(held.wire, Ingest) else held
            if isinstance(value, InboundEndpoint) and found.setdefault(value.id, value) is not value:
                raise ConfigError(
                    f"Two {value.kind}s are {value.id!r}: in {found[value.id].module} and in {value.module}",
                    hint="Give one of them another name or path.",
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
                f"Wire {wire.id!r} ({wire.module}): its plug {plug.name!r} is not one of the package's",
                hint="Create the plug in a module of the package, and import it from there.",
            )


N = TypeVar("N", Flow, Resource, Cache)


def _named(modules: Sequence[ModuleType], kind: type[N], plural: str) -> dict[str, N]:
    """Every object of a kind that the modules hold, by its own name. Raises ConfigError where two have one."""
    found: dict[str, tuple[str, N]] = {}
    for module in modules:
        for value in vars(module).values():
            if not isinstance(value, kind) or isinstance(value, Handler):
                continue
            where, known = found.setdefault(value.name, (module.__name__, value))
            if known is not value:
                raise ConfigError(
                    f"Two {plural} are called {value.name!r}: in {where} and in {module.__name__}",
                    hint="Rename one of them.",
                )
    return {name: value for name, (_, value) in found.items()}


def _created(held: Sequence[tuple[str, str, Plug]]) -> Iterator[tuple[str, str, Plug]]:
    """The entries that define a plug, in the order of modules; not those that import one.

    A plug knows the module it was created in, but takes a base class's for it where that has an `__init__` of its own:
    one of which that module holds nothing is defined where it is first seen.
    """
    for module, attribute, plug in held:
        if plug.module == module:
            yield module, attribute, plug
    for module, attribute, plug in held:
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
    """Modules below a folder, packages first; a folder needs no `__init__.py` to be one (PEP 420)."""
    for entry in sorted(folder.iterdir()):
        name = f"{package}.{entry.stem}"
        if entry.is_dir() and entry.name.isidentifier() and any(entry.rglob("*.py")):
            if entry.name != "__pycache__":
                yield name
                yield from _names(entry, name)
        elif entry.suffix == ".py" and entry.stem.isidentifier() and entry.stem not in ("__init__", "__main__"):
            yield name


def import_module(name: str) -> ModuleType:
    """Import a module of the user's. Raises AppImportError that names file, line and exception, without a traceback."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as exc:
        raise import_error(name, exc) from None


def import_error(name: str, exc: BaseException) -> KhotanError:
    """The error for a module that raised. A message of the user's code is shown, its values and source lines are not."""
    if isinstance(exc, KhotanError):
        return _located(exc)
    if isinstance(exc, ModuleNotFoundError) and exc.name and (name == exc.name or name.startswith(f"{exc.name}.")):
        return AppImportError(
            f"There is no module {name!r}",
            hint="Run khotan init, or correct `package` and `app` in khotan.toml.",
        )
    return AppImportError(f"{name} does not import: {described(exc)}", hint="Correct that line, then try again.")


def _located(exc: KhotanError) -> KhotanError:
    """What khotan found wrong with a declaration of the user's, with the place of the declaration, once."""
    place = place_of(exc)
    if place and "file" not in exc.details:
        exc.message += f" ({place})"
        exc.details["file"] = place
    return exc


def described(exc: BaseException) -> str:
    """`ValueError: what it says (file:line)` of an exception of the user's code, secrets of the environment masked."""
    secrets = [value for name, value in os.environ.items() if _SENSITIVE.search(name)]
    text = " ".join(Masker(secrets).text(str(exc)).split())[:300]
    place = place_of(exc)
    return type(exc).__name__ + (f": {text}" if text else "") + (f" ({place})" if place else "")
