"""Calls from code that is not async: scripts, threads, notebooks, forked workers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from khotan_cli.errors import KhotanError, ParameterError, PlugError
from khotan_cli.runtime import OffsetPaginator, Plug, get, post
from khotan_cli.runtime.http.dry_run import SuppressedRequest, suppressing
from tests.support.loopback import Answer, Asked, Loopback, as_json, threaded_loopback


class Order(BaseModel):
    id: int


class Orders(BaseModel):
    data: list[Order]
    total: int


class Shop(Plug):
    base_url = "http://127.0.0.1:9"
    paginator = OffsetPaginator(limit=10, items="data", total="total")

    get_order = get("/orders/{order_id}", returns=Order)
    list_orders = get("/orders", returns=Orders)
    create_orders = post("/orders", body=list, returns=list[Order])


def handler(asked: Asked) -> Answer:
    if asked.path == "/orders" and asked.method == "POST":
        return as_json(asked.json())
    if asked.path == "/orders":
        offset = int(asked.query["offset"])
        return as_json({"data": [{"id": n} for n in range(offset, min(offset + 10, 35))], "total": 35})
    if asked.path == "/orders/404":
        return Answer(404, b'{"message": "no such order"}', {"Content-Type": "application/json"})
    return as_json({"id": int(asked.path.rpartition("/")[2])})


@pytest.fixture
def server() -> Iterator[Loopback]:
    with threaded_loopback(handler) as served:
        yield served


@pytest.fixture
def shop(server: Loopback) -> Shop:
    return Shop().with_options(base_url=server.url)


def test_a_call_returns_the_model_and_raises_as_the_awaited_one_does(shop: Shop) -> None:
    assert shop.get_order.blocking(order_id=7) == Order(id=7)
    response = shop.get_order.blocking.raw(order_id=404)
    assert isinstance(response, httpx.Response) and response.status_code == 404
    with pytest.raises(PlugError, match="no such order") as raised:
        shop.get_order.blocking(order_id=404)
    assert raised.value.status == 404
    with pytest.raises(ParameterError):
        shop.get_order.blocking()


def test_pages_items_and_batches(shop: Shop) -> None:
    assert [len(page.data) for page in shop.list_orders.blocking.pages()] == [10, 10, 10, 5]
    assert [order.id for order in shop.list_orders.blocking.items()] == list(range(35))
    results = list(shop.create_orders.blocking.batch_post([{"id": n} for n in range(25)], size=10))
    assert [len(result.response or []) for result in results] == [10, 10, 5]


def test_a_loop_that_is_left_early_asks_for_no_further_page(server: Loopback, shop: Shop) -> None:
    for order in shop.list_orders.blocking.items():
        if order.id == 3:
            break
    assert len(server.asked) == 1


def test_threads_share_one_event_loop(shop: Shop) -> None:
    seen: set[int] = set()

    class Watched(Shop):
        def before_request(self, request: httpx.Request) -> None:
            seen.add(threading.get_ident())

    plug = Watched().with_options(base_url=shop.base_url)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: plug.get_order.blocking(order_id=number).id, range(40)))
    assert found == list(range(40))
    assert len(seen) == 1 and threading.get_ident() not in seen


async def test_inside_a_running_loop_it_works_and_blocks_that_loop(shop: Shop) -> None:
    assert asyncio.get_running_loop()
    assert shop.get_order.blocking(order_id=1).id == 1
    assert [order.id for order in shop.list_orders.blocking.items()][:2] == [0, 1]


def test_a_hook_that_would_wait_for_itself_is_told_so(shop: Shop) -> None:
    class Deadlock(Shop):
        def before_request(self, request: httpx.Request) -> None:
            if not request.url.path.endswith("/99"):
                self.get_order.blocking(order_id=99)

    with pytest.raises(KhotanError, match=r"get_order.*event loop") as raised:
        Deadlock().with_options(base_url=shop.base_url).get_order.blocking(order_id=1)
    assert raised.value.code == "blocking_in_loop"


def test_a_dry_run_around_it_counts(server: Loopback, shop: Shop) -> None:
    held: list[SuppressedRequest] = []

    class Collected:
        def add_request(self, request: SuppressedRequest) -> None:
            held.append(request)

        def wrote(self, table: str, counts: Mapping[str, int], records: Sequence[Any] = ()) -> None: ...

    with suppressing(Collected()):
        shop.create_orders.blocking(body=[{"id": 1}])
    assert server.asked == [] and [request.method for request in held] == ["POST"]


def in_child(base_url: str, queue: Any) -> None:
    shop = Shop().with_options(base_url=base_url)
    queue.put((os.getpid(), shop.get_order.blocking(order_id=5).id))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_a_loop_of_its_own(shop: Shop) -> None:
    assert shop.get_order.blocking(order_id=1).id == 1  # the parent's loop runs
    forks = multiprocessing.get_context("fork")
    queue = forks.Queue()
    child = forks.Process(target=in_child, args=(shop.base_url, queue))
    child.start()
    pid, number = queue.get(timeout=120)
    child.join(120)
    assert (pid, number, child.exitcode) == (child.pid, 5, 0)
    assert shop.get_order.blocking(order_id=2).id == 2


def test_a_script_ends_without_a_word(tmp_path: Path, server: Loopback) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from khotan_cli.runtime import Plug\n\n\nclass Shop(Plug):\n"
        f"    base_url = {server.url!r}\n\n\nshop = Shop()\n"
        "from khotan_cli.runtime import get\n\n\nclass Typed(Shop):\n    one = get('/orders/{n}')\n\n\n"
        "print(Typed().one.blocking(n=3))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "{'id': 3}", "")
