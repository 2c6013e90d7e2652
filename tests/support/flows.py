"""A project with flows, a source of records whose every page a test decides, and workers to start and kill."""

from __future__ import annotations

import asyncio
import multiprocessing.process
import os
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.support import migrated
from tests.support.loopback import Answer, Asked, as_json
from tests.support.project import Project, start_forked

PLUG = '''
from pydantic import BaseModel

from khotan_cli.runtime import OffsetPaginator, Plug, Retry, get, post, put


class Item(BaseModel):
    id: int
    name: str
    price: float


class Page(BaseModel):
    data: list[Item]
    total: int


class Shop(Plug):
    """The shop next door."""

    base_url = "{base_url}"
    paginator = OffsetPaginator(limit={size}, total="total")
    retry = Retry(attempts=3, backoff=0.01)

    list_items = get("/items", returns=Page)
    create_item = post("/sent", body=dict, returns=dict)
    update_item = put("/sent/{{ref}}", body=dict, returns=dict)
    search = post("/search", body=dict, returns=dict)


shop = Shop()
'''
FLOWS = """
import asyncio
import time
from typing import Any

from sqlmodel import Field, SQLModel, select

from khotan_cli.runtime import (
    FlowContext, Hooks, RunResult, Variant, inflow, outflow, relay, step,
)
from ..plugs.shop import shop


class ItemRow(SQLModel, table=True):
    __tablename__ = "items"
    id: int = Field(primary_key=True)
    name: str
    price: float


@inflow(shop)
async def items(ctx: FlowContext) -> None:
    await ctx.sync(shop.list_items, into=ItemRow, key="id")

"""
APP = "from khotan_cli.runtime import Khotan\n\nkhotan = Khotan(__package__)\napp = khotan.asgi()\n"
TABLE = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price DOUBLE PRECISION NOT NULL)"


@dataclass
class Source:
    """Items by offset. `delay`: seconds before a page is sent. `asked`: the offsets of the pages that were sent."""

    items: list[dict[str, Any]]
    delay: float = 0.0
    asked: list[int] = field(default_factory=list[int])
    sent: list[Any] = field(default_factory=list[Any])
    moved: threading.Event = field(default_factory=threading.Event)
    answers: dict[int, Callable[[], Answer]] = field(default_factory=dict[int, Callable[[], Answer]])

    async def __call__(self, asked: Asked) -> Answer:
        await asyncio.sleep(self.delay)
        if asked.path == "/items" and asked.method == "GET":
            offset, limit = int(asked.query.get("offset", 0)), int(asked.query.get("limit", 100))
            self.asked.append(offset)
            self.moved.set()
            if offset in self.answers:
                return self.answers[offset]()
            return as_json({"data": self.items[offset : offset + limit], "total": len(self.items)})
        if asked.path.startswith("/sent"):
            self.sent.append((asked.method, asked.path, asked.json()))
            return as_json({"id": f"ref-{len(self.sent)}"})
        return as_json({"path": asked.path})

    def wait_for(self, pages: int, seconds: float = 120.0) -> None:
        """Until so many pages have been sent."""
        deadline = time.monotonic() + seconds
        while len(self.asked) < pages:
            self.moved.clear()
            if len(self.asked) < pages and not self.moved.wait(deadline - time.monotonic()):
                raise AssertionError(f"only {len(self.asked)} pages were asked for, not {pages}")


def some_items(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"item {number}", "price": number / 4} for number in range(count)]


def flows_project(
    folder: Path,
    base_url: str,
    database_url: str,
    *,
    flows: str = "",
    size: int = 10,
    extra: dict[str, str] | None = None,
) -> Project:
    """A migrated project with the plug `shop`, the table `items`, the flow `items`, and what `flows` adds to its module."""
    package = folder / "khotan"
    for name in ("plugs", "flows"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (folder / "khotan.toml").write_text('package = "khotan"\n')
    (package / "__init__.py").write_text("")
    (package / "app.py").write_text(APP)
    (package / "plugs" / "shop.py").write_text(PLUG.format(base_url=base_url, size=size))
    (package / "flows" / "items.py").write_text(FLOWS + flows)
    for name, text in (extra or {}).items():
        (package / name).write_text(text)
    migrated.upgrade(database_url, folder)
    with connection(database_url) as run:
        run(TABLE)
    secret = "flows-only-5f1c0b0d9a4e4f7d8b6a2c3e1f0a9b8c"
    return Project(folder, {"KHOTAN_SECRET": secret, "DATABASE_URL": database_url})


@contextmanager
def connection(database_url: str) -> Iterator[Callable[..., list[Any]]]:
    """A function that runs one statement, committed at once, and returns its rows."""
    plain: Any
    if database_url.startswith("sqlite"):
        plain = sqlite3.connect(database_url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)
    else:
        plain = psycopg.connect(database_url, autocommit=True)

    def run(statement: str, *values: Any) -> list[Any]:
        mark = "?" if database_url.startswith("sqlite") else "%s"
        cursor = plain.execute(statement.replace("$", mark), values)
        return cursor.fetchall() if cursor.description else []

    try:
        yield run
    finally:
        plain.close()


class Worker:
    """`khotan worker` in a process of its own."""

    def __init__(self, project: Project, **env: str) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="khotan-worker-")
        self.process: multiprocessing.process.BaseProcess = start_forked(
            ["worker", "--grace", "5"], project.folder, project.environment(env), Path(self._scratch.name)
        )

    def kill(self) -> None:
        """At once, as a power cut would."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(120)

    def stop(self) -> None:
        """As a platform would: SIGTERM."""
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(120)
        assert not self.process.is_alive(), "the worker did not stop"

    @property
    def output(self) -> str:
        folder = Path(self._scratch.name)
        return "".join(path.read_text() for path in (folder / "stdout", folder / "stderr") if path.exists())


@contextmanager
def worker(project: Project, **env: str) -> Iterator[Worker]:
    started = Worker(project, **env)
    try:
        yield started
    finally:
        if started.process.is_alive():
            started.kill()


def trigger(project: Project, flow: str, *words: str) -> str:
    """Start a run through the command line; its id."""
    done = project.khotan("flows", "trigger", flow, *words)
    assert done.code == 0, done.stdout
    run_id: str = done.json["id"]
    return run_id


def run_row(database_url: str, run_id: str) -> dict[str, Any]:
    names = "status extracted transformed created updated deleted skipped failed epoch error message"
    with connection(database_url) as run:
        rows = run(f"SELECT {', '.join(names.split())} FROM khotan_runs WHERE id = $", run_id)
    return dict(zip(names.split(), rows[0], strict=True))


def wait_until_ended(database_url: str, run_id: str, seconds: float = 120.0) -> dict[str, Any]:
    """The run's row, once it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        row = run_row(database_url, run_id)
        if row["status"] not in ("pending", "running"):
            return row
        time.sleep(0.05)  # the row is another process's to change
    raise AssertionError(f"run {run_id} did not end: {run_row(database_url, run_id)}")
