"""What every benchmark prints: one line of JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """The machine that the figures come from: its processor, the number of cores, the system and the Python."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def report(
    name: str,
    ratios: Mapping[str, float],
    *,
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
    **figures: Any,
) -> int:
    """Print the one line of a benchmark. Returns its exit code: 1 if a bound is missed, else 0.

    ratios: measured values by name. Each is a ratio to a peer of the same run, or a quantity whose name holds its unit. Every
    bound names one of them. figures: the values that the ratios come from.
    """
    bounds = {key: {"atLeast": value} for key, value in (at_least or {}).items()}
    for key, value in (at_most or {}).items():
        bounds.setdefault(key, {})["atMost"] = value
    missed = [
        key
        for key, bound in bounds.items()
        if ratios[key] < bound.get("atLeast", float("-inf")) or ratios[key] > bound.get("atMost", float("inf"))
    ]
    document = {
        "bench": name,
        "ok": not missed,
        "missed": missed,
        "ratios": {key: round(value, 3) for key, value in ratios.items()},
        "bounds": bounds,
        **figures,
        "machine": machine(),
    }
    sys.stdout.write(json.dumps(document) + "\n")
    return 1 if missed else 0
