"""khotan flows, worker, mappings and caches, as they are typed: in-process, and to a running server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from khotan_cli.client import CliSignature
from tests.support.flows import Source, flows_project, some_items, wait_until_ended
from tests.support.loopback import Answer, threaded_loopback
from tests.support.project import Project, dev_server
from tests.support.terminal import at_terminal

RESOURCES = """
from khotan_cli.runtime import Cache, Resource

goods = Resource("goods", connect_field="name", plugs={"shop": "id"})
pairs = Resource("pairs", connect_field=("tenant", "sku"), plugs={"shop": "id"})
things = Cache("things", ttl="1h")
"""
FLOWS = """
@inflow(shop, resource="goods", variants={"full": Variant(), "delta": Variant(schedule="0 0 29 2 *")})
async def goods(ctx: FlowContext) -> RunResult:
    await ctx.log("begun")
    done = await ctx.sync(shop.list_items, into=ItemRow, key="id", on_invalid="skip")
    return RunResult(message=f"{done.pages} pages, body {ctx.body}")


@inflow(shop)
async def broken(ctx: FlowContext) -> None:
    await ctx.sync(shop.list_items, into=ItemRow, key="id")
    raise ValueError("on purpose")


@outflow(shop)
async def out(ctx: FlowContext) -> None:
    answer = await shop.create_item(body={"a": 1})
    await shop.create_item(body={"again": answer["id"]})


@inflow(shop)
async def by_the_app(ctx: FlowContext) -> None:
    from ..app import khotan

    await khotan.cache("things").set("only dry", 1)
    await khotan.mapping("goods").upsert("only dry", shop="only-dry")
    assert await khotan.trigger("goods", "full", body=[1]) == "dry-run"


@inflow(shop)
async def slow(ctx: FlowContext) -> None:
    await ctx.progress(1, 4, "a quarter")
    await ctx.sleep(60)


@inflow(shop)
async def talks(ctx: FlowContext) -> None:
    await ctx.log("the first")
    for number in range(2, 1200):
        await ctx.recorder.log("info", f"line {number}")
    await ctx.log("the last")
"""


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(some_items(25))


@pytest.fixture(scope="module")
def local(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("flows")
    with threaded_loopback(source) as served:
        url = f"sqlite:///{folder / 'khotan.db'}"
        yield flows_project(folder, served.url, url, flows=FLOWS, extra={"resources.py": RESOURCES})


@pytest.fixture(scope="module")
def remote(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("served")
    with threaded_loopback(source) as served:
        url = f"sqlite:///{folder / 'khotan.db'}"
        made = flows_project(folder, served.url, url, flows=FLOWS, extra={"resources.py": RESOURCES})
        with dev_server(made, CRON_SECRET="s3cret for cron") as base:
            yield Project(folder, made.env, base)


@pytest.fixture(scope="module", params=["in-process", "--url"])
def project(request: pytest.FixtureRequest) -> Project:
    found: Project = request.getfixturevalue("local" if request.param == "in-process" else "remote")
    return found


@pytest.fixture(autouse=True)
def whole(source: Source) -> None:
    source.items, source.answers = some_items(25), {}


def test_flows_are_listed(project: Project) -> None:
    flows = {flow["name"]: flow for flow in project.khotan("flows", "list").json["items"]}
    assert sorted(flows) == ["broken", "by_the_app", "goods", "items", "out", "slow", "talks"]
    full, delta = flows["goods"]["variants"]
    assert (full["name"], full["nextDueAt"], delta["schedule"]) == ("full", None, "0 0 29 2 *")
    assert delta["nextDueAt"].endswith("Z") and flows["goods"]["resource"] == "goods"
    shown = project.khotan("flows", "list", json_mode=False)
    assert "0 0 29 2 *" in shown.stdout and "inflow" in shown.stdout


def test_a_run_from_its_trigger_to_its_end(project: Project, source: Source) -> None:
    done = project.khotan("flows", "trigger", "goods", "delta", "--body", '{"n": 1}', "--wait")
    assert (done.code, done.stderr.strip()) == (0, ""), done.stdout
    run = done.json
    assert (run["status"], run["variant"], run["message"]) == ("completed", "delta", "3 pages, body {'n': 1}")
    assert run["counts"]["extracted"] == 25 and run["counts"]["created"] + run["counts"]["skipped"] == 25
    shown = project.khotan("flows", "show", run["id"])
    assert shown.json["steps"][0]["name"] == "sync shop.list_items page 1"
    assert shown.json["updates"][0]["message"] == "begun" and shown.json["body"] == {"n": 1}
    listed = project.khotan("flows", "runs", "goods", "--status", "completed", "--limit", "1")
    assert listed.json["items"][0]["id"] == run["id"] and listed.json["total"] >= 1
    text = project.khotan("flows", "show", run["id"], json_mode=False).stdout
    assert "completed" in text and "sync shop.list_items page 3" in text


def test_a_run_that_fails_or_leaves_out_gives_exit_1(project: Project, source: Source) -> None:
    failed = project.khotan("flows", "trigger", "broken", "--wait")
    assert (failed.code, failed.json["error"]) == (1, "run_failed")
    assert failed.json["message"] == "ValueError: on purpose" and failed.json["run"]["counts"]["extracted"] == 25
    assert failed.json["next"] == [f"khotan flows show {failed.json['run']['id']}"]
    assert "on purpose" not in failed.stderr
    told = project.khotan("flows", "trigger", "broken", "--wait", json_mode=False)
    assert (told.stdout + told.stderr).count("on purpose") == 1 and "items.py" in told.stdout
    again = project.khotan("flows", "retry", failed.json["run"]["id"], "--from-step", "4", "--wait")
    assert (again.code, again.json["run"]["retryOf"]) == (1, failed.json["run"]["id"])
    source.items[3]["price"] = "not a number"
    partial = project.khotan("flows", "trigger", "goods", "--wait", json_mode=False)
    assert partial.code == 1 and "partial" in partial.stdout + partial.stderr
    run_id = project.khotan("flows", "runs", "goods").json["items"][0]["id"]
    look = f"khotan flows rejects {run_id}"
    assert (partial.stdout + partial.stderr).count(look) == 1
    assert project.khotan("flows", "show", run_id).json["next"] == [look]
    again = project.khotan("flows", "trigger", "goods", "--wait").json
    assert (
        again["next"][0] == f"khotan flows rejects {again['run']['id']}" and "rejected records: 1" in again["message"]
    )
    rejects = project.khotan("flows", "rejects", run_id).json
    assert rejects["total"] == 1 and rejects["items"][0]["record"]["price"] == "not a number"
    assert "price" in rejects["items"][0]["reason"]


def test_a_dry_run_says_what_it_would_do(project: Project, source: Source) -> None:
    source.sent.clear()
    done = project.khotan("flows", "trigger", "out", "--dry-run")
    assert done.code == 0 and source.sent == []
    assert done.json["requests"]["POST shop.create_item"]["count"] == 1
    assert "create_item" in done.json["stopped"]["message"]
    text = project.khotan("flows", "trigger", "out", "--dry-run", json_mode=False).stdout
    assert "would send 1 × POST shop.create_item" in text and "The dry run stops here" in text
    raised = project.khotan("flows", "trigger", "broken", "--dry-run")
    assert (raised.code, raised.json["error"]) == (1, "flow_failed")
    source.items[3]["price"] = "not a number"
    left = project.khotan("flows", "trigger", "goods", "--dry-run", json_mode=False).stdout
    assert "would reject 1 record:" in left and "price" in left


def test_a_dry_run_holds_back_what_the_app_does(project: Project) -> None:
    before = project.khotan("flows", "runs", "goods").json["total"]
    writes = project.khotan("flows", "trigger", "by_the_app", "--dry-run").json["writes"]
    assert writes["cache things"]["set"] == 1 and writes["mappings of goods"]["created"] == 1
    assert writes["runs of goods"] == {"started": 1, "sample": [{"variant": "full", "body": [1]}]}
    assert "only dry" not in project.khotan("caches", "show", "things").stdout
    assert project.khotan("flows", "runs", "goods").json["total"] == before


def test_a_dry_run_of_a_flow_as_it_was_scaffolded(source: Source, tmp_path: Path) -> None:
    with threaded_loopback(source) as served:
        made = flows_project(tmp_path, served.url, f"sqlite:///{tmp_path / 'khotan.db'}")
        assert made.khotan("add", "outflow", "sendit", "--plug", "shop", "--endpoint", "create_item").code == 0
        done = made.khotan("flows", "trigger", "sendit", "--dry-run")
    assert done.code == 0 and done.json["stopped"] is None and done.json["requests"] == {}, done.json


def test_a_cancelled_run(project: Project) -> None:
    started = project.khotan("flows", "trigger", "slow").json
    cancelled = project.khotan("flows", "cancel", started["id"])
    assert cancelled.code == 0 and cancelled.json["status"] in ("cancelled", "running")
    row = wait_until_ended(project.env["DATABASE_URL"], started["id"]) if project.url else {"status": "cancelled"}
    assert row["status"] == "cancelled"
    assert project.khotan("flows", "cancel", started["id"]).json["error"] == "run_finished"
    waited = project.khotan("flows", "trigger", "slow", "--wait", "--timeout", "2")
    assert (waited.code, waited.json["error"]) == (4, "wait_timeout")
    project.khotan("flows", "cancel", project.khotan("flows", "runs", "slow").json["items"][0]["id"])


@pytest.mark.parametrize(
    ("args", "code", "error", "words"),
    [
        (["trigger", "good"], 2, "unknown_flow", "goods"),
        (["trigger", "goods", "ful"], 2, "unknown_variant", "full"),
        (["trigger", "goods", "--body", "{nope"], 2, "invalid_json", "--body"),
        (["trigger", "goods", "--body", "@missing.json"], 2, "file_not_readable", ""),
        (["trigger", "goods", "--dry-run", "--wait"], 2, "invalid_input", "exclude"),
        (["trigger", "goods", "--timeout", "3"], 2, "invalid_input", "--wait"),
        (["show", "nope"], 2, "unknown_run", ""),
        (["retry", "nope"], 2, "unknown_run", ""),
        (["rejects", "nope"], 2, "unknown_run", ""),
        (["runs", "good"], 2, "unknown_flow", "goods"),
        (["runs", "--status", "complete"], 2, "invalid_input", "Did you mean 'completed'?"),
        (["reconcile", "good"], 2, "unknown_flow", "goods"),
        (["disable", "good"], 2, "unknown_flow", "goods"),
    ],
)
def test_bad_input(project: Project, args: list[str], code: int, error: str, words: str) -> None:
    done = project.khotan("flows", *args)
    assert (done.code, done.json["error"]) == (code, error), done.json
    assert words in json.dumps(done.json)


def test_disabled_flows_and_plugs_are_not_started(project: Project) -> None:
    assert project.khotan("flows", "disable", "items").json["enabled"] is False
    again = project.khotan("flows", "disable", "items").json
    assert again["changed"] is False and "is already disabled" in again["message"]
    refused = project.khotan("flows", "trigger", "items")
    assert (refused.code, refused.json["error"]) == (1, "flow_disabled")
    assert project.khotan("flows", "enable", "items").code == 0
    project.khotan("plug", "shop", "--disable")
    refused = project.khotan("flows", "trigger", "items", "--dry-run")
    assert (refused.code, refused.json["error"]) == (1, "plug_disabled")
    project.khotan("plug", "shop", "--enable")
    assert project.khotan("flows", "reconcile").json == {"ok": True, "reconciled": []}


def test_without_a_worker_a_run_waits_and_says_so(local: Project) -> None:
    started = local.khotan("flows", "trigger", "items", json_mode=False)
    assert started.code == 0 and "khotan worker" in started.stdout and " enqueued" in started.stdout
    waits = local.khotan("flows", "trigger", "items").json
    assert waits["next"] == ["khotan worker", f"khotan flows show {waits['id']}"] and "waits" in waits["message"]
    assert local.khotan("flows", "runs", "items").json["items"][0]["status"] == "pending"


def test_a_live_line_at_a_terminal(local: Project) -> None:
    (local.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in local.env.items()))
    command = [sys.executable, "-m", "khotan_cli", "flows", "trigger", "goods", "--wait"]
    screen, code = at_terminal(command, local.folder)
    assert code == 0 and "extracted" in screen and "Traceback" not in screen


def test_ctrl_c_while_a_run_is_waited_for_leaves_it_and_says_how_to_find_it(local: Project) -> None:
    (local.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in local.env.items()))
    command = [sys.executable, "-m", "khotan_cli", "flows", "trigger", "slow", "--wait"]
    screen, code = at_terminal(command, local.folder, interrupt_at="a quarter")
    run = local.khotan("flows", "runs", "slow").json["items"][0]
    assert code == 130 and f"khotan flows show {run['id']}" in screen and "half done" not in screen
    assert "continues" in screen and "Traceback" not in screen
    assert (run["status"], run["cancelRequested"]) == ("running", False)


def test_mappings_are_looked_up_and_changed(project: Project, tmp_path: Path) -> None:
    run = project.khotan
    assert {r["name"]: r["connectField"] for r in run("mappings", "list").json["items"]} == {
        "goods": ["name"],
        "pairs": ["tenant", "sku"],
    }
    assert run("mappings", "upsert", "pairs", "acme", "S1", "--ref", "shop=1").json["created"] == 1
    assert run("mappings", "lookup", "pairs", "acme", "S1").json["refs"] == {"shop": "1"}
    assert run("mappings", "lookup", "pairs", "--ref", "shop=1").json["key"] == ["acme", "S1"]
    taken = run("mappings", "upsert", "pairs", "acme", "S2", "--ref", "shop=1")
    assert (taken.code, taken.json["error"]) == (1, "mapping_conflict")
    assert run("mappings", "update", "pairs", "acme", "S1", "--ref", "shop=2").json["refs"] == {"shop": "2"}
    again = run("mappings", "update", "pairs", "acme", "S1", "--ref", "shop=2").json
    assert again["changed"] is False and "already has these ids" in again["message"]
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps({"key": ["b", f"S{n}"], "refs": {"shop": f"b{n}"}}) + "\n" for n in range(50)))
    assert run("mappings", "upsert", "pairs", "--file", str(file)).json["created"] == 50
    page = run("mappings", "list", "pairs", "--search", "S4", "--limit", "3").json
    assert page["total"] == 11 and page["items"][0]["key"] == ["b", "S4"]
    assert "acme / S1" in run("mappings", "list", "pairs", json_mode=False).stdout
    assert run("mappings", "delete", "pairs", "acme", "S1").json["error"] == "no_terminal"
    assert run("mappings", "delete", "pairs", "acme", "S1", "--yes").code == 0
    gone = run("mappings", "lookup", "pairs", "acme", "S1")
    assert (gone.code, gone.json["error"]) == (1, "unknown_mapping")


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["lookup", "pair", "a"], "unknown_resource"),
        (["lookup", "pairs", "a"], "invalid_input"),
        (["lookup", "pairs"], "invalid_input"),
        (["upsert", "pairs", "a", "b", "--ref", "shp=1"], "unknown_plug"),
        (["upsert", "pairs", "a", "b", "--ref", "shop"], "invalid_input"),
        (["upsert", "pairs", "--file", "missing"], "file_not_readable"),
        (["update", "pairs", "no", "one", "--ref", "shop=1"], "unknown_mapping"),
    ],
)
def test_bad_mappings(project: Project, args: list[str], error: str) -> None:
    done = project.khotan("mappings", *args)
    assert done.code in (1, 2) and done.json["error"] == error, done.json


def test_caches_are_looked_at_and_changed(project: Project) -> None:
    run = project.khotan
    assert run("caches", "set", "things", "a/b c", '{"n": [1]}', "--ttl", "5m").json["value"] == {"n": [1]}
    entry = run("caches", "get", "things", "a/b c").json
    assert entry["value"] == {"n": [1]} and entry["expiresAt"] > entry["updatedAt"]
    assert [c["entries"] for c in run("caches", "list").json["items"]] == [1]
    assert run("caches", "show", "things").json["items"][0]["key"] == "a/b c"
    assert '"n"' in run("caches", "show", "things", json_mode=False).stdout
    for args, error in (
        (["get", "things", "nope"], "unknown_key"),
        (["get", "thing", "a"], "unknown_cache"),
        (["set", "things", "x", "{bad"], "invalid_json"),
        (["set", "things", "x", "1", "--ttl", "soon"], "invalid_input"),
        (["clear", "things"], "no_terminal"),
    ):
        done = run("caches", *args)
        assert done.code in (1, 2) and done.json["error"] == error, done.json
    assert """'"foo"'""" in run("caches", "set", "things", "x", "foo").json["hint"]
    assert run("caches", "delete", "things", "a/b c").code == 0
    run("caches", "set", "things", "y", "null")
    assert run("caches", "clear", "things", "--yes").json["deleted"] == 1


def test_cron_asks_for_its_secret(remote: Project) -> None:
    url = f"{remote.url}/api/khotan/cron"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret for cron"}):
        answer = httpx.get(url, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    for method in ("GET", "POST"):
        answer = httpx.request(method, url, headers={"Authorization": "Bearer s3cret for cron"})
        assert answer.status_code == 200 and answer.json()["started"] == []


def test_a_run_is_watched_as_it_goes(remote: Project, source: Source) -> None:
    secret = remote.env["KHOTAN_SECRET"]
    started = remote.khotan("flows", "trigger", "goods", "full").json
    path = f"{remote.url}/api/khotan/runs/{started['id']}/stream"
    events: list[tuple[str, str]] = []
    with httpx.Client(auth=CliSignature(secret), timeout=30) as client, client.stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                events.append((name, value))
    assert events[-1][0] == "end" and json.loads(events[-1][1])["status"] == "completed"
    assert any(name == "log" and "begun" in value for name, value in events)
    assert httpx.get(path).status_code == 401
    assert httpx.get(path.replace(started["id"], "nope"), auth=CliSignature(secret)).json()["error"] == "unknown_run"


def test_of_a_long_log_the_newest_lines_are_shown_and_all_are_streamed(remote: Project) -> None:
    run_id = remote.khotan("flows", "trigger", "talks", "--wait").json["id"]
    shown = remote.khotan("flows", "show", run_id).json
    assert (shown["updatesTotal"], len(shown["updates"])) == (1200, 1000)
    assert [shown["updates"][place]["message"] for place in (0, -1)] == ["line 201", "the last"]
    text = remote.khotan("flows", "show", run_id, json_mode=False).stdout
    assert "the last" in text and "1,160 earlier log lines" in text
    path = f"{remote.url}/api/khotan/runs/{run_id}/stream"
    answer = httpx.get(path, auth=CliSignature(remote.env["KHOTAN_SECRET"]), timeout=30)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    messages = [json.loads(line)["message"] for line in lines if "level" in json.loads(line)]
    assert len(messages) == 1200 and (messages[0], messages[-1]) == ("the first", "the last")


@pytest.mark.parametrize(
    ("content", "code", "error"),
    [(b"{bad", 422, "invalid_json"), (b'{"varint": 1}', 422, "invalid_input"), (b"[]", 422, "invalid_input")],
)
def test_a_trigger_with_a_body_that_is_no_trigger(remote: Project, content: bytes, code: int, error: str) -> None:
    auth = CliSignature(remote.env["KHOTAN_SECRET"])
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{remote.url}/api/khotan/flows/goods/runs", content=content, auth=auth, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (code, error)
    assert httpx.post(f"{remote.url}/api/khotan/flows/goods/runs", json={}).status_code == 401


def test_a_worker_says_what_is_in_the_way(tmp_path: Path) -> None:
    with threaded_loopback(lambda asked: Answer()) as served:
        made = flows_project(tmp_path, served.url, f"sqlite:///{tmp_path / 'khotan.db'}")
        (tmp_path / "khotan" / "flows" / "items.py").write_text("")
        assert made.khotan("worker").json["error"] == "unknown_flow"
        empty = Project(made.folder, {**made.env, "DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"})
        assert (empty.khotan("worker").code, empty.khotan("worker").json["error"]) == (4, "database_not_migrated")
        (tmp_path / "khotan" / "flows" / "two.py").write_text(
            "from khotan_cli.runtime import inflow\nfrom ..plugs.shop import shop\n"
            '@inflow(shop, resource="nothing")\nasync def two(ctx): ...\n'
        )
        wrong = made.khotan("flows", "list")
        assert wrong.json["error"] == "config_invalid" and "nothing" in wrong.json["message"]
        assert wrong.json["next"] == ["khotan add resource nothing"]
