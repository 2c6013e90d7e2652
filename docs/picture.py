"""Records the picture at the top of the README: `make picture` runs the demo's commands and keeps what a terminal shows."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from khotan_cli.sandbox.tour import Step, environment, run, sandbox, steps

TARGET = Path(__file__).with_name("compare.svg")
WIDTH = 118
SHOWN = ("compare", "correct", "compare-again")
"""The steps in the picture: the declaration is wrong, six lines change, it is true."""
_UP = "\x1b[1A"
_CURSOR = re.compile(r"\x1b\[\?25[lh]|\x1b\[1A|\r")
_FONT = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
"""The fonts that Rich would load from elsewhere: the picture uses what the reader has."""


def at_terminal(step: Step, folder: Path) -> str:
    """What a terminal shows of the step's command, with its colours."""
    terminal, inside = pty.openpty()
    size = {"COLUMNS": str(WIDTH), "LINES": "60", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = [sys.executable, "-m", "khotan_cli", *step.arguments]
    process = subprocess.Popen(
        command, cwd=folder, env={**environment(machine=False), **size}, stdin=inside, stdout=inside, stderr=inside
    )
    os.close(inside)
    parts: list[bytes] = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError:  # how Linux reports that the last writer is gone
        pass
    os.close(terminal)
    process.wait()
    shown: list[str] = []
    for line in b"".join(parts).decode().replace("\r\n", "\n").split("\n"):
        if _UP in line:  # a spinner that is erased again
            shown.pop()
        shown.append(_CURSOR.sub("", line.rpartition("\x1b[2K")[2]))
    return "\n".join(shown)


def main() -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with tempfile.TemporaryDirectory() as made, sandbox(8765) as url:
        folder = Path(made)
        for step in steps(url):
            if step.name in SHOWN and step.arguments:
                console.print(Text(f"$ {step.typed}", "bold cyan"))
                console.print(Text.from_ansi(at_terminal(step, folder).strip("\n")), "")
            elif step.name in SHOWN:
                console.print(Text(f"… six lines of the model change: {step.title.lower()}\n", "dim"))
                run(step, folder, capture=True)
            else:
                run(step, folder, capture=True)
            if step.name == SHOWN[-1]:
                break
    svg = console.export_svg(title="khotan", code_format=_FONT.sub("", CONSOLE_SVG_FORMAT), unique_id="khotan")
    TARGET.write_text(svg, encoding="utf-8")
    print(f"{TARGET}: {len(svg):,} bytes")


if __name__ == "__main__":
    main()
