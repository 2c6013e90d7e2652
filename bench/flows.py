"""A sync of 100,000 records beside dlt and beside the floor, on one PostgreSQL, from one server in its own process.

Records of about 300 bytes in pages of 1,000 over loopback HTTP, 8 columns. The floor is COPY into a staging table and one
merge, without HTTP. Bounds: at least 5 times dlt's REST source with merge, at least 0.35 of the floor, under 200 MB at the
peak; a second run over the same data rewrites no row and is faster; a flow starts within 50 ms at the median on SQLite.
dlt is left out where it is not installed: make bench installs it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import report
from tests.support.flows import flows_project
from tests.support.postgres import PostgresServer, running_server

COUNT, PAGE, STARTS, ROUNDS = 100_000, 1_000, 15, 3
SECRET = "bench-only-5f1c0b0d9a4e4f7d8b6a2c3e1f0a9b8c"
BOUNDS = {"dlt": 5.0, "floor": 0.35, "megabytes": 200.0, "start_ms": 50.0}
SERVER = """
import asyncio, json, sys
COUNT, PAGE = int(sys.argv[1]), int(sys.argv[2])
pages = {}
def record(n):
    return {"id": n, "sku": "SKU-%07d" % n, "name": "Product number %d" % n, "description": "made to be used " * 9,
            "price": n / 7, "stock": n % 400, "active": n % 3 > 0, "created_at": "2026-01-%02dT08:00:00Z" % (n % 28 + 1)}
for start in range(0, COUNT, PAGE):
    body = json.dumps({"data": [record(n) for n in range(start, start + PAGE)], "total": COUNT}).encode()
    head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
    pages[start] = head + body
class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.seen = transport, b""
    def data_received(self, data):
        self.seen += data
        while b"\\r\\n\\r\\n" in self.seen:
            head, _, self.seen = self.seen.partition(b"\\r\\n\\r\\n")
            target = head.split(b" ")[1].decode()
            offset = int(target.partition("offset=")[2].partition("&")[0] or 0)
            self.transport.write(pages[offset])
async def main():
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
PLUG = """
from datetime import datetime
from pydantic import BaseModel
from khotan_cli.runtime import OffsetPaginator, Plug, get

class Product(BaseModel):
    id: int
    sku: str
    name: str
    description: str
    price: float
    stock: int
    active: bool
    created_at: datetime

class Page(BaseModel):
    data: list[Product]
    total: int

class Store(Plug):
    base_url = "{base}"
    paginator = OffsetPaginator(limit=1000, total="total", items="data")
    products = get("/products", returns=Page)

store = Store()
"""
FLOW = """
from datetime import datetime
from sqlalchemy import DateTime
from sqlmodel import Field, SQLModel
from khotan_cli.runtime import FlowContext, inflow
from .plugs.store import store

class ProductRow(SQLModel, table=True):
    __tablename__ = "products"
    id: int = Field(primary_key=True)
    sku: str
    name: str
    description: str
    price: float
    stock: int
    active: bool
    created_at: datetime = Field(sa_type=DateTime(timezone=True))

@inflow(store)
async def products(ctx: FlowContext) -> None:
    await ctx.ensure_table(ProductRow)
    await ctx.sync(store.products, into=ProductRow, key="id")

@inflow(store)
async def nothing(ctx: FlowContext) -> None:
    pass
"""
TRIGGER = """
import asyncio, json, sys, time
from khotan.app import khotan

async def main(flow, times):
    async with khotan:
        runs, seconds = khotan.services.host.runs, []
        for _ in range(int(times)):
            started = time.time()
            run_id = await khotan.trigger(flow)
            while (row := await runs.get(run_id)).status in ("pending", "running"):
                await asyncio.sleep(0.2)  # the times are the row's own: looking often would only be in the way
            assert row.status == "completed", row.error
            begun = row.started_at.timestamp() - started
            seconds.append(begun if flow == "nothing" else (row.ended_at - row.started_at).total_seconds())
        print(json.dumps(seconds))

asyncio.run(main(*sys.argv[1:]))
"""
DLT = """
import json, os, sys, time
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"
import dlt
from dlt.sources.rest_api import rest_api_source
base, url, folder = sys.argv[1:]
paginator = {"type": "offset", "limit": 1000, "total_path": "total"}
endpoint = {"path": "products", "paginator": paginator, "data_selector": "data"}
source = rest_api_source({
    "client": {"base_url": base},
    "resources": [{"name": "products", "primary_key": "id", "write_disposition": "merge", "endpoint": endpoint}],
})
pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(url), dataset_name="dlt_bench", pipelines_dir=folder)
started = time.time()
pipeline.run(source)
print(json.dumps({"seconds": time.time() - started}))
"""
COLUMNS = (
    "id INTEGER PRIMARY KEY, sku TEXT NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL, "
    "price DOUBLE PRECISION NOT NULL, stock INTEGER NOT NULL, active BOOLEAN NOT NULL, created_at TIMESTAMPTZ NOT NULL"
)


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch, running_server(f"bench-{os.getpid()}", durable=True) as postgres:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(COUNT), str(PAGE)], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        base = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        try:
            rounds = [measure(Path(scratch, str(number)), base, postgres) for number in range(ROUNDS)]
            start = flow(Path(scratch, "lite"), base, f"sqlite:///{scratch}/lite.db", "nothing", STARTS)
        finally:
            server.kill()
    return summarize(rounds, start["seconds"])


@dataclass
class Round:
    """Seconds of each: a sync into an empty table, one over unchanged data, the floor, dlt; rows rewritten; peak memory."""

    first: float
    again: float
    floor: float
    dlt: float | None
    rewritten: int
    megabytes: float


def measure(folder: Path, base: str, postgres: PostgresServer) -> Round:
    """One beside the other, each on a fresh database."""
    with postgres.database() as url:
        ours = flow(folder, base, url, "products", 2)
        rewritten = _rewritten(url, folder, base)
    with postgres.database() as url:
        floor = copy_and_merge(url)
    with postgres.database() as url:
        theirs = dlt(base, url, str(folder))
    first, again = ours["seconds"]
    return Round(first, again, floor, theirs, rewritten, ours["megabytes"])


def flow(folder: Path, base: str, url: str, name: str, times: int) -> dict[str, Any]:
    """Run a flow some times in a `khotan worker`; seconds of each, and the worker's peak memory."""
    if not folder.exists():
        extra = {"plugs/store.py": PLUG.replace("{base}", base), "products.py": FLOW}
        flows_project(folder, base, url, extra=extra)
    env = {
        **os.environ,
        "DATABASE_URL": url,
        "KHOTAN_SECRET": SECRET,
        "PYTHONPATH": str(folder),
        "KHOTAN_OUTPUT": "json",
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "khotan_cli", "worker"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        trigger(folder, env, "nothing", 1)  # it has started
        seconds = trigger(folder, env, name, times)
        status = Path(f"/proc/{worker.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    finally:
        worker.terminate()
        worker.wait(20)
    return {"seconds": seconds, "megabytes": peak}


def trigger(folder: Path, env: dict[str, str], name: str, times: int) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", TRIGGER, name, str(times)],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def _rewritten(url: str, folder: Path, base: str) -> int:
    """Rows of which a further run over unchanged data makes a new version."""
    asked = "SELECT id, xmin::text, ctid::text, xmax::text FROM products"
    with psycopg.connect(url) as connection:
        before = set(connection.execute(asked).fetchall())
    flow(folder, base, url, "products", 1)
    with psycopg.connect(url) as connection:
        return len(before ^ set(connection.execute(asked).fetchall()))


def copy_and_merge(url: str) -> float:
    """Seconds for the floor: the same records, already in memory."""
    rows = [
        (
            n,
            f"SKU-{n:07}",
            f"Product number {n}",
            "made to be used " * 9,
            n / 7,
            n % 400,
            n % 3 > 0,
            "2026-01-01T08:00:00Z",
        )
        for n in range(COUNT)
    ]
    with psycopg.connect(url) as connection:
        connection.execute(f"CREATE TABLE products ({COLUMNS})")
        connection.commit()
        started = time.time()
        connection.execute("CREATE TEMPORARY TABLE staging (LIKE products) ON COMMIT DROP")
        with connection.cursor().copy("COPY staging FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        names = ["sku", "name", "description", "price", "stock", "active", "created_at"]
        sets = ", ".join(f"{name} = excluded.{name}" for name in names)
        merge = (
            f"INSERT INTO products SELECT * FROM staging ON CONFLICT (id) DO UPDATE SET {sets} "
            f"WHERE ({', '.join('products.' + n for n in names)}) IS DISTINCT FROM ({', '.join('excluded.' + n for n in names)})"
        )
        connection.execute(merge.encode())
        connection.commit()
        return time.time() - started


def dlt(base: str, url: str, scratch: str) -> float | None:
    if importlib.util.find_spec("dlt") is None:
        return None
    done = subprocess.run(
        [sys.executable, "-c", DLT, base, url, str(Path(scratch, "dlt"))], text=True, stdout=subprocess.PIPE, check=True
    )
    seconds: float = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return seconds


def summarize(rounds: list[Round], starts: list[float]) -> int:
    first, again, floor = (statistics.median(getattr(r, name) for r in rounds) for name in ("first", "again", "floor"))
    theirs = [r.dlt for r in rounds if r.dlt is not None]
    ratios = {
        "ofFloor": statistics.median(r.floor / r.first for r in rounds),
        "timesDlt": statistics.median(r.dlt / r.first for r in rounds if r.dlt is not None) if theirs else 0.0,
        "againToFirst": again / first,
        "rowsRewritten": float(sum(r.rewritten for r in rounds)),
        "peakMegabytes": max(r.megabytes for r in rounds),
        "startMilliseconds": statistics.median(starts) * 1000,
    }
    at_least = {"ofFloor": BOUNDS["floor"], "timesDlt": BOUNDS["dlt"]}
    if not theirs:  # the peer is not installed: it has no ratio and no bound
        del ratios["timesDlt"], at_least["timesDlt"]
    seconds = {"khotan": first, "unchanged": again, "copyAndMerge": floor}
    if theirs:
        seconds["dlt"] = statistics.median(theirs)
    return report(
        "flows",
        ratios,
        at_least=at_least,
        at_most={
            "againToFirst": 1.0,
            "rowsRewritten": 0.0,
            "peakMegabytes": BOUNDS["megabytes"],
            "startMilliseconds": BOUNDS["start_ms"],
        },
        recordsPerSecond={name: round(COUNT / value) for name, value in seconds.items()},
    )


if __name__ == "__main__":
    sys.exit(main())
