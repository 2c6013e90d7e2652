"""Timestamp formats of signatures."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal

from khotan_cli.errors import ConfigError

TimestampFormat = Literal["seconds", "milliseconds", "iso"]
"""Unix time in seconds or milliseconds, or RFC 3339."""

TOLERANCE = 300.0
_DIGITS = re.compile(r"[0-9]{1,15}")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{5,15}([Zz]|[+-][0-9:]{4,6})")


def moment_of(timestamp: str, form: TimestampFormat) -> float | None:
    """Return the Unix time in seconds, or None if the timestamp does not have that format."""
    if form == "iso":
        try:
            return datetime.fromisoformat(timestamp).timestamp() if _ISO.fullmatch(timestamp) else None
        except (ValueError, OverflowError):
            return None
    if not _DIGITS.fullmatch(timestamp):
        return None
    return int(timestamp) / (1000 if form == "milliseconds" else 1)


def timestamp_of(now: float, form: TimestampFormat) -> str:
    """Format a Unix time."""
    if form == "iso":
        return datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return str(int(now * 1000 if form == "milliseconds" else now))


def check_tolerance(scheme: str, tolerance: float | None) -> None:
    """Raises ConfigError for a negative tolerance."""
    if tolerance is not None and not tolerance >= 0:
        raise ConfigError(
            f"{scheme}: invalid tolerance {tolerance:g}",
            hint="Use seconds, for example 300, or None to accept any timestamp.",
        )
