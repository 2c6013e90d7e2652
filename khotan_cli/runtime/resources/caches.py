"""Caches: named, durable key/value state with a time to live."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, to_jsonable_python

from khotan_cli.errors import ConfigError, UsageError
from khotan_cli.runtime.http.dry_run import is_dry_run, report_write
from khotan_cli.runtime.store.caches import CacheStore

Scope = Literal["app", "flow", "variant"]
Ttl = str | int | float | timedelta | None
_LONGEST_TTL = 100 * 365 * 86400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Cache:
    """A declared cache: `snapshots = Cache("product-snapshots", ttl="6h")`.

    ttl: how long an entry lives: seconds, a timedelta, or a text such as 90s, 30m, 6h, 7d; None: until it is deleted. scope:
    whose entries they are: one set for the app, or one for each flow, or for each variant of a flow. Raises ConfigError.
    """

    def __init__(self, name: str, *, ttl: Ttl = None, scope: Scope = "app") -> None:
        if not name or name.startswith("_") or not re.fullmatch(r"[\w.-]+", name):
            raise ConfigError(
                f"{name!r} is no name for a cache", hint="Letters, digits, dots, dashes; no underscore in front."
            )
        if scope not in ("app", "flow", "variant"):
            raise ConfigError(f"Cache {name!r} has an unknown scope {scope!r}", hint="app, flow or variant.")
        self.name, self.scope, self.ttl = name, scope, _seconds(ttl, ConfigError)

    def seconds(self, ttl: Ttl = None) -> float | None:
        """The time to live of an entry: the one given, else the cache's. Raises UsageError."""
        return self.ttl if ttl is None else _seconds(ttl, UsageError)

    def __repr__(self) -> str:
        return f"Cache({self.name!r})"


class CacheHandle:
    """The entries of one owner: `khotan.cache("product-snapshots")`."""

    def __init__(self, cache: Cache, store: CacheStore, owner: str = "") -> None:
        self.cache, self._store, self.owner = cache, store, owner

    async def get(self, key: str, default: Any = None) -> Any:
        return (await self.get_many([key])).get(key, default)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those that are there and have not expired."""
        return await self._store.get_many(self.cache.name, self.owner, list(keys))

    async def set(self, key: str, value: Any, ttl: Ttl = None) -> None:
        """Raises UsageError for a value that is not JSON, and an empty key."""
        await self.set_many({key: value}, ttl)

    async def set_many(self, values: Mapping[str, Any], ttl: Ttl = None) -> None:
        """All or none."""
        kept = {key: json_value(key, value) for key, value in values.items()}
        seconds = self.cache.seconds(ttl)
        if not self._held("set", kept):
            await self._store.set_many(self.cache.name, self.owner, kept, seconds)

    async def delete(self, key: str) -> bool:
        """Remove an entry; False where there is none."""
        if is_dry_run():
            self._held("deleted", there := await self.get_many([key]))
            return bool(there)
        return await self._store.delete(self.cache.name, self.owner, key)

    async def keys(self, prefix: str = "") -> list[str]:
        return [entry.key for entry in (await self._store.entries(self.cache.name, self.owner, prefix))[0]]

    async def clear(self) -> int:
        """Remove all entries of this owner; how many there were."""
        if is_dry_run():
            self._held("deleted", there := await self.keys())
            return len(there)
        return await self._store.clear(self.cache.name, self.owner)

    def _held(self, what: str, keys: Collection[str]) -> bool:
        """Whether a dry run lasts; it is told of what is held back."""
        return report_write(f"cache {self.cache.name}", {what: len(keys)}, list(keys)) if keys else is_dry_run()


def json_value(key: str, value: Any) -> Any:
    """The value as JSON. Raises UsageError naming the key."""
    if not isinstance(key, str) or not key:
        raise UsageError("A cache's key is empty, or no text", hint="Give a text.")
    try:
        return to_jsonable_python(value, inf_nan_mode="strings")
    except (PydanticSerializationError, ValueError, RecursionError):
        raise UsageError(
            f"The value of {key!r} is not JSON, but {type(value).__name__}",
            hint="Texts, numbers, lists, dicts, models.",
        ) from None


def _seconds(ttl: Ttl, error: type[ConfigError] | type[UsageError]) -> float | None:
    if ttl is None:
        return None
    seconds: float = math.nan
    if isinstance(ttl, timedelta):
        seconds = ttl.total_seconds()
    elif isinstance(ttl, (int, float)) and not isinstance(ttl, bool):
        seconds = float(min(ttl, _LONGEST_TTL + 1))
    elif isinstance(ttl, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", ttl.strip())):
        seconds = float(found[1]) * _UNITS[found[2] or "s"]
    if not 0 < seconds <= _LONGEST_TTL:  # neither is NaN
        hint = "Seconds, or a text such as 90s, 30m, 6h, 7d; a hundred years at most."
        raise error(f"{str(ttl)[:50]!r} is not a time to live", hint=hint)
    return seconds
