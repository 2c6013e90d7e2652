"""Which line of the user's code an exception came through."""

from __future__ import annotations

import importlib
import os
import sysconfig
import traceback
from pathlib import Path

from khotan_cli.errors import KhotanError

_NOT_THE_USERS = (str(Path(__file__).parents[1]) + os.sep, sysconfig.get_path("stdlib") + os.sep)
_MACHINERY = ("<frozen ", "<string>", str(importlib.__file__))
"""What Python itself runs between two lines of somebody's; "<string>" is the __init__ that a dataclass has made up."""


def user_location(exc: BaseException) -> str:
    """`file:line`, in the user's own code where the exception passed through it; empty where nothing is known."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{_short(exc.filename)}:{exc.lineno}"
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if not f.filename.startswith(_MACHINERY)]
    own = [f for f in frames if not f.filename.startswith(_NOT_THE_USERS) and "site-packages" not in f.filename]
    last = (own or ([] if isinstance(exc, KhotanError) else frames))[-1:]
    return f"{_short(last[0].filename)}:{last[0].lineno}" if last else ""


def _short(filename: str) -> str:
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except ValueError:
        return filename
