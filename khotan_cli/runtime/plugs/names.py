"""Names that a plug class may give to its endpoints and variables."""

from __future__ import annotations

from collections.abc import Iterable

from khotan_cli.errors import ConfigError


def check_names(plug: str, names: Iterable[str], reserved: type) -> None:
    """Raises ConfigError for a name that `reserved` has an attribute of, and for one that starts with an underscore."""
    for name in names:
        if hasattr(reserved, name):
            raise ConfigError(
                f"{plug}.{name}: a plug has an attribute of that name already",
                hint=f"Call it otherwise, for example {name}_.",
            )
        if name.startswith("_"):
            raise ConfigError(
                f"{plug}.{name}: names of endpoints and variables do not start with '_'",
                hint=f"Call it {name.lstrip('_') or 'value'}.",
            )
