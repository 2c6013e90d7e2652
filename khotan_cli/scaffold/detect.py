"""What kind of project a folder holds."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["new", "flat", "src"]
_SKIPPED = frozenset({"node_modules", "tests", "test", "build", "dist", "site-packages", "__pycache__", "docs"})
_MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "Pipfile")
_FILES_READ = 2000


@dataclass(frozen=True)
class Project:
    """A layout: where the khotan package belongs, and a FastAPI application that is there already (import string)."""

    layout: Layout
    package: str
    source: str
    fastapi: str = ""


def detect(root: Path) -> Project:
    """Look at a folder. Nothing is imported: files are parsed."""
    source = root / "src"
    packages = sorted(p.parent.name for p in source.glob("*/__init__.py")) if source.is_dir() else []
    own = [name for name in packages if name.isidentifier() and name != "khotan"]
    if own:
        return Project("src", f"{own[0]}.khotan", "src", find_fastapi(source))
    python = any(root.glob("*.py")) or any((root / marker).exists() for marker in _MARKERS)
    found = find_fastapi(root)
    return Project("flat" if python or found else "new", "khotan", ".", found)


def find_fastapi(source: Path) -> str:
    """Import string of the first module-level `name = FastAPI(…)`; empty where there is none."""
    for path in _python_files(source):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue  # a file that does not parse holds no application that could be served
        for node in tree.body:
            name = _assigned_fastapi(node)
            if name:
                parts = path.relative_to(source).with_suffix("").parts
                module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                return f"{module}:{name}"
    return ""


def _assigned_fastapi(node: ast.stmt) -> str:
    value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    if not isinstance(value, ast.Call):
        return ""
    called = value.func
    callee = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if callee == "FastAPI" and isinstance(target, ast.Name) else ""


def _python_files(source: Path) -> Iterator[Path]:
    """Python files, shallow ones first; hidden folders, virtual environments and tests are left out."""
    found: list[Path] = []
    for folder, names, files in os.walk(source):
        here = Path(folder)
        names[:] = sorted(
            n for n in names if not n.startswith(".") and n not in _SKIPPED and not (here / n / "pyvenv.cfg").exists()
        )
        found += [here / name for name in sorted(files) if name.endswith(".py")]
        if len(found) > _FILES_READ:
            break
    return iter(sorted(found, key=lambda path: (len(path.parts), str(path))))
