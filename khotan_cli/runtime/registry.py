"""Finds what a package defines. Files are the registry: adding one is enough."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from khotan_cli.errors import AppImportError, ConfigError, KhotanError, UnknownName
from khotan_cli.runtime.plugs.plug import Plug


class Registry:
    """The plugs of a package by name."""

    def __init__(self, plugs: Mapping[str, Plug]) -> None:
        self.plugs = dict(sorted(plugs.items()))

    def plug(self, name: str) -> Plug:
        """Raises UnknownName with the nearest one."""
        if name not in self.plugs:
            raise UnknownName("plug", name, self.plugs)
        return self.plugs[name]

    @classmethod
    def discover(cls, package: str) -> Registry:
        """Import every module of the package and collect its plugs.

        A plug's name is that of the module attribute it was created as, unless it was given one. Raises AppImportError
        for a module that does not import, ConfigError where two plugs have one name.
        """
        found: dict[str, Plug] = {}
        for module in _modules(package):
            for attribute, value in vars(module).items():
                if not isinstance(value, Plug) or value.module != module.__name__ or value in found.values():
                    continue
                name = value.name if value.named else attribute
                if name in found:
                    raise ConfigError(
                        f"Two plugs are called {name!r}: in {found[name].module} and in {module.__name__}",
                        hint="Rename one of them.",
                    )
                value.name = name
                found[name] = value
        return cls(found)


def _modules(package: str) -> list[ModuleType]:
    root = import_module(package)
    modules = [root]
    for info in pkgutil.walk_packages(getattr(root, "__path__", []), prefix=f"{package}.", onerror=import_module):
        if not info.name.endswith(".__main__"):
            modules.append(import_module(info.name))
    return modules


def import_module(name: str) -> ModuleType:
    """Import a module of the user's. Raises AppImportError that names file, line and exception, without a traceback."""
    try:
        return importlib.import_module(name)
    except KhotanError:
        raise
    except (Exception, SystemExit) as exc:
        raise import_error(name, exc) from None


def import_error(name: str, exc: BaseException) -> AppImportError:
    """The error for a module that raised. A message of the user's code is shown, its values and source lines are not."""
    if isinstance(exc, ModuleNotFoundError) and exc.name and (name == exc.name or name.startswith(f"{exc.name}.")):
        return AppImportError(
            f"There is no module {name!r}", hint="Run khotan init, or correct `package` and `app` in khotan.toml."
        )
    place = _place(exc)
    text = " ".join(str(exc).split())[:300]
    return AppImportError(
        f"{name} does not import: {type(exc).__name__}: {text}{place}", hint="Correct that line, then try again."
    )


def _place(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError) and exc.filename:
        return f" ({_short(exc.filename)}:{exc.lineno})"
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if "importlib" not in f.filename]
    own = [f for f in frames if "khotan_cli" not in f.filename and "site-packages" not in f.filename]
    last = (own or frames)[-1:]
    return f" ({_short(last[0].filename)}:{last[0].lineno})" if last else ""


def _short(filename: str) -> str:
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except ValueError:
        return filename
