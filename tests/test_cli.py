"""The root of the command line, in processes of its own: start-up, options, output, the error boundary."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from khotan_cli import __version__
from khotan_cli.cli import COMMANDS
from tests.support import migrated
from tests.support.loopback import Answer, as_json, threaded_loopback
from tests.support.project import Project, run_forked, write_project
from tests.support.terminal import at_terminal

KHOTAN = [sys.executable, "-m", "khotan_cli"]
HEAVY = """
fastapi starlette uvicorn sqlmodel sqlalchemy alembic pydantic pydantic_core pydantic_settings
copier jinja2 yaml httpx aiohttp authlib cryptography deepdiff orjson dbos dotenv asyncio
"""


def loaded(*args: str, project: Project | None = None) -> set[str]:
    """Top-level modules that `khotan ARGS` has imported when it ends."""
    code = (
        "import sys\nfrom khotan_cli.cli import main\n"
        f"sys.argv = ['khotan', *{list(args)!r}]\n"
        "try:\n    main()\nexcept SystemExit as exc:\n    code = exc.code\n"
        "sys.stderr.write(' '.join({name.partition('.')[0] for name, module in sys.modules.items() if module}))\nsys.exit(code)"
    )
    folder, env = (project.folder, project.environment({})) if project else (None, None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, check=False, capture_output=True, text=True
    )
    assert done.returncode in (0, 2), done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("args", [["--help"], ["--version"], []])
def test_start_up_imports_nothing_heavy(args: list[str]) -> None:
    assert loaded(*args) & set(HEAVY.split()) == set()


def test_rich_comes_only_when_something_is_drawn() -> None:
    assert "rich" not in loaded("--version")


NOT_IN_A_COMMAND = """
fastapi starlette uvicorn psycopg aiohttp alembic dbos rich click copier jinja2 deepdiff authlib
"""


@pytest.mark.parametrize("command", ["plug --list", "plug shop", "vars shop", "flows list", "wire list"])
def test_a_command_imports_only_what_it_uses(tmp_path: Path, command: str) -> None:
    project = write_project(tmp_path, "http://127.0.0.1:9")
    migrated.upgrade(f"sqlite:///{tmp_path / '.khotan' / 'khotan.db'}", tmp_path)
    assert loaded(*command.split(), project=project) & set(NOT_IN_A_COMMAND.split()) == set()


def test_help_lists_every_command_and_the_way(tmp_path: Path) -> None:
    done = subprocess.run([*KHOTAN, "--help"], check=True, capture_output=True, text=True)
    assert all(name in done.stdout for name in COMMANDS) and "--compare" in done.stdout
    environment = Project(tmp_path).environment({})
    for name in COMMANDS:
        shown = run_forked([name, "--help"], tmp_path, environment)
        assert f" {name} " in shown.stdout and "Traceback" not in shown.stderr, name


def test_version_for_machines_and_for_people(tmp_path: Path) -> None:
    environment = Project(tmp_path).environment
    assert run_forked(["--version"], tmp_path, environment({})).json == {"ok": True, "version": __version__}
    people = run_forked(["--version"], tmp_path, environment({"KHOTAN_OUTPUT": "text"}))
    assert people.stdout == f"khotan {__version__}\n"
    screen, code = at_terminal([*KHOTAN, "--version"], tmp_path)
    assert (screen.strip(), code) == (f"khotan {__version__}", 0)
    screen, _ = at_terminal([*KHOTAN, "--version", "--json"], tmp_path)
    assert json.loads(screen)["version"] == __version__


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["plgu"], "'plug'"),
        (["plug", "--lst"], "--list"),
        (["plug", "a", "GET", "/b", "c"], "c"),
        (["--url"], "--url"),
        (["migrate", "--push", "--sql"], "exclude"),
        (["-C", "/does/not/exist", "doctor"], "/does/not/exist"),
    ],
)
def test_wrong_usage_is_one_document_and_exit_2(tmp_path: Path, args: list[str], words: str) -> None:
    done = run_forked(args, tmp_path, Project(tmp_path).environment({}))
    assert done.code == 2 and done.json["ok"] is False and words in done.json["message"] + done.json["hint"]
    shown = run_forked(args, tmp_path, Project(tmp_path).environment({"KHOTAN_OUTPUT": "text"}))
    assert shown.code == 2 and shown.stdout == "" and shown.stderr.startswith("✗ ")


@pytest.mark.parametrize(
    ("words", "known"), [([], "flows"), (["flows"], "trigger"), (["add"], "plug"), (["wire"], "send")]
)
def test_a_group_without_a_command_is_wrong_usage_in_a_pipe(tmp_path: Path, words: list[str], known: str) -> None:
    done = run_forked(words, tmp_path, Project(tmp_path).environment({}))
    path = " ".join(["khotan", *words])
    assert (done.code, done.json["error"], done.json["next"]) == (2, "invalid_input", [f"{path} --help"])
    assert known in done.json["known"] and path in done.json["message"]
    people = run_forked(words, tmp_path, Project(tmp_path).environment({"KHOTAN_OUTPUT": "text"}))
    assert people.code == 0 and known in people.stdout


def test_an_output_that_is_none(tmp_path: Path) -> None:
    done = run_forked(["plug"], tmp_path, Project(tmp_path).environment({"KHOTAN_OUTPUT": "xml"}))
    assert done.code == 2 and "KHOTAN_OUTPUT" in done.json["message"]


def test_global_options_stand_anywhere(tmp_path: Path) -> None:
    made = write_project(tmp_path / "p", "http://127.0.0.1:9")
    text = {"KHOTAN_OUTPUT": "text"}
    for args in (["--json", "plug", "--list"], ["plug", "--list", "--json"], ["-C", "p", "plug", "--json"]):
        folder = tmp_path if "-C" in args else made.folder
        done = run_forked(args, folder, made.environment(text))
        assert done.code == 0 and done.json["items"][0]["name"] == "shop", args
    url = "--url=http://127.0.0.1:1"
    for args in ([url, "plug", "--list"], ["plug", "--list", url]):
        assert run_forked(args, made.folder, made.environment({})).code == 4


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    body = as_json([{"n": n, "text": "x" * 200} for n in range(5000)])
    with threaded_loopback(lambda asked: body) as server:
        made = write_project(tmp_path / "p", server.url)
        done = subprocess.run(
            f"{sys.executable} -m khotan_cli plug shop GET /x | head -1",
            check=False,
            shell=True,
            cwd=made.folder,
            env=made.environment({"SHOP_TOKEN": "t"}),
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert (done.returncode, done.stdout) == (0, "{\n") and "Error" not in done.stderr


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    import threading

    release = threading.Event()

    def hang(asked: object) -> Answer:
        release.wait(120)
        return as_json({})

    with threaded_loopback(hang) as server:
        made = write_project(tmp_path / "p", server.url)
        (made.folder / ".env").write_text("KHOTAN_SECRET=" + made.env["KHOTAN_SECRET"] + "\nSHOP_TOKEN=t\n")
        screen, code = at_terminal([*KHOTAN, "plug", "shop", "GET", "/x"], made.folder, interrupt_at="Calling shop")
        release.set()
    assert code == 130 and "Interrupted" in screen and "Traceback" not in screen


def test_the_unexpected_is_said_without_a_traceback(tmp_path: Path) -> None:
    made = write_project(tmp_path / "p", "http://127.0.0.1:9")
    broken = "import khotan_cli.options\nkhotan_cli.options.Options.settings = lambda self: 1 / 0\n"
    code = f"{broken}import sys\nfrom khotan_cli.cli import run\nsys.exit(run(['migrate']))"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=made.folder, capture_output=True, text=True)
    assert done.returncode == 1 and json.loads(done.stdout)["error"] == "internal_error" and done.stderr == ""
    env = made.environment({"KHOTAN_TRACEBACK": "1"})
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=made.folder, env=env, capture_output=True, text=True
    )
    assert "ZeroDivisionError" in done.stderr


def test_a_terminal_gets_tables_and_masked_values(tmp_path: Path) -> None:
    made = write_project(tmp_path / "p", "http://127.0.0.1:9")
    (made.folder / ".env").write_text(
        "KHOTAN_SECRET=" + made.env["KHOTAN_SECRET"] + "\nSHOP_TOKEN=tok_live_abcdef123456\n"
    )
    screen, code = at_terminal([*KHOTAN, "plug", "--list"], made.folder)
    assert code == 0 and "shop" in screen and "━" in screen and "\x1b[" in screen
    assert at_terminal([*KHOTAN, "migrate"], made.folder)[1] == 0
    screen, code = at_terminal([*KHOTAN, "vars", "shop"], made.folder)
    assert code == 0 and "••••3456" in screen and "tok_live" not in screen
    answers = [("shop.token", "typed-in-secret-9876\n")]
    screen, code = at_terminal([*KHOTAN, "vars", "shop", "set", "token"], made.folder, answers, hidden=True)
    assert code == 0 and "Stored token" in screen and "typed-in" not in screen
    words = ["vars", "shop", "set", "token", "--stdin"]
    screen, code = at_terminal([*KHOTAN, *words], made.folder, answers, hidden=True)
    assert code == 0 and "Stored token" in screen and "typed-in" not in screen
    screen, code = at_terminal([*KHOTAN, "--json", *words], made.folder)
    assert code == 2 and '"no_terminal"' in screen
    screen, _ = at_terminal([*KHOTAN, "vars", "shop", "--show-secrets"], made.folder)
    assert "typed-in-secret-9876" in screen
