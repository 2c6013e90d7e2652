"""Lanes: what blocks its thread, or is cancelled, is in nobody's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from khotan_cli.runtime.flows.lanes import Lanes


async def _nothing() -> None: ...


async def name_of_thread() -> str:
    return threading.current_thread().name


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    made = Lanes(_nothing)
    yield made
    made.stop()


async def test_an_idle_lane_is_used_again(lanes: Lanes) -> None:
    assert {await lanes.run(name_of_thread) for _ in range(5)} == {"khotan-lane-1"}
    assert not lanes.busy


async def test_a_cancelled_caller_does_not_free_a_lane_that_is_blocked(lanes: Lanes) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    here = asyncio.get_running_loop()

    async def blocks() -> None:
        here.call_soon_threadsafe(begun.set)
        go_on.wait(30)
        await asyncio.sleep(30)

    work = asyncio.create_task(lanes.run(blocks))
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    async with asyncio.timeout(10):
        assert await lanes.run(name_of_thread) == "khotan-lane-2"
    assert lanes.busy, "what blocks is still there"
    go_on.set()
    async with asyncio.timeout(10):
        while lanes.busy:  # it is cancelled as soon as it yields
            await asyncio.sleep(0.01)


async def test_work_cancelled_before_it_begins_frees_its_lane(lanes: Lanes) -> None:
    for _ in range(20):
        work = asyncio.create_task(lanes.run(lambda: asyncio.sleep(30)))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    async with asyncio.timeout(10):
        while lanes.busy:
            await asyncio.sleep(0.01)


async def test_an_error_reaches_the_caller(lanes: Lanes) -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await lanes.run(fails)
    assert await lanes.run(name_of_thread) == "khotan-lane-1"
