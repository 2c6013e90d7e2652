"""All output of the command line.

A terminal gets Rich output; a pipe, `--json` or KHOTAN_OUTPUT=json gets exactly one JSON document on stdout.
Diagnostics go to stderr.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from khotan_cli.errors import KhotanError, UsageError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType
    from rich.text import Text


_LONG_WORD = 24
"""Words longer than this, such as URLs, may be wrapped."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""C0 and C1 control characters (ECMA-48), including escape, without tab and line feed."""


def visible(text: str) -> str:
    """Write control and escape characters as text (`\\x1b`), so that a terminal does not execute untrusted text."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _safe_console(**options: Any) -> RichConsole:
    """A Rich console that escapes control characters in everything it prints."""
    from rich.console import Console as RichConsole
    from rich.segment import Segment

    class SafeConsole(RichConsole):
        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                if segment.control or not _CONTROLS.search(segment.text):
                    yield segment
                else:
                    yield Segment(visible(segment.text), segment.style)

    return SafeConsole(**options)


class Console:
    """Chooses between JSON and terminal output; imports Rich when something is drawn."""

    def __init__(self) -> None:
        self.json_requested = False
        self._rich: dict[bool, RichConsole] = {}

    @property
    def machine(self) -> bool:
        """Whether results are JSON."""
        wanted = os.environ.get("KHOTAN_OUTPUT", "")
        if self.json_requested or wanted == "json":
            return True
        return wanted != "text" and not sys.stdout.isatty()

    @property
    def interactive(self) -> bool:
        """Whether a person at a terminal can answer questions."""
        return sys.stdin.isatty() and sys.stdout.isatty() and not self.machine

    def rich(self, *, stderr: bool = False) -> RichConsole:
        if stderr not in self._rich:
            self._rich[stderr] = _safe_console(stderr=stderr, highlight=False, soft_wrap=False)
        return self._rich[stderr]

    # -- results -----------------------------------------------------------------------------------------------------

    def result(self, document: Mapping[str, Any], render: Callable[[], None] | None = None) -> None:
        """Show the result of a command: `document` as JSON, or what `render` draws at a terminal."""
        if self.machine or render is None:
            self.document(document)
        else:
            render()

    def document(self, document: Mapping[str, Any]) -> None:
        """Write one JSON document to stdout, `ok` first."""
        if "ok" in document:
            document = {"ok": document["ok"], **document}
        text = json.dumps(document, ensure_ascii=False, indent=2, default=str)
        # JSON escapes only C0; the remaining control characters are inside strings.
        text = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        self.write(text + "\n")

    def write(self, text: str) -> None:
        """Write text to stdout unchanged. Characters that the terminal's encoding lacks are escaped."""
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()

    def draw(self, *what: RenderableType) -> None:
        """Print Rich renderables on stdout."""
        self.rich().print(*what)

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line of plain text on stdout, without interpreting markup."""
        from rich.text import Text

        self.draw(Text(visible(text), style=style))

    def success(self, text: str) -> None:
        self.line(f"✓ {text}", "green")

    def note(self, text: str, style: str = "dim") -> None:
        """Print a diagnostic on stderr, at a terminal only."""
        if not self.machine:
            from rich.text import Text

            self.rich(stderr=True).print(Text(visible(text), style=style))

    def warn(self, text: str) -> None:
        """Print a warning on stderr, also with JSON output."""
        if self.machine:
            sys.stderr.write(f"warning: {visible(text)}\n")
        else:
            self.note(f"! {text}", "yellow")

    def next_steps(self, commands: Sequence[str]) -> None:
        for command in commands:
            self.line(f"  → {command}", "cyan")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, whole: Sequence[str] = ()) -> None:
        """Print a table of plain text or Rich Text cells. Columns in `whole` are not wrapped, so that they can be copied.

        On a narrow terminal each row takes two lines: the `whole` columns (or the first column), then the others.
        """
        from rich.table import Table
        from rich.text import Text

        cells = [
            [Text(visible(cell)) if isinstance(cell, str) else _visible_cell(cell) for cell in row] for row in rows
        ]
        if _least_width(columns, cells, whole) > self.rich().width:
            self._blocks(columns, cells, whole or columns[:1])
            return
        table = Table(header_style="bold", border_style="dim")
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=column in whole)
        for row in cells:
            table.add_row(*row)
        self.draw(table)

    def _blocks(self, columns: Sequence[str], rows: Sequence[Sequence[Text]], whole: Sequence[str]) -> None:
        from rich.padding import Padding
        from rich.text import Text

        for row in rows:
            filled = [(column, cell) for column, cell in zip(columns, row, strict=True) if cell.plain not in ("", "–")]
            head = [cell for column, cell in filled if column in whole]
            rest = [
                Text.assemble((f"{column.lower()} ", "dim"), cell) for column, cell in filled if column not in whole
            ]
            self.draw(Text("  ").join(head))
            if rest:
                self.draw(Padding(Text(" · ").join(rest), (0, 0, 0, 4)))

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Show a spinner on stderr during the block."""
        if self.machine or not sys.stderr.isatty():
            yield
            return
        with self.rich(stderr=True).status(text):
            yield

    @contextmanager
    def live(self, title: str) -> Iterator[Callable[[str, float | None, float | None], None]]:
        """Show a progress bar on stderr during the block. Yields a function of text, done and total that updates it."""
        if self.machine or not sys.stderr.isatty():
            yield lambda _text, _done, _total: None
            return
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.text import Text

        columns = (
            SpinnerColumn(),
            TextColumn(title),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=self.rich(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=None)

            def update(text: str, done: float | None, total: float | None) -> None:
                shown = Text(visible(text)).markup  # a flow's message must not be read as markup
                progress.update(task, description=shown, completed=done or 0, total=total)

            yield update

    # -- errors ------------------------------------------------------------------------------------------------------

    def error(self, error: KhotanError) -> None:
        """Show an error: as JSON on stdout, or as message, hint and commands on stderr at a terminal."""
        if self.machine:
            self.document(error.to_json())
            return
        from rich.text import Text

        out = self.rich(stderr=True)
        out.print(Text(visible(f"✗ {error.message}"), style="bold red"))
        if error.hint:
            out.print(Text(visible(f"  {error.hint}")))
        for command in error.next:
            out.print(Text(visible(f"  → {command}"), style="cyan"))

    # -- questions ---------------------------------------------------------------------------------------------------

    def ask(self, question: str, *, instead: str, hidden: bool = False, default: str = "") -> str:
        """Ask for a text. Without a terminal, raises UsageError whose hint names the argument to give `instead`."""
        self._need_terminal(question, instead)
        from rich.prompt import Prompt

        answer = Prompt.ask(f"[bold]{question}[/bold]", console=self.rich(), password=hidden, default=default or None)
        return answer or ""

    def choose(self, question: str, choices: Sequence[str], *, instead: str, default: str) -> str:
        self._need_terminal(question, instead)
        from rich.prompt import Prompt

        return Prompt.ask(f"[bold]{question}[/bold]", console=self.rich(), choices=list(choices), default=default)

    def confirm(self, question: str, *, instead: str) -> bool:
        self._need_terminal(question, instead)
        from rich.prompt import Confirm

        return Confirm.ask(question, console=self.rich(), default=False)

    def _need_terminal(self, question: str, instead: str) -> None:
        if not self.interactive:
            subject = question.removesuffix("?")
            raise UsageError(f"{subject}: no terminal to ask at", code="no_terminal", hint=f"Give {instead} instead.")


def _visible_cell(cell: Text) -> Text:
    """The cell with control characters escaped, or the same cell if it has none."""
    if not _CONTROLS.search(cell.plain):
        return cell
    shown = cell.copy()
    shown.plain = visible(cell.plain)
    return shown


def _least_width(columns: Sequence[str], rows: Sequence[Sequence[Text]], whole: Sequence[str]) -> int:
    """Width, in terminal columns, that a table needs so that no word of normal length is broken."""
    from rich.cells import cell_len

    total = 1
    for number, column in enumerate(columns):
        texts = [column, *(row[number].plain for row in rows)]
        if column in whole:
            widths = [cell_len(line) for text in texts for line in text.splitlines()]
        else:
            widths = [min(cell_len(word), _LONG_WORD) for text in texts for word in text.split()]
        total += 3 + max(widths, default=0)
    return total


console = Console()
