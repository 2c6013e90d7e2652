"""Compares rendered files with those on disk: create, same, update, conflict. Only reads."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from khotan_cli.errors import UsageError
from khotan_cli.scaffold.manifest import Manifest, digest

Action = Literal["create", "same", "update", "conflict", "keep", "overwrite"]


@dataclass(frozen=True)
class Change:
    """One file. update: khotan wrote what is there, so it may be replaced; conflict: the user's changes would be lost."""

    path: str
    action: Action
    text: str
    present: str | None = None

    def diff(self) -> str:
        """Unified diff from what is there to what would be."""
        lines = difflib.unified_diff(
            (self.present or "").splitlines(keepends=True),
            self.text.splitlines(keepends=True),
            fromfile=self.path if self.present is not None else "/dev/null",
            tofile=self.path,
        )
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)

    def to_json(self) -> dict[str, str]:
        return {"path": self.path, "action": self.action}


def plan(root: Path, staged: Mapping[str, str], manifest: Manifest, *, force: bool = False) -> list[Change]:
    """What writing the files would do. Raises UsageError for a path that leaves the project, or is no file."""
    return [_change(root, path, text, manifest, force) for path, text in sorted(staged.items())]


def _change(root: Path, path: str, text: str, manifest: Manifest, force: bool) -> Change:
    target = inside(root, path)
    if target.is_dir():
        raise UsageError(f"{path} is a folder, but must be a file", hint="Move the folder.", code="file_exists")
    if not target.exists():
        return Change(path, "create", text)
    try:
        present = target.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        present = ""
    if present == text:
        return Change(path, "same", text, present)
    if manifest.written(path) == digest(present):
        return Change(path, "update", text, present)
    return Change(path, "overwrite" if force else "conflict", text, present)


def inside(root: Path, path: str) -> Path:
    """The absolute path of a file, links resolved. Raises UsageError where it is not inside the project."""
    target = root / path
    resolved, base = target.resolve(), root.resolve()
    if not resolved.is_relative_to(base) or resolved == base:
        raise UsageError(
            f"{path} is outside the project {base}",
            code="path_outside_project",
            hint="Choose a path inside the project.",
        )
    return target
