"""Small GETs through a plug beside bare httpx.AsyncClient, in one run against one server in its own process.

Bounds: sequentially at most 0.75 of httpx's time per request; at concurrency 50 at least 3.5 times its throughput.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import report
from khotan_cli.runtime import BearerAuth, Plug, Retry, get

SEQUENTIAL, CONCURRENT, CONCURRENCY, ROUNDS = 400, 2000, 50, 5
BOUNDS = {"sequential": 0.75, "concurrent": 3.5}
BODY = b'{"id": 1, "name": "Lamp", "price": 12.5}'
SERVER = """
import asyncio
body = %r
answer = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %%d\\r\\n\\r\\n" %% len(body) + body
class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.seen = transport, b""
    def data_received(self, data):
        self.seen += data
        while b"\\r\\n\\r\\n" in self.seen:
            _, _, self.seen = self.seen.partition(b"\\r\\n\\r\\n")
            self.transport.write(answer)
async def main():
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class Item(BaseModel):
    id: int
    name: str
    price: float


def make_plug(base: str) -> Plug:
    class Shop(Plug):
        base_url = base
        auth = BearerAuth("token-of-the-benchmark")
        retry = Retry(attempts=3)
        get_item = get("/items/{id}", returns=Item)

    return Shop()


async def sequential(call: Callable[[], Awaitable[object]]) -> float:
    """Seconds per request."""
    started = time.perf_counter()
    for _ in range(SEQUENTIAL):
        await call()
    return (time.perf_counter() - started) / SEQUENTIAL


async def concurrent(call: Callable[[], Awaitable[object]]) -> float:
    """Requests per second."""
    left = CONCURRENT

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return CONCURRENT / (time.perf_counter() - started)


async def measure(base: str) -> dict[str, float]:
    plug = make_plug(base)
    headers = {"Authorization": "Bearer token-of-the-benchmark"}
    limits = httpx.Limits(max_connections=100)
    figures: dict[str, list[float]] = {"httpx s": [], "plug s": [], "httpx c": [], "plug c": []}
    async with httpx.AsyncClient(headers=headers, limits=limits) as client:

        async def bare() -> object:
            return (await client.get(f"{base}/items/1")).json()

        async def through() -> object:
            return await plug.endpoint("get_item")(id=1)

        for call in (bare, through):
            await sequential(call)
        for _ in range(ROUNDS):
            figures["httpx s"].append(await sequential(bare))
            figures["plug s"].append(await sequential(through))
            figures["httpx c"].append(await concurrent(bare))
            figures["plug c"].append(await concurrent(through))
    return {name: statistics.median(values) for name, values in figures.items()}


def main() -> int:
    server = subprocess.Popen([sys.executable, "-c", SERVER % BODY], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        figures = asyncio.run(measure(f"http://127.0.0.1:{int(server.stdout.readline())}"))
    finally:
        server.kill()
        server.wait()
    ratios = {
        "sequential": figures["plug s"] / figures["httpx s"],
        "concurrent": figures["plug c"] / figures["httpx c"],
    }
    return report(
        "http_client",
        ratios,
        at_most={"sequential": BOUNDS["sequential"]},
        at_least={"concurrent": BOUNDS["concurrent"]},
        microseconds={"httpx": round(figures["httpx s"] * 1e6), "plug": round(figures["plug s"] * 1e6)},
        requestsPerSecond={"httpx": round(figures["httpx c"]), "plug": round(figures["plug c"])},
    )


if __name__ == "__main__":
    sys.exit(main())
