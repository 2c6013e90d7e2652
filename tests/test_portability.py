"""khotan imports and locks files where the POSIX-only modules of the standard library are missing, as on Windows."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import khotan_cli
from khotan_cli.runtime import event_loop

POSIX_ONLY = ["fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"]
"""Modules that the standard library's documentation lists as available on Unix only."""
# What the libraries import themselves is theirs to decide: they are imported before the modules are blocked, and only
# khotan's own modules are imported after.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
import khotan_cli

def names():
    yield "khotan_cli"
    for module in pkgutil.walk_packages(khotan_cli.__path__, "khotan_cli."):
        # Programs: they do their work when they are imported. env.py is alembic's to run.
        if not module.name.endswith((".__main__", ".migrations.env")) and ".templates" not in module.name:
            yield module.name

blocked = sys.argv[1:]
everything = list(names())
for name in everything:
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] == "khotan_cli"]:
    del sys.modules[name]
for name in blocked:
    sys.modules[name] = None
failed = {}
for name in everything:
    try:
        importlib.import_module(name)
    except ImportError as exc:
        failed[name] = str(exc)
print(json.dumps({"imported": len(everything), "failed": failed}))
"""


def imported(folder: Path, *blocked: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *blocked], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def at_the_top(source: str) -> set[str]:
    """The POSIX-only modules that a module imports when it is imported itself, in whatever block."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
        waiting += ast.iter_child_nodes(node)
    return found & set(POSIX_ONLY)


def test_no_module_imports_a_posix_only_module_at_its_top() -> None:
    package = Path(khotan_cli.__file__).parent
    offenders = {path: found for path in package.rglob("*.py") if (found := at_the_top(path.read_text("utf-8")))}
    assert offenders == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import fcntl", {"fcntl"}),
        ("from pwd import getpwnam", {"pwd"}),
        ("try:\n    import termios, tty\nexcept ImportError:\n    pass", {"termios", "tty"}),
        ("class A:\n    import grp", {"grp"}),
        ("def f() -> None:\n    import resource", set()),
        ("from . import fcntl\nimport filelock", set()),
    ],
)
def test_the_search_for_imports_sees_every_block_but_functions(source: str, found: set[str]) -> None:
    assert at_the_top(source) == found


def test_every_module_imports_without_the_posix_only_modules(tmp_path: Path) -> None:
    found = imported(tmp_path, *POSIX_ONLY)
    assert found["failed"] == {}
    assert found["imported"] > 200, "the walk finds every package"


def test_the_check_sees_a_module_that_is_missing(tmp_path: Path) -> None:
    assert imported(tmp_path, "filelock")["failed"].keys() >= {"khotan_cli.runtime.worker.worker_lock"}


def test_no_keys_are_read_where_there_is_no_termios(monkeypatch: pytest.MonkeyPatch) -> None:
    from khotan_cli.commands.wires.keyboard import Keys

    monkeypatch.setitem(sys.modules, "termios", None)
    with Keys() as keys:
        assert list(keys.pressed(0)) == []


def test_every_event_loop_of_khotan_is_one_that_psycopg_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(khotan_cli.__file__).parent
    own = package / "runtime" / "event_loop.py"
    started = {"run", "new_event_loop", "Runner"}
    offenders = [
        f"{path}:{node.lineno}"
        for path in package.rglob("*.py")
        if path != own
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "asyncio" and node.attr in started
    ]
    assert offenders == []
    monkeypatch.setattr("sys.platform", "win32")
    with asyncio.Runner(loop_factory=event_loop.new_event_loop) as runner:
        assert isinstance(runner.get_loop(), asyncio.SelectorEventLoop)
