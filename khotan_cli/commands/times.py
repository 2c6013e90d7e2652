"""Formats times for the terminal, in UTC."""

from __future__ import annotations


def when(text: str | None, default: str = "–") -> str:
    """Format an ISO 8601 time of the API, to the second."""
    return f"{text[:19].replace('T', ' ')} UTC" if text else default


def clock(text: str) -> str:
    """Format the time of day of an ISO 8601 time."""
    return f"{text[11:19]} UTC"


def span(seconds: float) -> str:
    """Format seconds in the largest unit that gives two or more, rounded down: `24 hours`, `3 minutes`."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}s"
    return f"{seconds:g} {'second' if seconds == 1 else 'seconds'}"
