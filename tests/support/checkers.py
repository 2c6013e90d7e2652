"""Type checkers as users run them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def checker_environment(folder: Path) -> dict[str, str]:
    """This environment, in which mypy starts from what `make check` has read of khotan and its libraries, if it has.

    The cache is copied into the folder: two test processes do not write to one.
    """
    cache, copy = _ROOT / ".mypy_cache", folder / ".mypy_cache"
    if cache.is_dir() and not copy.exists():
        shutil.copytree(cache, copy, ignore_dangling_symlinks=True)
    return {**os.environ, "MYPY_CACHE_DIR": str(copy)}
