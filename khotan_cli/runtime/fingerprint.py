"""A fingerprint of a package's source, which shows whether a process runs the project's current code.

It is a digest of the Python files of the package and of the modules of the same project that they import, directly or
indirectly. Imports are read from the source, not from the process, so that all processes with the same files compute
the same fingerprint. Installed libraries and other files are not included.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

_DIGITS = 16
_SKIPPED = frozenset(("__pycache__", "site-packages", "node_modules"))


def fingerprint_of(package: str) -> str:
    """The fingerprint of the current files of an importable package: 16 hexadecimal digits; empty if it has no files."""
    folders = _folders(package)
    if not folders:
        return ""
    root = folders[0].parents[package.count(".")]
    digest = hashlib.sha256()
    sources = _sources(root, folders)
    for path in sorted(sources):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(sources[path]).digest())
    return digest.hexdigest()[:_DIGITS]


def _folders(package: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]
    return [folder.resolve() for folder in folders if folder.is_dir()]


def _sources(root: Path, folders: list[Path]) -> dict[Path, bytes]:
    """The content of every included file, by path."""
    waiting = [path for folder in folders for path in folder.rglob("*.py") if not _SKIPPED & set(path.parts)]
    waiting += [path for folder in folders for path in _inits(root, folder)]
    found: dict[Path, bytes] = {}
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        try:
            found[path] = path.read_bytes()
        except OSError:  # deleted in the meantime
            continue
        if path.is_relative_to(root):
            waiting += _imported(root, path, found[path])
    return {path: content for path, content in found.items() if path.is_relative_to(root)}


def _inits(root: Path, folder: Path) -> Iterator[Path]:
    """The `__init__.py` of a folder's packages, its own included."""
    while folder != root and folder.is_relative_to(root):
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"
        folder = folder.parent


def _imported(root: Path, path: Path, content: bytes) -> Iterator[Path]:
    """Files of the project that a file imports."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, root, alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = (
                root if node.level == 0 else path.parents[node.level - 1] if node.level <= len(path.parents) else None
            )
            if start is None or not start.is_relative_to(root):
                continue
            for alias in node.names:
                yield from _files(root, start, ".".join(part for part in (node.module, alias.name) if part))


def _files(root: Path, start: Path, name: str) -> Iterator[Path]:
    """The files that importing a dotted name below a folder executes; its last part may be an attribute."""
    current = start
    for part in name.split("."):
        if part in _SKIPPED or not part.isidentifier():
            return
        module = current / f"{part}.py"
        current = current / part
        if module.is_file():
            yield module.resolve()
            return
        if not current.is_dir() or not current.resolve().is_relative_to(root):
            return
        if (current / "__init__.py").is_file():
            yield (current / "__init__.py").resolve()
