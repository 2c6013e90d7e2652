"""Checks the names of a plug's endpoints and variables."""

from __future__ import annotations

from collections.abc import Iterable

from khotan_cli.errors import ConfigError


def check_names(plug: str, names: Iterable[str], reserved: type) -> None:
    """Raises ConfigError for a name that is an attribute of `reserved`, or that starts with an underscore."""
    for name in names:
        if hasattr(reserved, name):
            raise ConfigError(
                f"Invalid name {plug}.{name}: {name} is an attribute of every plug",
                hint=f"Use another name, for example {name}_.",
            )
        if name.startswith("_"):
            raise ConfigError(
                f"Invalid name {plug}.{name}: names of endpoints and variables must not start with '_'",
                hint=f"Use {name.lstrip('_') or 'value'}.",
            )
