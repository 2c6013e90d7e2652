"""A host with a migrated database of each kind, a source of items, and runs executed in the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlmodel import Field, SQLModel

from khotan_cli.runtime import BearerAuth, Hooks, OffsetPaginator, Plug, Retry, Var, get, post, put
from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.resources.caches import Cache
from khotan_cli.runtime.resources.mappings import Resource
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.runs import RunData
from khotan_cli.runtime.store.variables import DatabaseVarStore
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.execution import execute
from tests.support import migrated
from tests.support.flows import Source
from tests.support.loopback import Loopback, loopback

SECRET = "flows-in-tests-5f1c0b0d9a4e4f7d8b6a2c3e1f0a9b"


class Item(BaseModel):
    id: int
    name: str
    price: float


class Page(BaseModel, extra="allow"):
    data: list[Item]
    total: int


class ItemRow(SQLModel, table=True):
    __tablename__ = "items"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    name: str
    price: float


class Shop(Plug):
    base_url = "http://shop.invalid"
    token = Var(secret=True, default="sk_live_0123456789")
    auth = BearerAuth(token)
    paginator = OffsetPaginator(limit=10, total="total")
    retry = Retry(attempts=1)

    list_items = get("/items", returns=Page)
    list_loose = get("/items")
    create_item = post("/sent", body=dict, returns=dict)
    take = post("/taken", body=dict)
    create_many = post("/sent/many", body=dict, returns=dict)
    update_item = put("/sent/{ref}", body=dict, returns=dict)


Run = Callable[..., Awaitable[RunData]]


@pytest.fixture
async def service() -> AsyncIterator[Loopback]:
    async with loopback(Source([])) as served:
        yield served


@pytest.fixture
def source(service: Loopback) -> Source:
    """What the service sends: set its items."""
    assert isinstance(service.handler, Source)
    return service.handler


@pytest.fixture
def shop(service: Loopback) -> Shop:
    class Here(Shop):
        base_url = service.url

    return Here(name="shop")


@pytest.fixture
async def host(database_url: str, tmp_path: Path, shop: Shop) -> AsyncIterator[Environment]:
    async with host_at(database_url, tmp_path, shop) as made:
        yield made


@asynccontextmanager
async def host_at(database_url: str, tmp_path: Path, shop: Shop) -> AsyncIterator[Environment]:
    """A host on a database that is migrated for it."""
    migrated.upgrade(database_url, tmp_path)
    database = Database(database_url, tmp_path)
    store = DatabaseVarStore(database, Cipher(SECRET))
    shop.bind(store, ttl=60.0)
    resources = {"goods": Resource("goods", connect_field="name", plugs={"shop": "id"})}
    caches = {"things": Cache("things", ttl="1h"), "own": Cache("own", scope="variant")}
    made = Environment(database, store, {"shop": shop}, {}, resources, caches, Hooks())
    async with database.writing() as session:
        connection = await session.connection()
        await connection.run_sync(SQLModel.metadata.tables["items"].create, checkfirst=True)
    yield made
    made.run_queue.close()
    await shop.aclose()
    await database.dispose()


@pytest.fixture
def declare(host: Environment) -> Callable[[Flow], Flow]:
    """Let the host know a flow."""

    def known(flow: Flow) -> Flow:
        host.flows[flow.name] = flow  # type: ignore[index]
        return flow

    return known


@pytest.fixture
def run(host: Environment, declare: Callable[[Flow], Flow]) -> Run:
    """Trigger a flow and execute it here; its row."""

    async def once(flow: Flow, variant: str | None = None, body: Any = None) -> RunData:
        declare(flow)
        run_id = await Dispatcher(host).trigger(flow.name, variant, body=body)
        await execute(host, run_id)
        row = await host.runs.get(run_id)
        assert row is not None
        return row

    return once


async def rows_of(host: Environment, statement: str = "SELECT id, name, price FROM items ORDER BY id") -> list[Any]:
    async with host.database.session() as session:
        return [tuple(row) for row in (await session.execute(text(statement))).all()]


def counts(row: RunData) -> dict[str, int]:
    """The counters that are not 0."""
    names = ("extracted", "transformed", "created", "updated", "deleted", "skipped", "failed")
    return {name: getattr(row, name) for name in names if getattr(row, name)}
