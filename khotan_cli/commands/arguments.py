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
    """Read JSON from an option: the text itself, a file (`@file`, or a file name that is not JSON), or `-` for stdin.

    Raises UsageError naming the line and column.
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
        # The message does not repeat the text: it may contain a secret.
        raise UsageError(
            f"{option} is not valid JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}",
            code="invalid_json",
            hint=f"""Use {option} '{{"limit": 10}}', {option} @file.json, or {option} - for standard input.""",
        ) from None
    except RecursionError:
        raise UsageError(f"{option} is nested too deeply", code="invalid_json", hint="Reduce the nesting.") from None


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
            f"{option}: cannot read {path}: {reason}", code="file_not_readable", hint="Check the path."
        ) from None


def read_object(option: str, text: str) -> dict[str, Any]:
    """Read a JSON object from an option. Raises UsageError for any other JSON."""
    if not text:
        return {}
    value = read_json(option, text)
    if not isinstance(value, dict):
        raise UsageError(
            f"{option} must be a JSON object, not {type(value).__name__}",
            code="invalid_json",
            hint=f"""Use for example {option} '{{"limit": 10}}'.""",
        )
    return value


def read_stdin() -> str:
    """Read standard input to its end. At a terminal, print how to end the input."""
    if sys.stdin.isatty():
        console.note("Type the value, then press Ctrl-D on a new line. Without --stdin, a hidden prompt asks for it.")
    return sys.stdin.read()


def moment(text: str) -> str | None:
    """Convert an ISO 8601 time, or a span before now (`90s`, `2h`, `7d`), to an ISO 8601 time. Raises UsageError."""
    if not text:
        return None
    span = _SPAN.fullmatch(text)
    if span:
        return (datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})).isoformat()
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"Invalid time {text!r}", hint="Use ISO 8601, such as 2026-01-31T08:00:00Z, or a span such as 2h."
        ) from None
    return (parsed if parsed.tzinfo else parsed.astimezone()).isoformat()
