"""khotan demo, as it is typed: in a pipe, as text, and where it cannot work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from khotan_cli.sandbox.access import BEARER_TOKEN
from khotan_cli.sandbox.data import PRODUCTS
from khotan_cli.sandbox.listings import corrected, documented
from khotan_cli.sandbox.tour import sandbox
from tests.support.children import end_with_parent
from tests.support.ports import free_port

# One worker tells the whole story once: it starts two dozen processes, which on a busy machine take their time.
pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "khotan_cli", "demo"]


def demo(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "120", **environment}
    return subprocess.run(
        [*COMMAND, *options], cwd=folder, env=env, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    # What would lead the demo's commands astray must not.
    done = demo(
        folder, KHOTAN_URL="http://127.0.0.1:9", DATABASE_URL="sqlite:////nowhere/x.db", HTTP_PROXY="http://127.0.0.1:9"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return folder, document


def test_a_pipe_gets_one_document_with_every_step(made: tuple[Path, dict[str, Any]]) -> None:
    _, document = made
    steps = {step["step"]: step for step in document["steps"]}
    assert list(steps) == [
        "init", "add-plug", "declare", "migrate", "set-variable", "compare", "correct", "compare-again",
        "add-resource", "add-inflow", "flow", "flow-again", "mapping",
        "add-wire", "set-secret", "add-catch", "add-board", "add-pass", "send", "passed", "forged", "events",
    ]  # fmt: skip
    findings = steps["compare"]["result"]["contract"]["findings"]
    assert steps["compare"]["exitCode"] == 3
    assert {finding["path"].rpartition(".")[2] for finding in findings} == {
        "description", "price_cents", "stock", "status", "created_at", "barcode",
    }  # fmt: skip
    assert steps["compare-again"]["exitCode"] == 0
    assert steps["compare-again"]["result"]["contract"]["findings"] == []
    first, again = steps["flow"]["result"]["counts"], steps["flow-again"]["result"]["counts"]
    assert (first["created"], first["failed"]) == (PRODUCTS, 0)
    assert (again["created"], again["updated"], again["skipped"]) == (0, 0, PRODUCTS)
    assert steps["mapping"]["result"]["refs"] == {"shop": "prod_0001"}
    runs = {run["handler"]: run["status"] for run in steps["send"]["result"]["runs"]}
    assert runs == {"shop.record_order": "completed", "shop.notify": "completed"}
    assert "ord_00001" in json.dumps(steps["passed"]["result"])
    assert (steps["forged"]["result"]["refused"], steps["forged"]["result"]["status"]) == (True, 401)
    assert [event["status"] for event in steps["events"]["result"]["items"]] == ["completed"]


def test_the_project_stays_and_holds_no_credential_in_clear(made: tuple[Path, dict[str, Any]]) -> None:
    folder, document = made
    project = folder / document["project"]
    assert (project / "khotan.toml").is_file()
    for path in project.rglob("*"):
        if path.is_file():
            assert BEARER_TOKEN.encode() not in path.read_bytes(), path


def test_the_sandbox_starts_again_where_the_project_expects_it(made: tuple[Path, dict[str, Any]]) -> None:
    folder, document = made
    command = [*COMMAND, "--serve", "--dir", document["project"]]
    serving = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
    try:
        assert serving.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += serving.stdout.readline()
        url = json.loads(text)["url"]
        assert url == document["sandbox"]
        assert httpx.get(f"{url}/docs", trust_env=False).status_code == 200
        plug = [sys.executable, "-m", "khotan_cli", "plug", "shop", "--endpoint", "list_orders", "--compare"]
        done = subprocess.run(plug, cwd=folder / document["project"], capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stdout
        serving.send_signal(signal.SIGINT)
        rest, _ = serving.communicate(timeout=120)
        assert (serving.returncode, rest) == (0, "")
    finally:
        serving.kill()
        serving.wait()


def test_people_see_the_story_and_the_next_project_gets_a_number(tmp_path: Path) -> None:
    (tmp_path / "khotan-demo").mkdir()
    done = demo(tmp_path, KHOTAN_OUTPUT="text")
    assert done.returncode == 0, done.stderr
    assert "khotan-demo-2" in done.stdout
    for text in (
        "23/23",
        "$ khotan init",
        "type_mismatch",
        "+    barcode: str",
        "matches ProductPage",
        "240 created",
        "240 skipped",
    ):
        assert text in done.stdout


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    done = demo(tmp_path, "--dir", "mine")
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"] == "file_exists"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_a_port_that_is_taken_leaves_nothing_behind(tmp_path: Path) -> None:
    port = free_port()
    with sandbox(port):
        done = demo(tmp_path, "--port", str(port))
    assert done.returncode == 4
    assert json.loads(done.stdout)["error"] == "port_in_use"
    assert list(tmp_path.iterdir()) == []


def test_serving_for_a_folder_that_is_no_demo(tmp_path: Path) -> None:
    done = demo(tmp_path, "--serve", "--dir", "nowhere")
    assert done.returncode == 2
    assert "nowhere" in json.loads(done.stdout)["message"]


def test_an_interrupt_cleans_up(tmp_path: Path) -> None:
    env = {**os.environ, "KHOTAN_OUTPUT": "text", "PYTHONUNBUFFERED": "1"}
    story = subprocess.Popen(
        COMMAND,
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    assert story.stdout is not None
    url = ""
    for line in story.stdout:
        url = url or (line.split()[1].removesuffix("/docs") if line.startswith("✓ http") else "")
        if line.startswith("$ khotan add"):
            break
    os.killpg(story.pid, signal.SIGINT)  # as a terminal does: to the whole group
    story.communicate(timeout=120)
    assert story.returncode == 130
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_the_listings_are_code_as_it_should_be(tmp_path: Path) -> None:
    modules = []
    for listing in (documented, corrected):  # one run of each tool for both
        modules.append(tmp_path / f"{listing.__name__}.py")
        modules[-1].write_text(listing("http://127.0.0.1:1/bearer"))
    ruff, names = [sys.executable, "-m", "ruff"], [str(module) for module in modules]
    checks = [
        [*ruff, "check", "--isolated", "--select", "E,F,I,UP,B", *names],
        [*ruff, "format", "--isolated", "--check", *names],
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *names],
    ]
    for check in checks:
        done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
