"""Durable receive (verify, store, enqueue, commit, then acknowledge) beside a bare Starlette endpoint that verifies and
inserts one row, both under uvicorn on one PostgreSQL, at concurrency 16 from a process of its own.

Bounds: at least half of the bare endpoint's rate; 99 of 100 answers within 100 ms.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import report
from tests.support.postgres import running_server
from tests.support.webhooks import HOOK, SIGNING_SECRET, webhook_project

REQUESTS, CONCURRENCY, ROUNDS = 3_000, 16, 3
BOUND, P99_MS = 0.5, 100.0
BARE = """
import hashlib, hmac, os
from contextlib import asynccontextmanager
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

SECRET = os.environ["SIGNING_SECRET"].encode()

@asynccontextmanager
async def lifespan(app):
    async with AsyncConnectionPool(os.environ["DATABASE_URL"], min_size=16, max_size=16) as app.state.pool:
        async with app.state.pool.connection() as connection:
            await connection.execute("CREATE TABLE IF NOT EXISTS bare (id BIGSERIAL PRIMARY KEY, body BYTEA NOT NULL)")
        yield

async def receive(request):
    body = await request.body()
    fields = dict(part.split("=", 1) for part in request.headers["stripe-signature"].split(","))
    made = hmac.new(SECRET, fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(made, fields["v1"]):
        return JSONResponse({"ok": False}, 401)
    async with request.app.state.pool.connection() as connection:
        await connection.execute("INSERT INTO bare (body) VALUES (%s)", (body,))
    return JSONResponse({"ok": True}, 202)

app = Starlette(routes=[Route("/hook", receive, methods=["POST"])], lifespan=lifespan)
"""
LOAD = """
import asyncio, hashlib, hmac, json, sys, time
import aiohttp

url, secret, first, count, concurrency = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])

async def main():
    took, numbers = [], iter(range(first, first + count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        async def sender():
            for number in numbers:
                body = json.dumps({"id": f"evt_{number}", "type": "order.paid", "amount": number, "note": "x" * 300}).encode()
                moment = str(int(time.time()))
                made = hmac.new(secret, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
                headers = {"Stripe-Signature": f"t={moment},v1={made}", "Content-Type": "application/json"}
                started = time.perf_counter()
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    assert answer.status == 202, answer.status
                took.append(time.perf_counter() - started)
        started = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(concurrency)))
        seconds = time.perf_counter() - started
    took.sort()
    print(json.dumps({"rate": count / seconds, "p99": took[int(len(took) * 0.99)] * 1000, "p50": took[len(took) // 2] * 1000}))

asyncio.run(main())
"""


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_server(f"hooks-{os.getpid()}", durable=True) as postgres,
        postgres.database() as url,
        postgres.database() as bare_url,
    ):
        project = webhook_project(Path(scratch), url)
        Path(scratch, "bare.py").write_text(BARE)
        ours = project.environment({"KHOTAN_ENGINE": "off", "PYTHONPATH": str(Path(__file__).resolve().parents[1])})
        bare = {**os.environ, "DATABASE_URL": bare_url, "SIGNING_SECRET": SIGNING_SECRET}
        servers = [serve(scratch, "khotan.app:app", ours), serve(scratch, "bare:app", bare)]
        try:
            results = [measure([f"{servers[0][1]}{HOOK}", f"{servers[1][1]}/hook"], n) for n in range(ROUNDS + 1)][1:]
            with psycopg.connect(url) as connection:
                stored = connection.execute("SELECT count(*) FROM khotan_runs WHERE status = 'pending'").fetchone()
            assert stored == ((ROUNDS + 1) * REQUESTS,), stored
        finally:
            for server, _ in servers:
                server.kill()
    return summarize(results)


def serve(folder: str, app: str, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(words, cwd=folder, env=env)
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            httpx.get(url, timeout=5)
            return process, url
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"{app} did not start")


def measure(urls: list[str], number: int) -> list[dict[str, float]]:
    """One beside the other."""
    found: list[dict[str, float]] = []
    for url in urls:
        words = [url, SIGNING_SECRET, str(number * REQUESTS), str(REQUESTS), str(CONCURRENCY)]
        done = subprocess.run([sys.executable, "-c", LOAD, *words], text=True, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(done.stdout))
    return found


def summarize(results: list[list[dict[str, float]]]) -> int:
    rate, bare = (statistics.median(round_[place]["rate"] for round_ in results) for place in (0, 1))
    p50, p99 = (statistics.median(round_[0][name] for round_ in results) for name in ("p50", "p99"))
    ratio = statistics.median(round_[0]["rate"] / round_[1]["rate"] for round_ in results)
    return report(
        "webhooks",
        {"ofBareEndpoint": ratio, "p99Milliseconds": p99},
        at_least={"ofBareEndpoint": BOUND},
        at_most={"p99Milliseconds": P99_MS},
        eventsPerSecond={"khotan": round(rate), "bare": round(bare)},
        milliseconds={"p50": round(p50, 1), "p99": round(p99, 1)},
    )


if __name__ == "__main__":
    sys.exit(main())
