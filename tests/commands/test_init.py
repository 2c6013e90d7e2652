"""`khotan init` in every kind of folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from khotan_cli.settings import FILE_KEYS, Settings
from tests.support.project import Done, Project, dev_server, run_forked

WRITTEN = {
    ".env",
    ".env.template",
    ".gitignore",
    ".khotan/.gitignore",
    "khotan.toml",
    "khotan/__init__.py",
    "khotan/app.py",
    "khotan/plugs/__init__.py",
}


def khotan(folder: Path, *args: str) -> Done:
    return run_forked(args, folder, Project(folder).environment({}))


def actions(done: Done) -> dict[str, str]:
    return {file["path"]: file["action"] for file in done.json["files"]}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_folder(tmp_path: Path) -> None:
    done = khotan(tmp_path, "init")
    assert done.code == 0 and actions(done) == dict.fromkeys(WRITTEN, "create")
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    secret = re.search(r"^KHOTAN_SECRET=(\S{64})$", (tmp_path / ".env").read_text(), re.MULTILINE)
    assert secret and secret[1] not in done.stdout
    assert ".env" in (tmp_path / ".gitignore").read_text().splitlines()
    listed = khotan(tmp_path, "plug", "--list")
    assert listed.code == 0 and listed.json["items"] == []
    before = files(tmp_path)
    again = khotan(tmp_path, "init")
    assert again.code == 0 and set(actions(again).values()) == {"same"} and files(tmp_path) == before


def test_every_variable_has_a_comment(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    text = (tmp_path / ".env.template").read_text()
    elsewhere = {"root", "found", *FILE_KEYS, "cron_secret"} - {"url"}
    wanted = {f"KHOTAN_{name.upper()}" for name in Settings.model_fields if name not in elsewhere}
    blocks = [block.splitlines() for block in text.split("\n\n")]
    for name in wanted | {"DATABASE_URL", "CRON_SECRET"}:
        block = next(b for b in blocks if any(re.match(rf"(# )?{name}=", line) for line in b))
        assert block[0].startswith("# ") and len(block[0]) > 20, name


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = khotan(tmp_path, "init", "--dry-run")
    assert set(actions(done)) == WRITTEN and list(tmp_path.iterdir()) == []


def test_an_existing_flat_project_keeps_what_it_has(tmp_path: Path) -> None:
    own = {
        "pyproject.toml": "[project]\n",
        ".env": "A=1\n",
        ".gitignore": "*.pyc\n",
        ".env.template": "A=\n",
        "x.py": "x = 1\n",
    }
    for name, text in own.items():
        (tmp_path / name).write_text(text)
    done = khotan(tmp_path, "init")
    assert done.code == 0 and actions(done)[".env.template"] == "keep"
    assert {name: (tmp_path / name).read_text() for name in own} == own
    notes = " ".join(done.json["notes"])
    assert "KHOTAN_SECRET" in notes and ".gitignore" in notes


def test_a_src_layout(tmp_path: Path) -> None:
    (tmp_path / "src" / "store").mkdir(parents=True)
    (tmp_path / "src" / "store" / "__init__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    done = khotan(tmp_path, "init")
    assert "src/store/khotan/app.py" in actions(done)
    assert 'package = "store.khotan"' in (tmp_path / "khotan.toml").read_text()
    added = khotan(tmp_path, "add", "plug", "shop", "--base-url", "https://x.example")
    assert next(f["path"] for f in added.json["files"]) == "src/store/khotan/plugs/shop.py"
    assert [p["name"] for p in khotan(tmp_path, "plug", "--list").json["items"]] == ["shop"]


MAIN = """from fastapi import FastAPI

api = FastAPI()


@api.get("/mine")
def mine() -> dict[str, bool]:
    return {"mine": True}
"""


def test_an_existing_fastapi_application(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("")
    main = tmp_path / "service" / "main.py"
    main.write_text(MAIN)
    done = khotan(tmp_path, "init")
    assert done.code == 0 and main.read_text() == MAIN
    assert 'serve = "service.main:api"' in (tmp_path / "khotan.toml").read_text()
    lines = re.findall(r"`(.*?)`", " ".join(done.json["notes"]))
    assert lines[:2] == ["from khotan.app import khotan", "khotan.install(api)"]
    main.write_text(f"{lines[0]}\n{MAIN}\n{lines[1]}\n")
    with dev_server(Project(tmp_path)) as url:
        assert httpx.get(f"{url}/mine").json() == {"mine": True}
        assert httpx.get(f"{url}/api/khotan/health").json()["ok"] is True


def test_full_writes_an_application_that_runs(tmp_path: Path) -> None:
    assert "main.py" in actions(khotan(tmp_path, "init", "--full"))
    with dev_server(Project(tmp_path)) as url:
        assert httpx.get(f"{url}/").json()["api"] == "/api/khotan"
        assert httpx.get(f"{url}/api/khotan/health").status_code == 200


@pytest.mark.parametrize(
    ("package", "code", "error"),
    [
        ("../out", 2, "path_outside_project"),
        ("class", 2, "invalid_name"),
        ("my-pkg", 2, "invalid_name"),
        ("khotan_cli", 2, "invalid_name"),
        ("json", 5, "file_exists"),
        ("pydantic", 5, "file_exists"),
        ("taken", 5, "file_exists"),
    ],
)
def test_packages_that_will_not_do(tmp_path: Path, package: str, code: int, error: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.py").write_text("x = 1\n")
    before = files(tmp_path)
    done = khotan(tmp_path, "init", "--package", package)
    assert (done.code, done.json["error"]) == (code, error), done.json
    assert files(tmp_path) == before


def test_another_package(tmp_path: Path) -> None:
    assert "integrations/app.py" in actions(khotan(tmp_path, "init", "--package", "integrations"))
    assert khotan(tmp_path, "plug", "--list").code == 0


def test_all_files_or_none(tmp_path: Path) -> None:
    (tmp_path / "khotan.toml").mkdir()
    done = khotan(tmp_path, "init")
    assert done.code == 5 and [p.name for p in tmp_path.iterdir()] == ["khotan.toml"]


def test_a_link_that_leaves_the_project(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "khotan").symlink_to(outside)
    done = khotan(inside, "init")
    assert (done.code, done.json["error"]) == (2, "path_outside_project") and list(outside.iterdir()) == []


def test_at_a_terminal_it_asks_for_the_package(tmp_path: Path) -> None:
    from tests.support.terminal import at_terminal

    text, code = at_terminal([sys.executable, "-m", "khotan_cli", "init"], tmp_path, [("Package", "links\n")])
    assert code == 0 and (tmp_path / "links" / "app.py").is_file() and "khotan add plug" in text


def test_settings_are_read_from_below_the_project(tmp_path: Path) -> None:
    khotan(tmp_path, "init")
    below = tmp_path / "deep" / "er"
    below.mkdir(parents=True)
    done: Any = khotan(below, "plug", "--list")
    assert done.code == 0
    assert khotan(tmp_path.parent, "--cwd", str(below), "plug", "--list").code == 0
    assert khotan(tmp_path, "-C", "nowhere", "plug", "--list").code == 2
