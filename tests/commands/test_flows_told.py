"""What `khotan flows` tells of runs: what to do next, ids cut short, narrow terminals, the worker's log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flows import Source, connection, flows_project, some_items, trigger, wait_until_ended, worker
from tests.support.loopback import Answer, threaded_loopback
from tests.support.project import Project

FLOWS = """
@inflow(shop)
async def lenient(ctx: FlowContext) -> None:
    await ctx.sync(shop.list_items, into=ItemRow, key="id", on_invalid="skip")
"""


@pytest.fixture
def source() -> Source:
    return Source(some_items(25))


@pytest.fixture
def project(source: Source, tmp_path: Path) -> Iterator[Project]:
    with threaded_loopback(source) as served:
        yield flows_project(tmp_path, served.url, f"sqlite:///{tmp_path / 'khotan.db'}", flows=FLOWS)


def test_a_second_dry_run_lists_nothing_as_written(project: Project) -> None:
    project.khotan("flows", "trigger", "items", "--wait")
    told = project.khotan("flows", "trigger", "items", "--dry-run", json_mode=False).stdout
    assert "would write nothing to items: 25 unchanged" in told and "item 1" not in told


def test_a_variable_that_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    with threaded_loopback(lambda asked: Answer()) as served:
        made = flows_project(tmp_path, served.url, f"sqlite:///{tmp_path / 'khotan.db'}")
        plug = tmp_path / "khotan/plugs/shop.py"
        text = plug.read_text().replace("import OffsetPaginator", "import BearerAuth, Var, OffsetPaginator")
        plug.write_text(
            text.replace("    retry =", "    key = Var(secret=True)\n    auth = BearerAuth(key)\n    retry =")
        )
        step = "khotan plug vars shop set key --stdin"
        waited = made.khotan("flows", "trigger", "items", "--wait").json
        assert waited["next"] == [step, f"khotan flows show {waited['run']['id']}"]
        assert made.khotan("flows", "show", waited["run"]["id"]).json["next"] == [step]
        shown = made.khotan("flows", "show", waited["run"]["id"], json_mode=False)
        assert step in shown.stdout
        dry = made.khotan("flows", "trigger", "items", "--dry-run")
        assert (dry.code, dry.json["error"], dry.json["next"]) == (4, "var_missing", [step])
        (tmp_path / "khotan/flows/items.py").unlink()
        none = made.khotan("flows", "trigger", "items").json
        assert (none["error"], none["next"]) == ("unknown_flow", ["khotan add inflow items"])


def test_the_beginning_of_an_id_is_enough_where_it_is_one_runs(project: Project, source: Source) -> None:
    source.items[3]["price"] = "not a number"
    run_id = project.khotan("flows", "trigger", "lenient", "--wait").json["run"]["id"]
    assert project.khotan("flows", "show", run_id[:8]).json["id"] == run_id
    assert project.khotan("flows", "rejects", run_id[:12]).json["total"] == 1
    assert project.khotan("flows", "cancel", run_id[:8]).json["error"] == "run_finished"
    again = project.khotan("flows", "retry", run_id[:8]).json
    assert again["retryOf"] == run_id
    assert project.khotan("flows", "show", run_id[:7]).json["error"] == "unknown_run"
    assert project.khotan("flows", "show", "f" * 8).json["error"] == "unknown_run"
    with connection(project.env["DATABASE_URL"]) as run:
        run("UPDATE khotan_runs SET id = $ WHERE id = $", run_id[:8] + "-another", again["id"])
    several = project.khotan("flows", "show", run_id[:8])
    assert (several.code, several.json["known"]) == (2, sorted([run_id, run_id[:8] + "-another"]))


def test_at_eighty_columns_nothing_to_be_copied_is_folded(project: Project) -> None:
    run_id = trigger(project, "items", "--wait")
    told = project.khotan("flows", "runs", json_mode=False, env={"COLUMNS": "80"}).stdout.splitlines()
    assert told[0].startswith(f"{run_id}  2") and " UTC  completed" in told[0]
    assert told[1].strip().startswith("flow items (default) · counts 25 extracted, 25 created · took ")
    wide = project.khotan("flows", "runs", json_mode=False).stdout
    assert "Started" in wide and "Took" in wide and run_id in wide


def test_the_database_that_cannot_be_reached_is_said_once(project: Project) -> None:
    away = {"DATABASE_URL": "postgresql://me@127.0.0.1:1/app"}
    told = project.khotan("flows", "list", json_mode=False, env=away)
    assert told.code == 4 and (told.stdout + told.stderr).count("127.0.0.1:1") == 1


def test_a_worker_says_when_runs_begin_and_end(project: Project) -> None:
    run_id = trigger(project, "items")
    with worker(project) as running:
        wait_until_ended(project.env["DATABASE_URL"], run_id)
        running.stop()
        lines = running.output.splitlines()
    assert [line for line in lines if f"items (default) begins: run {run_id}" in line]
    (ended,) = [line for line in lines if "items (default) completed after" in line]
    assert "25 extracted, 25 created" in ended and run_id in ended
