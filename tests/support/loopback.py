"""A small HTTP server on loopback whose every byte a test decides; it remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl


@dataclass
class Asked:
    """One request as it came; target is the raw request target."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2]))

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """A response. `raw`: bytes sent instead of a response; then the connection is closed. `drop`: closed without a word."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    raw: bytes | None = None
    drop: bool = False


def as_json(value: Any, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})


Handler = Callable[[Asked], Answer | Awaitable[Answer]]


class Loopback:
    """The running server: `url`, and the requests it got in `asked`."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[Asked] = []
        self.url = ""
        self.open_now = 0
        self.most_open = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                self.open_now += 1
                self.most_open = max(self.most_open, self.open_now)
                try:
                    answer = self.handler(asked)
                    if not isinstance(answer, Answer):
                        answer = await answer
                finally:
                    self.open_now -= 1
                if answer.drop:
                    break
                if answer.raw is not None:
                    writer.write(answer.raw)
                    await writer.drain()
                    break
                writer.write(_bytes(answer, asked.method))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    line = (await reader.readline()).decode("latin-1")
    if not line:
        return None
    method, target, _ = line.split(" ", 2)
    headers: dict[str, str] = {}
    while (header := (await reader.readline()).decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Asked(method, target, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def _bytes(answer: Answer, method: str) -> bytes:
    headers: Mapping[str, str] = {"Content-Length": str(len(answer.body)), **answer.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = b"" if method == "HEAD" else answer.body
    return f"HTTP/1.1 {answer.status} Because\r\n{head}\r\n".encode("latin-1") + body


@asynccontextmanager
async def loopback(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[Loopback]:
    """Serve while the block lasts, on 127.0.0.1 and a free port; with a context, over TLS."""
    served = Loopback(handler)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await served._serve(reader, writer)
        except asyncio.CancelledError:
            return
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context, limit=2**20)
    scheme = "https" if context else "http"
    served.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def threaded_loopback(handler: Handler) -> Iterator[Loopback]:
    """The same server in a thread of its own, for tests that wait for other processes."""
    ready, ended = threading.Event(), threading.Event()
    holder: list[Loopback] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with loopback(handler) as served:
            holder.append(served)
            ready.set()
            await stop.wait()

    def thread() -> None:
        loop.run_until_complete(run())
        loop.close()
        ended.set()

    threading.Thread(target=thread, daemon=True).start()
    ready.wait()
    try:
        yield holder[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        ended.wait()
