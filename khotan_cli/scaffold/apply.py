"""Writes all files of a plan, or none."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from khotan_cli.errors import KhotanError
from khotan_cli.scaffold.plan import Change, inside

WRITING = ("create", "update", "overwrite")


def apply(root: Path, changes: Sequence[Change], records: Mapping[str, str], *, private: Sequence[str] = ()) -> None:
    """Write the changes and the record files. `private` paths get mode 0600.

    All texts are first written beside their targets, then renamed into place; if one step fails, what was renamed is put
    back. Raises KhotanError; the project is then as it was.
    """
    files = {change.path: change.text for change in changes if change.action in WRITING}
    texts = {**files, **records}
    made: list[Path] = []
    staged: list[tuple[Path, Path]] = []
    before: list[tuple[Path, bytes | None]] = []
    try:
        for path, text in texts.items():
            target = inside(root, path)
            made += _make_folders(target.parent)
            mode = 0o600 if path in private else 0o644
            staged.append((_stage(target, text, mode), target))
        for temporary, target in staged:
            before.append((target, target.read_bytes() if target.exists() else None))
            temporary.replace(target)
    except OSError as exc:
        _undo(staged, before, made)
        raise KhotanError(
            f"{exc.filename or root} could not be written: {exc.strerror}",
            hint="Nothing was changed. Correct the cause, then try again.",
        ) from None


def _stage(target: Path, text: str, mode: int) -> Path:
    with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=".khotan-", delete=False, encoding="utf-8") as file:
        path = Path(file.name)
        try:
            file.write(text)
            file.flush()
            present = target.stat().st_mode & 0o777 if target.exists() else mode
            path.chmod(present)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return path


def _make_folders(folder: Path) -> list[Path]:
    """Create missing folders. Returns the created ones, outermost first."""
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir()
    return missing[::-1]


def _undo(
    staged: Sequence[tuple[Path, Path]], before: Sequence[tuple[Path, bytes | None]], made: Sequence[Path]
) -> None:
    for temporary, _ in staged:
        temporary.unlink(missing_ok=True)
    for target, content in before:
        if content is None:
            target.unlink(missing_ok=True)
        else:
            target.write_bytes(content)
    for folder in reversed(made):
        # A folder that somebody else has put something into meanwhile stays.
        with suppress(OSError):
            folder.rmdir()
