"""A user's project, and the khotan command run in it as a user would: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        """Run `khotan ARGS` in the folder, through pipes."""
        words = ["--url", self.url, *args] if self.url else list(args)
        done = subprocess.run(
            [sys.executable, "-m", "khotan_cli", *words],
            check=False,
            cwd=self.folder,
            env=self.environment({**({} if json_mode else {"KHOTAN_OUTPUT": "text"}), **(env or {})}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """The environment of a command: nothing of khotan's but what the project sets."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("KHOTAN_") and k != "DATABASE_URL"}
        return {**clean, "COLUMNS": "160", **self.env, **more}


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
        process.communicate(timeout=20)
