"""`khotan plug --compare`: pages, bodies that are no JSON, and responses that are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.loopback import Answer, Asked, Loopback, as_json, threaded_loopback
from tests.support.project import Project, write_project

PLUG = """
from khotan_cli.runtime import CursorPaginator, ErrorBody, OffsetPaginator, Plug, Retry, delete, get, post
from pydantic import BaseModel


class Row(BaseModel):
    id: int
    name: str = ""


class Rows(BaseModel):
    data: list[Row]
    total: int | None = None


class Feed(BaseModel):
    feed: Row


class Shop(Plug):
    base_url = "{base_url}"
    retry = Retry(attempts=1)
    paginator = OffsetPaginator(items="data", total="total", limit=2)

    good = get("/good", returns=Rows)
    ignored = get("/ignored", returns=Rows)
    lost = get("/good", returns=dict, paginator=CursorPaginator(items="rows"))
    one = get("/one", returns=Row)
    written = post("/good", returns=Rows)
    removed = delete("/one", returns=None)
    feed = get("/feed", returns=Feed)
    nan = get("/nan", returns=dict)
    table = get("/table", returns=list[Row])
    failing = get("/failing", returns=Rows, error_body=ErrorBody(when="errors", message="errors.0.message"))


shop = Shop()
"""
ROWS = [{"id": number, "name": "n"} for number in range(5)]
FEED = '<?xml version="1.0" encoding="iso-8859-1"?><feed><id>1</id><name>é</name></feed>'


def answer(asked: Asked) -> Answer:
    if asked.path == "/good":
        start = int(asked.query.get("offset", 0))
        return as_json({"data": ROWS[start : start + 2], "total": 5})
    if asked.path == "/ignored":
        return as_json({"data": ROWS[:2], "total": 5})
    if asked.path == "/feed":
        return Answer(200, FEED.encode("latin-1"), {"Content-Type": "application/xml; charset=iso-8859-1"})
    if asked.path == "/nan":
        return Answer(200, b'{"a": NaN}', {"Content-Type": "application/json"})
    if asked.path == "/failing":
        return as_json({"data": [], "errors": [{"message": "the index is being built"}]})
    if asked.path == "/table":
        return Answer(200, b"id\n1\n", {"Content-Type": "text/csv"})
    return Answer(204) if asked.method == "DELETE" else as_json({"id": 1, "name": "n"})


@pytest.fixture(scope="module")
def service() -> Iterator[Loopback]:
    with threaded_loopback(answer) as served:
        yield served


@pytest.fixture(scope="module")
def project(service: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = write_project(tmp_path_factory.mktemp("compared"), service.url)
    (plug,) = [path for path in made.folder.rglob("*.py") if "class Shop(Plug)" in path.read_text()]
    plug.write_text(PLUG.replace("{base_url}", service.url))
    assert made.khotan("migrate").code == 0
    return made


def compare(project: Project, endpoint: str, *more: str) -> tuple[int, dict[str, object]]:
    done = project.khotan("plug", "shop", "-e", endpoint, "--compare", *more)
    return done.code, done.json.get("contract", done.json)


@pytest.mark.parametrize(
    ("more", "pages"), [([], 2), (["--pages", "1"], 0), (["--pages", "3"], 3), (["--pages", "9"], 3)]
)
def test_a_comparison_walks(project: Project, service: Loopback, more: list[str], pages: int) -> None:
    before = len(service.asked)
    code, contract = compare(project, "good", *more)
    assert code == 0, contract
    assert len(service.asked) - before == max(pages, 1)
    paging = contract.get("paging")
    if not pages:
        assert paging is None
        return
    assert isinstance(paging, dict)
    assert (paging["pages"], paging["total"], paging["ended"]) == (pages, 5, pages == 3)


def test_paging_that_does_not_work_exits_3(project: Project) -> None:
    code, contract = compare(project, "ignored")
    assert code == 3
    found = [(f["path"], f["grade"]) for f in contract["findings"] if f["issue"] == "paging"]  # type: ignore[attr-defined]
    assert found == [("$.data", "breaking")]
    code, contract = compare(project, "lost")
    assert code == 3
    found = [(f["path"], f["grade"]) for f in contract["findings"] if f["issue"] == "paging"]  # type: ignore[attr-defined]
    assert ("$.rows", "breaking") in found
    shown = project.khotan("plug", "shop", "-e", "ignored", "--compare", json_mode=False)
    assert shown.code == 3 and "already on an earlier page" in " ".join((shown.stdout + shown.stderr).split())


@pytest.mark.parametrize("endpoint", ["one", "written", "removed"])
def test_what_has_no_pages_is_called_once(project: Project, service: Loopback, endpoint: str) -> None:
    before = len(service.asked)
    code, contract = compare(project, endpoint)
    assert code == 0 and "paging" not in contract
    assert len(service.asked) - before == 1


@pytest.mark.parametrize("endpoint", ["feed", "table", "good", "removed"])
def test_a_kept_response_is_judged_as_the_live_one(project: Project, tmp_path: Path, endpoint: str) -> None:
    kept = tmp_path / "kept.json"
    code, live = compare(project, endpoint, "--pages", "1", "--save", str(kept))
    assert code == 0, live
    done = project.khotan("plug", "shop", "-e", endpoint, "--from", str(kept))
    assert done.code == 0 and done.json["contract"] == live
    if endpoint == "feed":
        assert "é" in done.json["body"]


def test_a_kept_body_that_is_not_json_stays_so(project: Project, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    assert project.khotan("plug", "shop", "-e", "nan", "--save", str(kept)).code == 0
    assert "bodyBase64" in json.loads(kept.read_text())["response"]
    live = project.khotan("plug", "shop", "-e", "nan", "--compare")
    saved = project.khotan("plug", "shop", "-e", "nan", "--from", str(kept))
    for done in (live, saved):
        assert (done.code, done.json["error"]) == (1, "response_invalid") and "NaN" in done.json["message"]


@pytest.mark.parametrize(
    "args",
    [["--compare", "--pages", "0"], ["--pages", "2"], ["--from", "x.json", "--pages", "2"]],
)
def test_pages_that_make_no_sense(project: Project, args: list[str]) -> None:
    done = project.khotan("plug", "shop", "-e", "good", *args)
    assert (done.code, done.json["error"]) == (2, "invalid_input")


def test_a_declared_absence_is_shown(project: Project) -> None:
    info = project.khotan("plug", "shop", "--info").json
    returns = {endpoint["name"]: endpoint["returns"] for endpoint in info["endpoints"]}
    assert (returns["removed"], returns["one"]) == ("None", "Row")


@pytest.mark.parametrize("more", [[], ["--pages", "1"]])
def test_a_200_that_is_an_error_is_not_judged_by_the_model(project: Project, more: list[str]) -> None:
    done = project.khotan("plug", "shop", "--endpoint", "failing", "--compare", *more)
    assert (done.code, done.json["error"]) == (1, "service_error")
    assert done.json["serviceMessage"] == "the index is being built"
