"""`khotan plug`, as it is typed, in-process and against a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.conftest import TOKEN
from tests.support.project import Project


def test_list_and_info(project: Project) -> None:
    listed = project.khotan("plug", "--list")
    assert listed.code == 0 and [p["name"] for p in listed.json["items"]] == ["shop"]
    assert listed.json["items"][0]["missingVars"] == []
    info = project.khotan("probe", "shop", "--info")
    assert info.code == 0 and info.json["doc"] == "The shop next door."
    endpoints = {e["name"]: e for e in info.json["endpoints"]}
    assert endpoints["get_item"]["pathParams"] == ["item_id"]
    assert endpoints["get_item"]["responses"] == {"404": "Problem"}
    assert project.khotan("plug", "shop").json == info.json


def test_call_by_method_and_by_endpoint(project: Project) -> None:
    called = project.khotan("plug", "shop", "get", "/items/1")
    assert called.code == 0 and called.json["status"] == 200 and called.json["body"]["name"] == "item 1"
    called = project.khotan("plug", "shop", "--endpoint", "get_item", "--params", '{"item_id": 7}')
    assert called.code == 0 and (called.json["status"], called.json["body"]) == (404, {"code": "gone"})
    made = project.khotan("plug", "shop", "-e", "create", "--body", '{"id": 1, "name": "x", "price": 2}')
    assert made.json["status"] == 201 and made.json["body"]["id"] == 9
    made = project.khotan("plug", "shop", "POST", "/items", "--body", "-", stdin='{"name": "piped"}')
    assert made.json["body"]["name"] == "piped"


def test_secrets_of_the_plug_are_masked_wherever_they_come_up(project: Project) -> None:
    done = project.khotan(
        "plug", "shop", "GET", "/echo", "--params", json.dumps({"t": TOKEN}), "--headers", '{"X-A": "1"}'
    )
    assert done.json["body"]["auth"] == "Bearer ••••3456" and done.json["body"]["x"] == "1"
    assert "••••3456" in done.json["request"]["url"] and TOKEN not in done.stdout + done.stderr


def test_compare_reports_every_mismatch_and_exits_3(project: Project) -> None:
    done = project.khotan("plug", "shop", "--endpoint", "list_items", "--compare")
    assert done.code == 3 and done.json["ok"] is False and done.json["error"] == "contract_mismatch"
    found = {(f["path"], f["issue"]): f for f in done.json["contract"]["findings"]}
    assert {
        ("$.data[*].id", "type_mismatch"),
        ("$.data[*].name", "missing"),
        ("$.data[*].name", "type_mismatch"),
        ("$.data[*].sku", "extra"),
    } <= set(found)
    missing = found["$.data[*].name", "missing"]
    assert (missing["count"], missing["of"], missing["grade"]) == (1, 3, "breaking")
    extra = found["$.data[*].sku", "extra"]
    assert (extra["count"], extra["of"], extra["grade"]) == (1, 3, "warning")
    assert TOKEN not in done.stdout + done.stderr


def test_at_eighty_columns_a_finding_is_a_block(project: Project) -> None:
    args = ["plug", "shop", "--endpoint", "list_items", "--compare"]
    told = project.khotan(*args, json_mode=False, env={"COLUMNS": "80"}).stdout
    narrow = [line.rstrip() for line in told.splitlines()]
    assert "breaking  $.data[*].name  missing  1 of 3" in narrow
    assert "    expected string · actual absent" in narrow
    wide = project.khotan(*args, json_mode=False).stdout
    assert "┃ Grade" in wide and "│ breaking" in wide


def test_compare_matches(project: Project) -> None:
    done = project.khotan("plug", "shop", "-e", "list_items", "--compare", "--params", '{"good": true}')
    assert done.code == 0 and done.json["contract"]["ok"] and done.json["contract"]["model"] == "Page"


def test_a_response_is_judged_by_its_own_status(project: Project) -> None:
    done = project.khotan("plug", "shop", "-e", "get_item", "--compare", "--params", '{"item_id": 7}')
    assert done.code == 0 and done.json["contract"]["model"] == "Problem" and done.json["contract"]["status"] == 404
    undeclared = project.khotan("plug", "shop", "-e", "strange", "--compare", "--params", '{"what": "teapot"}')
    assert undeclared.code == 1 and undeclared.json["error"] == "unexpected_status"


def test_texts_and_parsed_bodies_are_judged_too(project: Project) -> None:
    for endpoint, model in (("page", "string"), ("feed", "Feed")):
        done = project.khotan("plug", "shop", "-e", endpoint, "--compare")
        assert done.code == 0 and done.json["contract"]["model"] == model, done.json
    blob = project.khotan("plug", "shop", "-e", "blob", "--compare")
    assert (blob.code, blob.json["error"]) == (2, "no_declared_model")


@pytest.mark.parametrize(("grade", "code"), [("never", 0), ("breaking", 3), ("info", 3)])
def test_fail_on(project: Project, grade: str, code: int) -> None:
    assert project.khotan("plug", "shop", "-e", "list_items", "--compare", "--fail-on", grade).code == code


def test_save_and_compare_without_calling(project: Project, tmp_path: Path) -> None:
    kept = tmp_path / "items.json"
    saved = project.khotan("plug", "shop", "-e", "list_items", "--save", str(kept))
    assert saved.code == 0 and TOKEN not in kept.read_text()
    document = json.loads(kept.read_text())
    assert document["plug"] == "shop" and document["response"]["status"] == 200
    for env in ({}, {"SHOP_TOKEN": ""}):
        done = project.khotan("plug", "shop", "-e", "list_items", "--from", str(kept), env=env)
        assert done.code == 3 and done.json["error"] == "contract_mismatch"
    kept.write_text('{"khotan": 99}')
    assert project.khotan("plug", "shop", "-e", "list_items", "--from", str(kept)).code == 2
    assert project.khotan("plug", "shop", "-e", "list_items", "--from", str(tmp_path / "no")).json["error"] == (
        "file_not_readable"
    )
    nowhere = project.khotan("plug", "shop", "-e", "list_items", "--save", str(tmp_path / "no" / "x.json"))
    assert nowhere.code == 2 and not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("args", "code", "error", "words"),
    [
        (["shp"], 2, "unknown_plug", "'shop'"),
        (["shop", "-e", "list_item"], 2, "unknown_endpoint", "'list_items'"),
        (["shop", "-e", "get_item"], 2, "invalid_parameters", "item_id"),
        (["shop", "-e", "create", "--params", '{"idd": 1}'], 2, "invalid_parameters", "idd"),
        (["shop", "-e", "list_items", "--params", "{"], 2, "invalid_json", "--params"),
        (["shop", "-e", "list_items", "--params", "[1]"], 2, "invalid_json", "object"),
        (["shop", "GET", "/x", "--headers", "nope"], 2, "invalid_json", "--headers"),
        (["shop", "POST", "/x", "--body", "@/does/not/exist"], 2, "file_not_readable", "--body"),
        (["shop", "FETCH", "/x"], 2, "invalid_input", "FETCH"),
        (["shop", "GET"], 2, "invalid_input", "path"),
        (["shop", "--compare"], 2, "invalid_input", "--endpoint"),
        (["shop", "-e", "list_items", "--fail-on", "breaking"], 2, "invalid_input", "--compare"),
        (["shop", "-e", "list_items", "--compare", "--fail-on", "braking"], 2, "invalid_input", "'breaking'"),
        (["shop", "-e", "loose", "--compare"], 2, "no_declared_model", "returns"),
        (["shop", "--login"], 2, "invalid_input", "OAuth2AuthorizationCode"),
        (["--compare"], 2, "invalid_input", "NAME"),
        (["--info"], 2, "invalid_input", "NAME"),
        (["shop", "--info", "-e", "list_items"], 2, "invalid_input", "exclude"),
        (["shop", "GET", "/x", "-e", "list_items"], 2, "invalid_input", "exclude"),
        (["shop", "--enable", "--disable"], 2, "invalid_input", "exclude"),
        (["shop", "--params", "{}"], 2, "invalid_input", "call"),
        (["shop", "--no-browser"], 2, "invalid_input", "--login"),
        (["shop", "--list"], 2, "invalid_input", "every plug"),
        (["shop", "-e", "strange", "--compare", "--params", '{"what": "html"}'], 1, "response_invalid", "text/html"),
        (["shop", "-e", "strange", "--compare", "--params", '{"what": "cut"}'], 1, "response_invalid", "JSON"),
        (["shop", "-e", "strange", "--compare", "--params", '{"what": "latin"}'], 1, "response_invalid", "UTF-8"),
        (["shop", "-e", "strange", "--compare", "--params", '{"what": "dropped"}'], 4, "plug_unreachable", ""),
        (["shop", "GET", "http://127.0.0.1:1/"], 4, "plug_unreachable", "127.0.0.1:1"),
    ],
)
def test_mistakes(project: Project, args: list[str], code: int, error: str, words: str) -> None:
    done = project.khotan("plug", *args)
    assert (done.code, done.json["ok"], done.json["error"]) == (code, False, error), done.json
    assert words in done.json["message"] + done.json["hint"]


def test_a_body_of_ten_megabytes(project: Project) -> None:
    done = project.khotan("plug", "shop", "-e", "strange", "--compare", "--params", '{"what": "big"}')
    assert done.code == 0 and done.json["size"] > 10_000_000 and done.json["contract"]["items"] == 90_000
    shown = project.khotan("plug", "shop", "GET", "/big", json_mode=False)
    assert shown.code == 0 and len(shown.stdout) < 1_000_000 and "truncated" in shown.stdout


def test_binary_and_refused(project: Project) -> None:
    assert project.khotan("plug", "shop", "GET", "/binary").json["bodyBase64"].startswith("AAEC")
    if project.url:
        return
    refused = (
        project.khotan("vars", "shop", "set", "token=tok_other_000000000"),
        project.khotan("plug", "shop", "-e", "list_items", "--compare"),
    )
    assert refused[1].code == 4 and refused[1].json["error"] == "plug_refused"
    project.khotan("vars", "shop", "set", f"token={TOKEN}")


def test_disable_and_enable(project: Project) -> None:
    assert project.khotan("plug", "shop", "--disable").json == {
        "ok": True,
        "plug": "shop",
        "enabled": False,
        "changed": True,
    }
    again = project.khotan("plug", "shop", "--disable").json
    assert again["changed"] is False and "already" in again["message"]
    refused = project.khotan("plug", "shop", "GET", "/items/1")
    assert refused.code == 1 and refused.json["error"] == "plug_disabled"
    assert refused.json["next"] == ["khotan plug shop --enable"]
    assert project.khotan("plug", "shop", "--enable").code == 0
    assert project.khotan("plug", "shop", "GET", "/items/1").code == 0


def test_a_pause_is_shown_and_lifted(project: Project) -> None:
    assert project.khotan("plug", "shop").json["pausedSeconds"] == 0
    project.khotan("plug", "shop", "GET", "/throttled")
    paused = project.khotan("plug", "shop").json["pausedSeconds"]
    assert 3000 < paused <= 3600
    checks = {check["name"]: check for check in project.khotan("doctor").json["checks"]}
    assert checks["pauses"]["outcome"] == "warning" and "shop" in checks["pauses"]["message"]
    refused = project.khotan("plug", "shop", "GET", "/items/1")
    assert refused.code != 0 and refused.json["next"] == ["khotan plug shop --resume"]
    lifted = project.khotan("plug", "shop", "--resume")
    assert lifted.code == 0 and lifted.json["released"] == 1
    assert project.khotan("plug", "shop", "GET", "/items/1").code == 0
    assert project.khotan("plug", "shop", "--resume").json["released"] == 0
