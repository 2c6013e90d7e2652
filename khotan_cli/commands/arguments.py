"""Values given on the command line."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from khotan_cli.console import console
from khotan_cli.errors import UsageError

_SPAN = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_json(option: str, text: str) -> Any:
    """JSON of an option: the text itself, a file (`@file`, or its name where that is no JSON), or `-` for standard input.

    Raises UsageError naming the place.
    """
    source = text
    if text == "-":
        source = sys.stdin.read()
    elif text.startswith("@"):
        source = _read(option, text[1:])
    elif not _is_json(text) and _is_file(text):
        source = _read(option, text)
    try:
        return json.loads(source)
    except json.JSONDecodeError as exc:
        # What was typed is not repeated: it may hold a secret.
        raise UsageError(
            f"{option} is not valid JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}",
            code="invalid_json",
            hint=f"""For example {option} '{{"limit": 10}}', {option} @file.json, or {option} - for standard input.""",
        ) from None
    except RecursionError:
        raise UsageError(f"{option} is nested too deeply", code="invalid_json", hint="Flatten it.") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # too long for a path
        return False


def _read(option: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise UsageError(
            f"{option}: {path} cannot be read: {reason}", code="file_not_readable", hint="Check the path."
        ) from None


def read_object(option: str, text: str) -> dict[str, Any]:
    """JSON that must be an object."""
    if not text:
        return {}
    value = read_json(option, text)
    if not isinstance(value, dict):
        raise UsageError(
            f"{option} must be a JSON object, not {type(value).__name__}",
            code="invalid_json",
            hint=f"""For example {option} '{{"limit": 10}}'.""",
        )
    return value


def read_stdin() -> str:
    """Standard input to its end; at a terminal, where that is typed, it is said how."""
    if sys.stdin.isatty():
        console.note("Type the value, then Ctrl-D on a line of its own; without --stdin it is asked for, hidden.")
    return sys.stdin.read()


def moment(text: str) -> str | None:
    """An ISO 8601 moment from one, or from a span back from now (`90s`, `2h`, `7d`). Raises UsageError."""
    if not text:
        return None
    span = _SPAN.fullmatch(text)
    if span:
        return (datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})).isoformat()
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no time", hint="ISO 8601, such as 2026-01-31T08:00:00Z, or a span such as 2h."
        ) from None
    return (given if given.tzinfo else given.astimezone()).isoformat()
