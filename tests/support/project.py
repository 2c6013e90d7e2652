"""A user's project, and the khotan command run in it as a user would: in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.support.children import end_with_parent

SECRET = "test-only-5f1c0b0d9a4e4f7d8b6a2c3e1f0a9b8c"
PLUG = '''
"""A shop."""

from typing import Any

from khotan_cli.runtime import BearerAuth, Plug, Retry, Var, get, post
from pydantic import BaseModel


class Item(BaseModel):
    id: int
    name: str
    price: float
    note: str | None = None


class Page(BaseModel):
    data: list[Item]


class Problem(BaseModel):
    code: str


class Feed(BaseModel):
    feed: Problem


class Shop(Plug):
    """The shop next door."""

    base_url = "{base_url}"
    token = Var(label="API token", secret=True, env="SHOP_TOKEN")
    region = Var(label="Region", default="eu", required=False)
    auth = BearerAuth(token)
    retry = Retry(attempts=1)

    list_items = get("/items", returns=Page)
    get_item = get("/items/{{item_id}}", returns=Item, responses={{404: Problem}})
    create = post("/items", body=Item, returns=Item)
    loose = get("/loose")
    strange = get("/{{what}}", returns=Page)
    page = get("/html", returns=str)
    feed = get("/feed", returns=Feed)
    blob = get("/binary", returns=bytes)


shop = Shop()
'''


@dataclass
class Done:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """stdout as the one JSON document that it must be."""
        return json.loads(self.stdout)


@dataclass
class Project:
    """A folder with khotan in it. `url`: base URL of a server that commands are to talk to, if any."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict[str, str])
    url: str = ""

    def khotan(self, *args: str, stdin: str = "", env: Mapping[str, str] | None = None, json_mode: bool = True) -> Done:
        """Run `khotan ARGS` in the folder, a process of its own, with files for pipes."""
        words = ["--url", self.url, *args] if self.url else list(args)
        more = {**({} if json_mode else {"KHOTAN_OUTPUT": "text"}), **(env or {})}
        done = run_forked(words, self.folder, self.environment(more), stdin)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """The environment of a command: nothing of khotan's but what the project sets."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("KHOTAN_") and k != "DATABASE_URL"}
        return {**clean, "COLUMNS": "160", **self.env, **more}


_PRELOADED = [
    "aiohttp",
    "alembic.command",
    "dbos",
    "copier",
    "deepdiff",
    "khotan_cli.cli",
    "khotan_cli.commands.add.plug",
    "khotan_cli.commands.project.doctor",
    "khotan_cli.commands.flows.flows",
    "khotan_cli.commands.project.init",
    "khotan_cli.commands.project.migrate",
    "khotan_cli.commands.plugs.plug",
    "khotan_cli.commands.variables.vars",
    "khotan_cli.commands.wires.wire",
    "khotan_cli.commands.project.worker",
    "khotan_cli.in_process",
    "khotan_cli.runtime.api.asgi",
    "khotan_cli.runtime.api.routes.flows",
    "khotan_cli.runtime.api.routes.plugs",
    "khotan_cli.runtime.api.routes.runs",
    "khotan_cli.runtime.api.routes.webhook_events",
    "khotan_cli.runtime.api.routes.wires",
    "khotan_cli.runtime.app",
    "khotan_cli.scaffold.plug_component",
    "khotan_cli.scaffold.project_component",
    "rich.table",
    "tests.support.project",
    "fastapi",
    "uvicorn.main",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(_PRELOADED)


def run_forked(args: Sequence[str], folder: Path, env: Mapping[str, str], stdin: str = "") -> Done:
    """Run `khotan ARGS` in a process forked from one that has the modules loaded: the same, without waiting for imports."""
    with tempfile.TemporaryDirectory(prefix="khotan-test-") as scratch:
        (Path(scratch) / "stdin").write_text(stdin)
        process = _forks.Process(target=_command, args=(list(args), str(folder), dict(env), scratch))
        process.start()
        process.join(200)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"khotan {' '.join(args)} did not end")
        read = [(Path(scratch) / name).read_text() for name in ("stdout", "stderr")]
        return Done(process.exitcode, *read)


def start_forked(
    args: Sequence[str], folder: Path, env: Mapping[str, str], scratch: Path, program: str = "khotan"
) -> BaseProcess:
    """Start `khotan ARGS`, or `uvicorn ARGS`, in such a process, and do not wait; its output goes to files in `scratch`."""
    (scratch / "stdin").write_text("")
    process = _forks.Process(target=_command, args=(list(args), str(folder), dict(env), str(scratch), program))
    process.start()
    return process


def _command(args: list[str], folder: str, env: dict[str, str], scratch: str, program: str = "khotan") -> None:
    """In the forked process: become the program."""
    threading.Thread(target=_end_with_tests, daemon=True).start()
    for number, (name, flags) in enumerate(
        [("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY | os.O_CREAT), ("stderr", os.O_WRONLY | os.O_CREAT)]
    ):
        opened = os.open(Path(scratch) / name, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    if program == "uvicorn":
        from uvicorn.main import main

        code = main(args, standalone_mode=False) or 0
    else:
        from khotan_cli.cli import run

        code = run(args)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_tests() -> None:
    """Wait for the test process to end, then kill this one.

    PR_SET_PDEATHSIG does not help here: the parent is the process that forks, and that one waits for its children to end.
    """
    tests = multiprocessing.parent_process()
    assert tests is not None
    wait([tests.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def write_project(folder: Path, base_url: str, *, database_url: str = "", secret: str = SECRET) -> Project:
    """khotan.toml, the package with its app, and the plug `shop` of a service at base_url."""
    package = folder / "khotan"
    (package / "plugs").mkdir(parents=True)
    (folder / "khotan.toml").write_text('package = "khotan"\n')
    (package / "__init__.py").write_text("")
    (package / "plugs" / "__init__.py").write_text("")
    (package / "plugs" / "shop.py").write_text(PLUG.format(base_url=base_url))
    app = 'from khotan_cli.runtime import Khotan\n\nprint("noise")\nkhotan = Khotan(__package__)\napp = khotan.asgi()\n'
    (package / "app.py").write_text(app)
    env = {"KHOTAN_SECRET": secret} if secret else {}
    return Project(folder, env | ({"DATABASE_URL": database_url} if database_url else {}))


@contextmanager
def dev_server(project: Project, **env: str) -> Iterator[str]:
    """`khotan dev` on a free port; yields its base URL. It answers when the block starts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "khotan_cli", "dev", "--port", "0", "--no-reload"],
        cwd=project.folder,
        env=project.environment({"KHOTAN_OUTPUT": "json", **env}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    )
    try:
        assert process.stderr is not None and process.stdout is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if "Uvicorn running on" in line:
                yield line.split("Uvicorn running on ")[1].split()[0]
                return
        raise AssertionError("khotan dev did not start:\n" + "".join(lines))
    finally:
        process.terminate()
        process.communicate(timeout=120)
