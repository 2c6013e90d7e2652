"""A project with a wire, the app served in a process of its own, and events signed as a service signs them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest
from khotan_cli.runtime.webhooks.verify import signatures
from tests.support import migrated
from tests.support.flows import connection
from tests.support.ports import free_port
from tests.support.project import Project, start_forked

SIGNING_SECRET = "whsec_signing_only_0123456789"
HOOK = "/api/khotan/webhook/shop"
PLUG = """
from khotan_cli.runtime import BearerAuth, Plug, Var, post


class Shop(Plug):
    base_url = "{base_url}"
    send = post("/sent", body=dict, returns=dict)


class Chat(Plug):
    base_url = "{base_url}"
    token = Var(secret=True, default="chat-token-as-declared")
    auth = BearerAuth(token)
    send = post("/chat", body=dict, returns=dict)


shop = Shop()
chat = Chat()
"""
WIRE = """
import asyncio
import time
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text
from khotan_cli.runtime import (
    Event, FlowContext, Retry, RunResult, SubscribeContext, Subscription, Var, Wire, challenges, signatures, step,
)
from ..plugs.shop import chat, shop

wire = Wire(shop, events=["order.paid"], verify=signatures.stripe())


class Order(BaseModel):
    id: str
    type: str
    amount: int


@wire.catch("order.*", model=Order)
async def record(event: Event[Order]) -> None:
    values = {"id": event.remote_id, "amount": event.data.amount}

    async def save(session: Any) -> None:
        await session.execute(text("INSERT INTO seen (id, amount) VALUES (:id, :amount)"), values)

    await event.ctx.write("save", save)

"""
APP = "from khotan_cli.runtime import Khotan\n\nkhotan = Khotan(__package__, authorize=False)\napp = khotan.asgi()\n"


def webhook_project(
    folder: Path,
    database_url: str,
    *,
    base_url: str = "http://shop.invalid",
    wire: str = "",
    whole: str = "",
    app: str = APP,
) -> Project:
    """A migrated project with the plugs `shop` and `chat`, and the wire `shop`, whose handler `record` fills the table `seen`."""
    package = folder / "khotan"
    for name in ("plugs", "wires"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (folder / "khotan.toml").write_text('package = "khotan"\n')
    (package / "__init__.py").write_text("")
    (package / "app.py").write_text(app)
    (package / "plugs" / "shop.py").write_text(PLUG.format(base_url=base_url))
    (package / "wires" / "shop.py").write_text((whole or WIRE) + wire)
    migrated.upgrade(database_url, folder)
    with connection(database_url) as run:
        run("CREATE TABLE seen (id TEXT NOT NULL, amount INTEGER)")
    env = {
        "KHOTAN_SECRET": "webhooks-only-5f1c0b0d9a4e4f7d8b6a2c3e1f0a9b",
        "DATABASE_URL": database_url,
        "SHOP_WEBHOOK_SECRET": SIGNING_SECRET,
        "KHOTAN_ENV": "development",
    }
    return Project(folder, env)


class Served:
    """The project's app behind uvicorn in a process of its own."""

    def __init__(self, project: Project, **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        words = ["khotan.app:app", "--port", str(self.port), "--log-level", "warning"]
        words += ["--h11-max-incomplete-event-size", "262144"]  # so that large header fields are the app's to refuse
        self._scratch = project.folder / f"served-{self.port}"
        self._scratch.mkdir()
        self.process = start_forked(words, project.folder, project.environment(env), self._scratch, "uvicorn")
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"{self.url}/api/khotan/health", timeout=30)
                return
            except httpx.TransportError:
                if not self.process.is_alive() or time.monotonic() > deadline:
                    raise AssertionError(f"the app did not start: {self.output}") from None
                time.sleep(0.05)  # another process starts

    @property
    def output(self) -> str:
        return "".join((self._scratch / name).read_text() for name in ("stdout", "stderr"))

    def kill(self) -> None:
        self.process.kill()
        self.process.join(120)

    def stop(self) -> None:
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(120)


@contextmanager
def served_app(project: Project, **env: str) -> Iterator[Served]:
    started = Served(project, **env)
    try:
        yield started
    finally:
        if started.process.is_alive():
            started.kill()


def order(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"evt_{number}", "type": "order.paid", "amount": number, **more}


def signed(document: Any, *, secret: str = SIGNING_SECRET, moment: float | None = None) -> tuple[bytes, dict[str, str]]:
    """Body and header fields of an event, signed as the wire `shop` expects."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    request = WebhookRequest("POST", "", Headers({}), body)
    fields = signatures.stripe().sign(request, secret, time.time() if moment is None else moment, "")
    return body, {**fields, "Content-Type": "application/json"}


def send(url: str, document: Any, path: str = HOOK, **options: Any) -> httpx.Response:
    body, fields = signed(document, **options)
    return httpx.post(f"{url}{path}", content=body, headers=fields, timeout=90)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    """The condition's value as soon as it is true; what it looks at is another process's to change."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.03)
    raise AssertionError(f"{what} did not come about: {condition()!r}")
