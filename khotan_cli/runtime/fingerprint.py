"""A fingerprint of a package's source, so that a process can say whether it runs the code that the project has now.

It is a digest over the Python files of the package and over the modules of the same project that those files import,
directly or through others. Which these are is read from the source, not from what a process has imported: any two processes
that see the same files compute the same fingerprint. Installed libraries and files that are not Python are left out.
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
    """The fingerprint of an importable package as its files are now: 16 hexadecimal digits; empty where it has no files."""
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
    found = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]
    return [folder.resolve() for folder in found if folder.is_dir()]


def _sources(root: Path, folders: list[Path]) -> dict[Path, bytes]:
    """Content by path of every file that counts."""
    waiting = [path for folder in folders for path in folder.rglob("*.py") if not _SKIPPED & set(path.parts)]
    waiting += [path for folder in folders for path in _inits(root, folder)]
    found: dict[Path, bytes] = {}
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        try:
            found[path] = path.read_bytes()
        except OSError:  # deleted meanwhile
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
    """Files of the project that a file's import statements name."""
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
    place = start
    for part in name.split("."):
        if part in _SKIPPED or not part.isidentifier():
            return
        module = place / f"{part}.py"
        place = place / part
        if module.is_file():
            yield module.resolve()
            return
        if not place.is_dir() or not place.resolve().is_relative_to(root):
            return
        if (place / "__init__.py").is_file():
            yield (place / "__init__.py").resolve()
