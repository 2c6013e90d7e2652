"""`khotan init`: what it writes into which kind of project."""

from __future__ import annotations

import importlib.util
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from khotan_cli.errors import UsageError
from khotan_cli.scaffold.apply import WRITING, apply
from khotan_cli.scaffold.catalog import component
from khotan_cli.scaffold.detect import Project, detect
from khotan_cli.scaffold.manifest import Manifest
from khotan_cli.scaffold.names import check_package
from khotan_cli.scaffold.plan import Change, inside, plan
from khotan_cli.scaffold.render import render

COMPONENT = "project"
GITIGNORE = ".env\n.venv/\n__pycache__/\n"


@dataclass(frozen=True)
class Written:
    """What a command did, or would do: a change per file, and what to do next. `notes` are for people and machines alike."""

    changes: Sequence[Change]
    notes: Sequence[str]
    next: Sequence[str]
    project: Project | None = None

    @property
    def written(self) -> list[str]:
        return [change.path for change in self.changes if change.action in WRITING]


def init_project(root: Path, *, package: str = "", full: bool = False, dry_run: bool = False) -> Written:
    """Write the project files. A file that is there is never overwritten: it is kept, and said so."""
    manifest = Manifest.load(root)
    found = detect(root)
    project = _project(root, found, package, manifest)
    folder = package_path(project.package, project.source)
    answers = {
        "package": project.package,
        "package_path": folder,
        "source": project.source,
        "serve": "main:app" if full else project.fastapi,
        "full": full,
    }
    _check_room(root, folder, manifest, project)
    if full and (root / project.source / "main.py").exists() and manifest.written("main.py") is None:
        raise UsageError(
            "main.py already exists", code="file_exists", hint="Omit --full, and add khotan with khotan.install(app)."
        )
    template = component(COMPONENT)
    staged = render(template, answers)
    changes = [_kept(change) for change in plan(root, staged, manifest)]
    notes, private = _environment(root, changes)
    recorded = {c.path: c.text for c in changes if c.action in WRITING}
    if not dry_run and any(change.action in WRITING for change in changes):
        own = {path: text for path, text in recorded.items() if path in staged}
        records = manifest.record(COMPONENT, "", version=template.version, answers=answers, files=own) if own else {}
        apply(root, changes, records, private=private)
    if project.fastapi and not full:
        notes += [
            f"Add two lines to {project.fastapi.partition(':')[0]}: "
            f"`from {project.package}.app import khotan` and `khotan.install({project.fastapi.partition(':')[2]})`."
        ]
    notes += _ignored(root, changes)
    steps = ["khotan add plug NAME --base-url https://api.example.com --auth bearer", "khotan migrate", "khotan doctor"]
    return Written(changes, notes, steps, project)


def _project(root: Path, found: Project, package: str, manifest: Manifest) -> Project:
    kept = manifest.components.get(COMPONENT, {}).get("answers", {})
    if kept and not package:
        # Second time: what the first decided stands.
        return Project(found.layout, kept["package"], kept["source"], kept["serve"] if not kept["full"] else "")
    name = check_package(package) if package else found.package
    return Project(found.layout, name, found.source, found.fastapi)


def _kept(change: Change) -> Change:
    """init never overwrites: what differs is kept."""
    return (
        Change(change.path, "keep", change.text, change.present) if change.action in ("conflict", "update") else change
    )


def _check_room(root: Path, path: str, manifest: Manifest, project: Project) -> None:
    folder = inside(root, path)
    foreign = folder.exists() and manifest.written(f"{path}/app.py") is None
    if foreign and (not folder.is_dir() or (any(folder.glob("*.py")) and not _ours(folder))):
        raise UsageError(
            f"{path} already exists and was not written by khotan",
            code="file_exists",
            hint="Choose another package: khotan init --package integrations.",
            next=["khotan init --package integrations"],
        )
    top = project.package.partition(".")[0]
    if not (root / project.source / top).exists() and _installed(top):
        raise UsageError(
            f"A package named {top!r} is already installed here",
            code="file_exists",
            hint="Choose another package: khotan init --package integrations.",
            next=["khotan init --package integrations"],
        )


def _ours(folder: Path) -> bool:
    app = folder / "app.py"
    return app.is_file() and "khotan_cli" in app.read_text(encoding="utf-8", errors="replace")


def _installed(name: str) -> bool:
    if name in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    origin = (spec.origin or "") if spec else ""
    return "site-packages" in origin or (spec is not None and not origin and not spec.submodule_search_locations)


def _environment(root: Path, changes: list[Change]) -> tuple[list[str], list[str]]:
    """`.env` with a fresh secret where there is none, `.gitignore` where there is none."""
    notes: list[str] = []
    if not (root / ".env").exists():
        text = f"# Not committed. See .env.template for every variable.\nKHOTAN_SECRET={secrets.token_urlsafe(48)}\n"
        changes.append(Change(".env", "create", text))
    elif not re.search(r"^\s*(export\s+)?KHOTAN_SECRET=\S", (root / ".env").read_text(errors="replace"), re.MULTILINE):
        notes.append(
            "Add KHOTAN_SECRET to .env: "
            "python -c \"import secrets; print('KHOTAN_SECRET=' + secrets.token_urlsafe(48))\" >> .env"
        )
    if not (root / ".gitignore").exists():
        changes.append(Change(".gitignore", "create", GITIGNORE))
    return notes, [".env"]


def _ignored(root: Path, changes: Sequence[Change]) -> list[str]:
    if any(change.path == ".gitignore" for change in changes):
        return []
    lines = (root / ".gitignore").read_text(errors="replace").splitlines()
    if any(line.strip() in (".env", "/.env", ".env*", "*.env", "**/.env") for line in lines):
        return []
    return ["Add a line `.env` to .gitignore: it holds the secret."]


def package_path(settings_package: str, source: str) -> str:
    """Folder of the khotan package relative to the project, POSIX."""
    parts = [] if source == "." else source.strip("/").split("/")
    return "/".join([*parts, *settings_package.split(".")])
