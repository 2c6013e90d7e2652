"""`khotan migrate`, `khotan doctor`, `khotan dev`, as they are typed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.runtime.store.test_migrate import REVISIONS
from tests.support.children import end_with_parent
from tests.support.project import SECRET, Project, dev_server, write_project


@pytest.fixture
def fresh(tmp_path: Path, database_url: str) -> Project:
    return write_project(tmp_path / "p", "http://127.0.0.1:9", database_url=database_url)


def test_migrate(fresh: Project) -> None:
    pending = fresh.khotan("migrate", "--status")
    assert pending.code == 0 and pending.json["upToDate"] is False and pending.json["current"] is None
    assert pending.json["next"] == ["khotan migrate"]
    done = fresh.khotan("migrate")
    assert done.code == 0 and [step["revision"] for step in done.json["applied"]] == REVISIONS
    again = fresh.khotan("migrate", json_mode=False)
    assert again.code == 0 and "already up to date" in again.stdout
    assert "already up to date" in fresh.khotan("migrate").json["message"]
    assert fresh.khotan("migrate", "--status").json["upToDate"] is True


def test_migrate_outside_a_project_needs_a_database_that_is_named(tmp_path: Path) -> None:
    outside = Project(tmp_path)
    for words in ([], ["--status"]):
        refused = outside.khotan("migrate", *words)
        assert (refused.code, refused.json["error"]) == (4, "not_initialized")
    assert list(tmp_path.iterdir()) == []
    named = {"DATABASE_URL": f"sqlite:///{tmp_path / 'app.db'}"}
    assert outside.khotan("migrate", env=named).json["upToDate"] is True


def test_push_and_sql(fresh: Project) -> None:
    sql = fresh.khotan("migrate", "--sql")
    assert "CREATE TABLE khotan_vars" in sql.json["sql"]
    assert fresh.khotan("migrate", "--sql", json_mode=False).stdout.rstrip().endswith(";")
    assert fresh.khotan("migrate", "--status").json["upToDate"] is False, "--sql changes nothing"
    assert fresh.khotan("migrate", "--push").json["upToDate"] is True
    assert fresh.khotan("migrate").json["applied"] == []
    assert fresh.khotan("vars", "shop", "set", "region=x").code == 0


def test_migrate_needs_no_app(fresh: Project) -> None:
    (fresh.folder / "khotan/app.py").write_text("raise RuntimeError('broken')\n")
    assert fresh.khotan("migrate").code == 0


# -- doctor --------------------------------------------------------------------------------------------------------------


def checks(project: Project, code: int, **env: str) -> dict[str, Any]:
    done = project.khotan("doctor", env=env)
    assert done.code == code, done.json
    return {check["name"]: check for check in done.json["checks"]}


def test_doctor_on_a_good_project(fresh: Project) -> None:
    fresh.khotan("migrate")
    found = checks(fresh, 0, SHOP_TOKEN="t")
    assert {name: check["outcome"] for name, check in found.items()} == {
        "configuration": "ok",
        "secret": "ok",
        "database": "ok",
        "migrations": "ok",
        "stored values": "ok",
        "app": "ok",
        "authorize": "warning",
        "variables": "ok",
    }
    shown = fresh.khotan("doctor", json_mode=False)
    assert shown.code == 0 and "✓ database" in shown.stdout and "shop.token" in shown.stdout


def test_doctor_says_which_wires_hear_nothing(fresh: Project) -> None:
    fresh.khotan("migrate")
    fresh.khotan("add", "wire", "shop", "--plug", "shop", "--signature", "stripe")
    fresh.khotan("add", "wire", "managed", "--plug", "shop", "--signature", "github", "--managed")
    found = checks(fresh, 0)["webhooks"]
    assert found["outcome"] == "warning"
    assert found["message"] == "shop: secret not set; shop/managed is not subscribed"
    assert found["next"] == ["khotan wire vars shop set secret --stdin", "khotan wire create shop/managed"]
    assert "secret not set" in fresh.khotan("wire", "list", json_mode=False).stdout
    (fresh.folder / "khotan/wires/managed.py").unlink()
    assert checks(fresh, 0, SHOP_WEBHOOK_SECRET="whsec_signing_only")["webhooks"]["outcome"] == "ok"


def test_doctor_names_what_fails_and_what_to_do(fresh: Project, tmp_path: Path) -> None:
    found = checks(fresh, 1, KHOTAN_SECRET="")
    assert (found["secret"]["outcome"], found["migrations"]["next"]) == ("failed", ["khotan migrate"])
    assert checks(fresh, 1, DATABASE_URL="postgresql://a:b@127.0.0.1:1/c")["database"]["outcome"] == "failed"
    fresh.khotan("migrate")
    (fresh.folder / "khotan/plugs/bad.py").write_text("x = 1\nimport nothing_of_that_name\n")
    broken = checks(fresh, 1)["app"]
    assert broken["outcome"] == "failed" and "khotan/plugs/bad.py:2" in broken["message"]
    empty = Project(tmp_path)
    assert checks(empty, 1)["configuration"]["next"] == ["khotan init"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('packge = "khotan"\n', "'package'"),
        ("package = \n", "line 1"),
        ('package = "a-b"\n', "package"),
        ('source = "../x"\n', "source"),
        ('app = "nonsense"\n', "app"),
        ('url = "x"\n', "url"),
        ('secret = "x"\n', "secret"),
    ],
)
def test_a_khotan_toml_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    made = write_project(tmp_path / "p", "http://127.0.0.1:9")
    (made.folder / "khotan.toml").write_text(text)
    for args in (["plug", "--list"], ["migrate"], ["add", "plug", "x", "--base-url", "https://x.example"]):
        done = made.khotan(*args)
        assert (done.code, done.json["error"]) == (2, "config_invalid")
        assert words in done.json["message"] + done.json["hint"] and "khotan.toml" in done.json["message"]
    assert checks(made, 1)["configuration"]["outcome"] == "failed"


@pytest.mark.parametrize(
    ("app", "toml", "error", "words"),
    [
        ("raise ValueError('boom')\n", "", "app_import_failed", "khotan/app.py:1"),
        ("khotan = 5\n", "", "app_import_failed", "int"),
        ("x = 1\n", "", "app_import_failed", "'khotan'"),
        ("def broken(:\n", "", "app_import_failed", "SyntaxError"),
        ("", 'app = "khotan.nowhere:khotan"\n', "app_import_failed", "khotan.nowhere"),
        ("from khotan_cli.runtime import Khotan\nkhotan = Khotan(None)\n", "", "config_invalid", "__package__"),
    ],
)
def test_an_app_that_cannot_be_used(tmp_path: Path, app: str, toml: str, error: str, words: str) -> None:
    made = write_project(tmp_path / "p", "http://127.0.0.1:9")
    (made.folder / "khotan/app.py").write_text(app)
    (made.folder / "khotan.toml").write_text('package = "khotan"\n' + toml)
    done = made.khotan("plug", "--list")
    assert done.json["error"] == error and words in done.json["message"] + done.json["hint"], done.json
    assert done.code in (1, 2)


# -- dev -----------------------------------------------------------------------------------------------------------------


def test_dev_serves_and_reloads(tmp_path: Path) -> None:
    made = write_project(tmp_path / "p", "http://127.0.0.1:9")
    process = subprocess.Popen(
        [sys.executable, "-m", "khotan_cli", "dev", "--port", "0"],
        cwd=made.folder,
        env=made.environment({"KHOTAN_OUTPUT": "json"}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    )
    assert process.stderr is not None
    try:
        url = next(line.split("running on ")[1].split()[0] for line in process.stderr if "running on" in line)
        wait_until(lambda: httpx.get(f"{url}/api/khotan/health").json()["plugs"] == 1)
        second = (made.folder / "khotan/plugs/shop.py").read_text().replace("shop = Shop()", "other = Shop()")
        (made.folder / "khotan/plugs/second.py").write_text(second)
        wait_until(lambda: httpx.get(f"{url}/api/khotan/health").json()["plugs"] == 2)
    finally:
        process.terminate()
        process.communicate(timeout=120)


def wait_until(true: Any) -> None:
    """Ask again until it is so: the server says nothing when it has reloaded."""
    deadline = time.monotonic() + 120
    while True:
        try:
            if true():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_dev_says_why_not(tmp_path: Path) -> None:
    made = write_project(tmp_path / "p", "http://127.0.0.1:9")
    assert Project(tmp_path).khotan("dev").json["error"] == "not_initialized"
    with dev_server(made) as url:
        taken = made.khotan("dev", "--port", url.rpartition(":")[2])
        assert (taken.code, taken.json["error"]) == (4, "port_in_use") and "--port" in taken.json["hint"]
        assert taken.json["next"] == ["khotan dev --port 0"]


def test_production_refuses_to_start_unprotected(tmp_path: Path) -> None:
    made = write_project(tmp_path / "p", "http://127.0.0.1:9")
    command = [sys.executable, "-m", "uvicorn", "khotan.app:app", "--port", "0"]
    env = made.environment({"KHOTAN_SECRET": SECRET})
    done = subprocess.run(command, check=False, cwd=made.folder, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0 and "authorize" in done.stderr and SECRET not in done.stderr
