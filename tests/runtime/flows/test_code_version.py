"""A process says whether it runs the code that the project has now."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from khotan_cli.runtime.fingerprint import fingerprint_of
from tests.support.flows import Source, flows_project, some_items, trigger, wait_until_ended, worker
from tests.support.loopback import threaded_loopback
from tests.support.project import Project

Edit = Callable[[Path], object]


def _add(name: str, text: str = "# more\n") -> Edit:
    def edit(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + text)

    return edit


@pytest.fixture
def shop_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "fingered/__init__.py": "",
        "fingered/khotan/__init__.py": "",
        "fingered/khotan/flows/items.py": "from ...names import NAMES\nimport fingered_helpers.money\n",
        "fingered/khotan/flows/namespace.py": "def late():\n    from fingered_late import x\n",
        "fingered/names.py": "from . import deeper\nNAMES = deeper.ALL\n",
        "fingered/deeper.py": "ALL = []\n",
        "fingered/web.py": "from fingered import khotan\n",
        "fingered_helpers/__init__.py": "",
        "fingered_helpers/money.py": "import json, orjson\n",
        "fingered_helpers/unused.py": "",
        "fingered_late.py": "x = 1\n",
        "main.py": "import fingered.khotan\n",
    }
    for name, text in files.items():
        _add(name, text)(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fingered", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("edit", "changes"),
    [
        (_add("fingered/khotan/flows/items.py"), True),
        (_add("fingered/khotan/flows/new.py", ""), True),
        (lambda root: (root / "fingered/khotan/flows/namespace.py").unlink(), True),
        (_add("fingered/__init__.py"), True),
        (_add("fingered/names.py"), True),
        (_add("fingered/deeper.py"), True),
        (_add("fingered_helpers/money.py"), True),
        (_add("fingered_helpers/__init__.py"), True),
        (_add("fingered_late.py"), True),
        (_add("main.py"), False),
        (_add("fingered/web.py"), False),
        (_add("fingered_helpers/unused.py"), False),
        (_add("fingered/khotan/notes.txt"), False),
        (_add("fingered/khotan/__pycache__/items.py"), False),
        (lambda root: (root / "fingered/khotan/flows/items.py").touch(), False),
    ],
)
def test_what_a_fingerprint_covers(shop_root: Path, edit: Edit, changes: bool) -> None:
    before = fingerprint_of("fingered.khotan")
    edit(shop_root)
    assert len(before) == 16
    assert (fingerprint_of("fingered.khotan") != before) is changes


def test_the_same_files_elsewhere_have_the_same_fingerprint(
    shop_root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint_of("fingered.khotan")
    other = tmp_path_factory.mktemp("other") / "deployed"
    shutil.copytree(shop_root, other)
    monkeypatch.delitem(sys.modules, "fingered", raising=False)
    monkeypatch.delitem(sys.modules, "fingered.khotan", raising=False)
    monkeypatch.setattr(sys, "path", [str(other), *[entry for entry in sys.path if entry != str(shop_root)]])
    assert fingerprint_of("fingered.khotan") == before


def test_a_file_that_does_not_parse_counts(shop_root: Path) -> None:
    before = fingerprint_of("fingered.khotan")
    (shop_root / "fingered/khotan/broken.py").write_text("def (:\n")
    assert fingerprint_of("fingered.khotan") not in ("", before)


def test_no_such_package() -> None:
    assert fingerprint_of("no_such_package_anywhere.khotan") == ""


@pytest.mark.timeout(120)
def test_a_worker_that_started_before_the_code_changed_is_named(database_url: str, tmp_path: Path) -> None:
    with threaded_loopback(Source(some_items(5))) as served:
        project = flows_project(tmp_path, served.url, database_url)
        module = tmp_path / "khotan" / "flows" / "items.py"
        with worker(project) as running:
            wait_until_ended(database_url, trigger(project, "items"))
            same = project.khotan("flows", "trigger", "items", "--wait").json
            assert (same["outdatedWorkers"], same["codeOutdated"]) == (0, False)
            assert check_of_workers(project)["outcome"] == "ok"
            module.write_text(module.read_text() + "\n# edited\n")
            told = project.khotan("flows", "trigger", "items", "--wait", json_mode=False)
            assert "A worker runs an older version of the project's code" in told.stdout + told.stderr
            waited = project.khotan("flows", "trigger", "items", "--wait").json
            started = project.khotan("flows", "trigger", "items").json
            wait_until_ended(database_url, started["id"])
            check = check_of_workers(project)
            shown = project.khotan("flows", "show", waited["id"], json_mode=False).stdout
            listed = project.khotan("flows", "runs").json["items"]
            table = project.khotan("flows", "runs", json_mode=False).stdout
            running.stop()
        with worker(project) as again:
            fresh = trigger(project, "items")
            wait_until_ended(database_url, fresh)
            run = project.khotan("flows", "show", fresh).json
            now = check_of_workers(project)
            again.stop()
        none = [check for check in project.khotan("doctor").json["checks"] if check["name"] == "workers"]
    assert (waited["outdatedWorkers"], waited["codeOutdated"]) == (1, True)
    assert started["outdatedWorkers"] == 1
    assert check["outcome"] == "warning" and "1 of 1 runs an older version" in check["message"]
    assert "Restart" in check["hint"]
    assert "used an older version" in shown and "ran an older version" in table
    assert {one["codeOutdated"] for one in listed} == {True}
    assert (run["codeOutdated"], now["outcome"], none) == (False, "ok", [])


def check_of_workers(project: Project) -> dict[str, str]:
    checks = project.khotan("doctor").json["checks"]
    found: dict[str, str] = next(check for check in checks if check["name"] == "workers")
    return found
