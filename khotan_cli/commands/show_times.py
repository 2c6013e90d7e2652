"""How moments look in a terminal: in UTC, and saying so."""

from __future__ import annotations


def when(text: str | None, default: str = "–") -> str:
    """An ISO 8601 moment of the API to the second."""
    return f"{text[:19].replace('T', ' ')} UTC" if text else default


def clock(text: str) -> str:
    """Its time of day."""
    return f"{text[11:19]} UTC"
