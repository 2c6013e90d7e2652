"""Finds the line of the user's code at which an exception was raised."""

from __future__ import annotations

import importlib
import os
import sysconfig
import traceback
from pathlib import Path

from khotan_cli.errors import KhotanError

_LIBRARY_PATHS = (str(Path(__file__).parents[1]) + os.sep, sysconfig.get_path("stdlib") + os.sep)
_MACHINERY = ("<frozen ", "<string>", str(importlib.__file__))
"""Frames of Python itself; "<string>" is a dataclass's generated __init__."""


def user_location(exc: BaseException) -> str:
    """`file:line` of an exception, in the user's code if it passed through it; empty if unknown."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{_short(exc.filename)}:{exc.lineno}"
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if not f.filename.startswith(_MACHINERY)]
    own = [f for f in frames if not f.filename.startswith(_LIBRARY_PATHS) and "site-packages" not in f.filename]
    last = (own or ([] if isinstance(exc, KhotanError) else frames))[-1:]
    return f"{_short(last[0].filename)}:{last[0].lineno}" if last else ""


def _short(filename: str) -> str:
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except ValueError:
        return filename
