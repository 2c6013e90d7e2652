"""The project itself: its layers, its public names, what its files may hold."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from pydantic import BaseModel

import khotan_cli
import khotan_cli.runtime

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def sources() -> list[Path]:
    return [path for path in sorted((ROOT / "khotan_cli").rglob("*.py")) if "templates" not in path.parts]


def test_the_version_is_one() -> None:
    assert metadata.version("khotan-cli") == khotan_cli.__version__
    assert f"## {khotan_cli.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    done = subprocess.run([sys.executable, "-m", "khotan_cli", "--version"], capture_output=True, text=True, check=True)
    assert khotan_cli.__version__ in done.stdout


def test_constraints_are_names_and_versions_and_cover_what_is_declared() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    pinned = {_canonical(line.partition("==")[0]) for line in lines}
    declared = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    missing = {_canonical(re.split(r"[\[<>=!~; ]", requirement)[0]) for requirement in declared} - pinned
    assert not missing


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_tracked_file_names_a_package_host_or_a_path_of_some_machine() -> None:
    hosts = ["pypi" + ".org", "python" + "hosted", "registry." + "npmjs", "npmjs" + ".org", "yarnpkg" + ".com"]
    paths = ["/ho" + "me/", "/Us" + "ers/", "/ro" + "ot/", "/wo" + "rk/", "/op" + "t/"]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in tracked()
        for word in [*hosts, *paths]
        if word in path.read_text(encoding="utf-8", errors="ignore")
    ]
    assert not found


def test_there_is_no_lock_file() -> None:
    locks = re.compile(
        r"(uv|poetry|pdm|pylock.*)\.(lock|toml)|(package-lock|npm-shrinkwrap)\.json|yarn\.lock|pnpm-lock\.yaml"
    )
    assert not [path.name for path in tracked() if locks.fullmatch(path.name) and path.name != "pyproject.toml"]


def test_a_file_reads_in_one_sitting() -> None:
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in sources()}
    assert not {name: length for name, length in lengths.items() if length > 350}


def test_a_function_fits_on_a_screen() -> None:
    # Its body: the signature of a command is the table of its options.
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.body[0].lineno >= 60
    ]
    assert not long


def test_only_the_console_prints_and_nobody_swallows() -> None:
    prints, swallowed = [], []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                prints.append(where)
            if isinstance(node, ast.ExceptHandler) and all(isinstance(step, ast.Pass) for step in node.body):
                swallowed.append((where, node.type))
    assert not prints
    # Only a named, narrow exception may be let go without a word, and never a whole class of them.
    broad = [where for where, kind in swallowed if kind is None or ast.unparse(kind) in ("Exception", "BaseException")]
    assert not broad


def test_every_public_class_and_function_of_the_runtime_says_what_it_is() -> None:
    silent = [name for name in khotan_cli.runtime.__all__ if not inspect.getdoc(getattr(khotan_cli.runtime, name))]
    assert not [name for name in silent if isinstance(getattr(khotan_cli.runtime, name), type)]


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "skills").rglob("*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            if not (path.parent / target).exists():
                broken.append(f"{path.name}: {target}")
    assert not broken


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def test_the_plugs_in_the_readme_work_as_they_stand() -> None:
    class Product(BaseModel):
        id: str

    class ProductPage(BaseModel):
        items: list[Product]
        total: int

    first, second = python_blocks(ROOT / "README.md")[:2]
    declared: dict[str, object] = {"__name__": "readme", "Product": Product, "ProductPage": ProductPage}
    exec(first, declared)
    shop = declared["shop"]
    assert isinstance(shop, khotan_cli.runtime.Plug) and set(shop.endpoints()) == {"list_products", "get_product"}
    exec(second, declared)
    plug = declared["stripe"]
    assert isinstance(plug, khotan_cli.runtime.Plug)
    assert set(plug.endpoints()) == {"list_charges", "get_charge"}


def test_code_in_the_documents_is_python_and_imports_what_there_is() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "skills").rglob("*.md")]:
        for block in python_blocks(path):
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
            tree = compile(block.replace("…", "..."), str(path), "exec", flags)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("khotan_cli"):
                    module = importlib.import_module(str(node.module))
                    assert all(hasattr(module, name.name) for name in node.names), (path.name, node.names)


def test_commands_in_the_documents_exist() -> None:
    from khotan_cli.cli import ALIASES, COMMANDS

    known = {*COMMANDS, *ALIASES, "--help", "--version", "-C"}
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "skills").rglob("*.md")]:
        found = re.findall(r"^(?:    |\$ )khotan (\S+)", path.read_text(), re.MULTILINE)
        assert not [word for word in found if word not in known], path.name
