"""Control characters of foreign data are shown, and never reach a terminal."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console as RichConsole
from rich.text import Text

from khotan_cli.console import Console, visible
from khotan_cli.errors import KhotanError

EVIL = "a\x1b[31mb\x9b2Jc\x07d\x00e\x7ff\rg"
SHOWN = "a\\x1b[31mb\\x9b2Jc\\x07d\\x00e\\x7ff\\x0dg"


def test_controls_are_written_out_and_lines_and_letters_stay() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("é\t–\n漢") == "é\t–\n漢"


@pytest.mark.parametrize("way", ["line", "table", "rich cell", "draw", "note", "error"])
def test_no_way_of_printing_sends_them(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KHOTAN_OUTPUT", "text")
    console, out = Console(), io.StringIO()
    for stderr in (False, True):
        rich: RichConsole = console.rich(stderr=stderr)
        rich.file, rich.width = out, 200
    {
        "line": lambda: console.line(EVIL),
        "table": lambda: console.table(["Type"], [[EVIL]]),
        "rich cell": lambda: console.table(["Type"], [[Text(EVIL)]]),
        "draw": lambda: console.draw(Text(EVIL)),
        "note": lambda: console.note(EVIL),
        "error": lambda: console.error(KhotanError(EVIL, hint=EVIL)),
    }[way]()
    assert not set(out.getvalue()) & {"\x1b", "\x9b", "\x07", "\x00", "\x7f", "\r"}
    assert "\\x1b[31mb\\x9b2J" in out.getvalue()


def test_a_document_escapes_them_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    Console().document({"type": EVIL})
    written = capsys.readouterr().out
    assert json.loads(written) == {"type": EVIL}
    assert not set(written) & {"\x1b", "\x9b", "\x7f"}
