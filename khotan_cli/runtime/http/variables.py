"""Variables of a plug: their declaration and the sources of their values."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets as random_source
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.redaction.known_secrets import known

Source = Literal["override", "database", "environment", "default", "missing"]

HIDDEN_PREFIX = "_"
"""Prefix of khotan's own keys (`_token.…`), which are never listed or set by users."""


class Var:
    """A runtime variable of a plug: a credential, a tenant, a region.

    The name is that of the attribute. The value comes from the database, else from the environment variable `env`
    (default: `<PLUG>_<NAME>` in upper case), else from `default`.
    """

    def __init__(
        self,
        *,
        label: str = "",
        description: str = "",
        secret: bool = False,
        env: str | None = None,
        default: str | None = None,
        required: bool = True,
    ) -> None:
        self.name = ""
        self.label = label
        self.description = description
        self.secret = secret
        self.env = env
        self.default = default
        self.required = required

    def __set_name__(self, owner: type[object], name: str) -> None:
        if not self.name:
            self.name = name

    def env_name(self, plug: str) -> str:
        """Name of the environment variable for the plug of that name."""
        return self.env or f"{plug}_{self.name}".upper()

    def __repr__(self) -> str:
        return f"Var({self.name!r}{', secret' if self.secret else ''})"


class VarStore(Protocol):
    """Stores values. `store/variables.py` keeps them encrypted in the database, `EnvVarStore` in memory."""

    async def load(self, plug: str) -> Mapping[str, str]:
        """All stored values of the plug in plain text, including hidden ones."""
        ...

    async def save(self, plug: str, values: Mapping[str, str]) -> None:
        """Store the values, each in its own row, in one transaction."""
        ...

    async def delete(self, plug: str, keys: Iterable[str]) -> list[str]:
        """Remove the values. Returns the keys that existed."""
        ...

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """A named lock across all tasks and processes that share this store."""
        ...

    def fingerprint(self, text: str) -> str:
        """A keyed digest (32 hex digits) that identifies a credential without revealing it."""
        ...


class EnvVarStore:
    """The store of a plug without a database: values are kept until the process ends."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, str]] = {}
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = WeakKeyDictionary()
        self._key = random_source.token_bytes(32)

    async def load(self, plug: str) -> Mapping[str, str]:
        return self._values.get(plug, {})

    async def save(self, plug: str, values: Mapping[str, str]) -> None:
        self._values.setdefault(plug, {}).update(values)

    async def delete(self, plug: str, keys: Iterable[str]) -> list[str]:
        stored = self._values.get(plug, {})
        return [key for key in keys if stored.pop(key, None) is not None]

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        return self._lock(name)

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        locks = self._locks.setdefault(asyncio.get_running_loop(), {})
        async with locks.setdefault(name, asyncio.Lock()):
            yield

    def fingerprint(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True)
class ResolvedVars:
    """The values used for one call. `values` has every declared variable with a value; `sources` their sources."""

    values: Mapping[str, str]
    sources: Mapping[str, Source]
    secret_names: frozenset[str] = field(default_factory=frozenset[str])

    def secrets(self) -> list[str]:
        """The values of secret variables, which must not be shown."""
        return [self.values[name] for name in self.secret_names if name in self.values]

    def __repr__(self) -> str:
        return f"ResolvedVars({dict(self.sources)!r})"


def resolve(
    plug: str, declared: Mapping[str, Var], stored: Mapping[str, str], overrides: Mapping[str, str]
) -> ResolvedVars:
    """Pick each declared var's value: override, database, environment, default, in this order.

    Secret values are masked from now on. Raises ConfigError (var_invalid) for a value that is not UTF-8 text.
    """
    values: dict[str, str] = {}
    sources: dict[str, Source] = {}
    for name, var in declared.items():
        env_value = os.environ.get(var.env_name(plug), "")
        candidates: tuple[tuple[Source, str | None], ...] = (
            ("override", overrides.get(name)),
            ("database", stored.get(name)),
            ("environment", env_value or None),
            ("default", var.default),
        )
        sources[name] = "missing"
        for source, value in candidates:
            if value is not None:
                if not value.isascii():
                    _check_text(plug, var, source, value)
                sources[name], values[name] = source, value
                break
    resolved = ResolvedVars(values, sources, frozenset(n for n, v in declared.items() if v.secret))
    known.add(resolved.secrets())
    return resolved


def _check_text(plug: str, var: Var, source: Source, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        origin = f"environment variable {var.env_name(plug)}" if source == "environment" else source
        raise ConfigError(
            f"The variable {var.name!r} of plug {plug!r} is not UTF-8 text",
            code="var_invalid",
            hint=f"Correct the value. It comes from the {origin}.",
        ) from None
