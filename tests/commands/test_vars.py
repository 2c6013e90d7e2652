"""`khotan vars` and `khotan plug vars`, as they are typed, in-process and against a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.commands.conftest import TOKEN
from tests.support.project import Project, write_project


def shown(project: Project, *more: str) -> dict[str, Any]:
    done = project.khotan("plug", "vars", "shop", *more)
    assert done.code == 0, done.json
    return {var["key"]: var for var in done.json["items"]}


def test_show_masks_and_reveals_only_when_asked(project: Project) -> None:
    project.khotan("vars", "shop", "clear", "region")
    for args in (["vars", "--list"], ["vars", "shop"], ["plug", "vars", "shop"], ["vars"]):
        done = project.khotan(*args)
        assert done.code == 0 and TOKEN not in done.stdout and "••••3456" in done.stdout
    found = shown(project)
    assert (found["token"]["source"], found["region"]["source"]) == ("database", "default")
    assert found["region"]["masked"] == "eu" and found["token"]["env"] == "SHOP_TOKEN"
    assert shown(project, "--show-secrets")["token"]["value"] == TOKEN


@pytest.mark.parametrize(
    ("args", "stdin", "value"),
    [
        (["set", "region=us=1"], "", "us=1"),
        (["set", "region", "--stdin"], "from stdin\n", "from stdin"),
        (["set", "--json", '{"region": "as"}'], "", "as"),
        (["set", "--json", '{"region": 7}'], "", "7"),
    ],
)
def test_set(project: Project, args: list[str], stdin: str, value: str) -> None:
    done = project.khotan("vars", "shop", *args, stdin=stdin)
    assert done.code == 0 and done.json == {"ok": True, "plug": "shop", "set": ["region"]}
    assert shown(project, "--show-secrets")["region"]["value"] == value


def test_clear_says_what_it_did(project: Project) -> None:
    project.khotan("vars", "shop", "set", "region=us")
    assert project.khotan("vars", "shop", "clear", "region").json["cleared"] == ["region"]
    again = project.khotan("vars", "shop", "clear", "region")
    assert again.code == 0 and again.json["cleared"] == [] and "nothing" in again.json["message"].lower()
    assert shown(project)["region"]["source"] == "default"


@pytest.mark.parametrize(
    ("args", "stdin", "code", "error", "words"),
    [
        (["shop", "set", "tokn=x"], "", 2, "unknown_var", "'token'"),
        (["shop", "clear", "tokn"], "", 2, "unknown_var", "'token'"),
        (["shop", "set", "region="], "", 2, "empty_value", "region"),
        (["shop", "set", "region", "--stdin"], "\n", 2, "empty_value", "region"),
        (["shop", "set", "--json", '{"region": ""}'], "", 2, "empty_value", "region"),
        (["shop", "set", "--json", "{"], "", 2, "invalid_json", "--json"),
        (["shop", "set", "--json", '{"region": [1]}'], "", 2, "invalid_json", "region"),
        (["shop", "set", "--json", "{}"], "", 2, "invalid_input", "No variables given"),
        (["shop", "set", "region"], "", 2, "no_terminal", "--stdin"),
        (["shop", "set", "a=1", "--stdin"], "x", 2, "invalid_input", "exclude"),
        (["shop", "sett", "a=1"], "", 2, "invalid_input", "sett"),
        (["shp"], "", 2, "unknown_plug", "'shop'"),
        (["shop", "--stdin"], "", 2, "invalid_input", "--stdin"),
    ],
)
def test_mistakes(project: Project, args: list[str], stdin: str, code: int, error: str, words: str) -> None:
    before = shown(project, "--show-secrets")
    done = project.khotan("vars", *args, stdin=stdin)
    assert (done.code, done.json["error"]) == (code, error), done.json
    assert words in done.json["message"] + done.json["hint"]
    assert shown(project, "--show-secrets") == before


def test_one_bad_value_stores_none(project: Project) -> None:
    done = project.khotan("vars", "shop", "set", "--json", '{"region": "x1", "tokn": "y"}')
    assert done.code == 2 and shown(project)["region"]["masked"] != "x1"


def test_a_secret_on_the_command_line_gets_a_warning(project: Project) -> None:
    done = project.khotan("vars", "shop", "set", f"token={TOKEN}")
    assert done.code == 0 and "history" in done.stderr and TOKEN not in done.stdout + done.stderr


# -- secrets and databases (in-process: no server would start otherwise) --------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, service: Any, tmp_path: Any) -> Project:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = write_project(tmp_path / "stored", service.url, database_url=url)
    assert made.khotan("migrate").code == 0
    assert made.khotan("vars", "shop", "set", f"token={TOKEN}").code == 0
    return made


def test_rotation(stored: Project) -> None:
    new = {"KHOTAN_SECRET": "another-secret-" + "z9y8x7w6v5" * 4}
    done = stored.khotan("vars", "shop", env=new)
    assert done.code == 0 and done.json["items"][0]["error"] == "secret_mismatch"
    called = stored.khotan("plug", "shop", "GET", "/items/1", env=new)
    assert called.code == 4 and called.json["error"] == "secret_mismatch" and "KHOTAN_SECRET" in called.json["message"]
    checks = {c["name"]: c for c in stored.khotan("doctor", env=new).json["checks"]}
    assert checks["stored values"]["outcome"] == "failed" and "shop.token" in checks["stored values"]["message"]
    both = {**new, "KHOTAN_SECRET_PREVIOUS": stored.env["KHOTAN_SECRET"]}
    assert stored.khotan("plug", "shop", "GET", "/items/1", env=both).code == 0
    assert stored.khotan("vars", "rotate", env=both).json["rotated"] == 1
    assert stored.khotan("vars", "rotate", env=new).json == {"ok": True, "rotated": 0, "current": 1, "failed": []}
    assert stored.khotan("plug", "shop", "GET", "/items/1", env=new).code == 0


def test_a_missing_or_poor_secret(stored: Project) -> None:
    done = stored.khotan("vars", "shop", "set", "region=x", env={"KHOTAN_SECRET": ""})
    assert (done.code, done.json["error"]) == (4, "secret_missing")
    done = stored.khotan("plug", "shop", "GET", "/items/1", env={"KHOTAN_SECRET": ""})
    assert (done.code, done.json["error"]) == (4, "secret_missing")
    for poor in ("short", "change-me-change-me-change-me-change-me", "a" * 50):
        done = stored.khotan("vars", "shop", env={"KHOTAN_SECRET": poor})
        assert (done.code, done.json["error"]) == (2, "config_invalid") and "KHOTAN_SECRET" in done.json["message"]


def test_a_ciphertext_that_was_moved(stored: Project) -> None:
    import sqlalchemy

    url = stored.env.get("DATABASE_URL", f"sqlite:///{stored.folder}/.khotan/khotan.db")
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO khotan_vars SELECT plug, 'region', ciphertext, updated_at FROM khotan_vars WHERE key = 'token'"
            )
        )
    engine.dispose()
    found = shown(stored)
    assert found["region"]["error"] == "ciphertext_invalid" and found["token"]["error"] is None
    called = stored.khotan("plug", "shop", "GET", "/items/1")
    assert (called.code, called.json["error"]) == (1, "ciphertext_invalid")
    assert "region" in called.json["message"] and called.json["next"] == ["khotan plug vars shop set region --stdin"]


def test_not_migrated_and_unreachable(bare: Project) -> None:
    done = bare.khotan("vars", "shop", "set", "region=x")
    assert (done.code, done.json["error"], done.json["next"]) == (4, "database_not_migrated", ["khotan migrate"])
    unset = bare.khotan("plug", "shop", "-e", "list_items")
    assert unset.json["next"] == ["khotan migrate", "khotan plug vars shop set token --stdin"]
    env = {"SHOP_TOKEN": TOKEN}
    assert bare.khotan("plug", "shop", "GET", "/items/1", env=env).code == 0, "the environment is enough"
    password = "pa55word-of-the-database"
    away = {"DATABASE_URL": f"postgresql://me:{password}@127.0.0.1:1/app", **env}
    for args in (["vars", "shop"], ["plug", "shop", "GET", "/items/1"], ["migrate"], ["migrate", "--status"]):
        done = bare.khotan(*args, env=away)
        assert (done.code, done.json["error"]) == (4, "database_unreachable"), args
        assert password not in done.stdout + done.stderr and "127.0.0.1:1" in done.json["message"]
    (bare.folder / "text.db").write_text("this is no database, though long enough to be read as one" * 30)
    done = bare.khotan("vars", "shop", env={"DATABASE_URL": "sqlite:///text.db"})
    assert done.code == 4 and "not an SQLite database" in done.json["message"]
    for url in ("mysql://x/y", "nonsense", "sqlite://"):
        done = bare.khotan("vars", "shop", env={"DATABASE_URL": url})
        assert (done.code, done.json["error"]) == (2, "config_invalid"), url


def test_the_server_cannot_be_reached_or_is_another(bare: Project, service: Any) -> None:
    done = bare.khotan("--url", "http://127.0.0.1:1", "plug", "--list")
    assert (done.code, done.json["error"]) == (4, "server_unreachable") and "khotan dev" in done.json["hint"]
    done = bare.khotan("plug", "--list", "--url", service.url)
    assert (done.code, done.json["error"]) == (1, "server_invalid")
    done = bare.khotan("plug", "--list", "--url", "ftp://x")
    assert (done.code, done.json["error"]) == (2, "config_invalid")


def test_only_a_signature_with_the_servers_secret_gets_in(served: Project) -> None:
    for secret in ("", "another-secret-" + "z9y8x7w6v5" * 4):
        done = served.khotan("vars", "shop", env={"KHOTAN_SECRET": secret})
        assert (done.code, done.json["error"]) == (4, "unauthorized") and "KHOTAN_SECRET" in done.json["hint"]
    assert json.loads(done.stdout)["ok"] is False
