"""`khotan --help` and `khotan --version` beside a one-command Typer program's `--help`, interleaved in one run.

Bound: each at most 1.25 times the peer, medians of whole processes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import report

ROUNDS, BOUND = 21, 1.25
PEER = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str) -> None:
    print(f"Hello {name}")
app()
"""


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        peer = Path(folder) / "hello.py"
        peer.write_text(PEER)
        commands = {
            "peer": [sys.executable, str(peer), "--help"],
            "help": [sys.executable, "-m", "khotan_cli", "--help"],
            "version": [sys.executable, "-m", "khotan_cli", "--version"],
        }
        for command in commands.values():
            timed(command)
        figures: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                figures[name].append(timed(command))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratios = {name: medians[name] / medians["peer"] for name in ("help", "version")}
    return report(
        "startup",
        ratios,
        at_most=dict.fromkeys(ratios, BOUND),
        milliseconds={name: round(value * 1000) for name, value in medians.items()},
    )


if __name__ == "__main__":
    sys.exit(main())
