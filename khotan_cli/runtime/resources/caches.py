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

    ttl: time to live of an entry: seconds, a timedelta, or a text such as 90s, 30m, 6h, 7d; None: until it is deleted. scope:
    one set of entries for the app, for each flow, or for each variant of a flow. Raises ConfigError.
    """

    def __init__(self, name: str, *, ttl: Ttl = None, scope: Scope = "app") -> None:
        if not name or name.startswith("_") or not re.fullmatch(r"[\w.-]+", name):
            raise ConfigError(
                f"Invalid cache name {name!r}",
                hint="Use letters, digits, dots, dashes and underscores; do not start with an underscore.",
            )
        if scope not in ("app", "flow", "variant"):
            raise ConfigError(f"Cache {name!r} has an unknown scope {scope!r}", hint="Use app, flow or variant.")
        self.name, self.scope, self.ttl = name, scope, _seconds(ttl, ConfigError)

    def seconds(self, ttl: Ttl = None) -> float | None:
        """Return the time to live in seconds: `ttl`, or else the cache's default. Raises UsageError."""
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
        """Return the existing entries that have not expired."""
        return await self._store.get_many(self.cache.name, self.owner, list(keys))

    async def set(self, key: str, value: Any, ttl: Ttl = None) -> None:
        """Store an entry. Raises UsageError if the value is not JSON or the key is empty."""
        await self.set_many({key: value}, ttl)

    async def set_many(self, values: Mapping[str, Any], ttl: Ttl = None) -> None:
        """Store several entries, all or none."""
        kept = {key: json_value(key, value) for key, value in values.items()}
        seconds = self.cache.seconds(ttl)
        if not self._held("set", kept):
            await self._store.set_many(self.cache.name, self.owner, kept, seconds)

    async def delete(self, key: str) -> bool:
        """Remove an entry. Returns False if it does not exist."""
        if is_dry_run():
            self._held("deleted", existing := await self.get_many([key]))
            return bool(existing)
        return await self._store.delete(self.cache.name, self.owner, key)

    async def keys(self, prefix: str = "") -> list[str]:
        return [entry.key for entry in (await self._store.entries(self.cache.name, self.owner, prefix))[0]]

    async def clear(self) -> int:
        """Remove all entries of this owner. Returns their number."""
        if is_dry_run():
            self._held("deleted", existing := await self.keys())
            return len(existing)
        return await self._store.clear(self.cache.name, self.owner)

    def _held(self, what: str, keys: Collection[str]) -> bool:
        """Report a suppressed write to the dry run. Returns whether this is a dry run."""
        return report_write(f"cache {self.cache.name}", {what: len(keys)}, list(keys)) if keys else is_dry_run()


def json_value(key: str, value: Any) -> Any:
    """Convert a value to JSON. Raises UsageError, which names the key."""
    if not isinstance(key, str) or not key:
        raise UsageError("A cache key must be a non-empty str", hint="Use a non-empty str.")
    try:
        return to_jsonable_python(value, inf_nan_mode="strings")
    except (PydanticSerializationError, ValueError, RecursionError):
        raise UsageError(
            f"The value of {key!r} is not JSON: {type(value).__name__}",
            hint="Use JSON values or Pydantic models.",
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
        hint = "Use seconds, or a text such as 90s, 30m, 6h, 7d; at most a hundred years."
        raise error(f"Invalid time to live {str(ttl)[:50]!r}", hint=hint)
    return seconds
