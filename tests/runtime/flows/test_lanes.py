"""Lanes: what blocks its thread, or is cancelled, is in nobody's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.worker.threads import Lanes


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
        go_on.wait(120)
        await asyncio.sleep(30)

    work = asyncio.create_task(lanes.run(blocks))
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    async with asyncio.timeout(90):
        assert await lanes.run(name_of_thread) == "khotan-lane-2"
    assert lanes.busy, "what blocks is still there"
    go_on.set()
    async with asyncio.timeout(90):
        while lanes.busy:  # it is cancelled as soon as it yields
            await asyncio.sleep(0.01)


async def test_work_cancelled_before_it_begins_frees_its_lane(lanes: Lanes) -> None:
    for _ in range(20):
        work = asyncio.create_task(lanes.run(lambda: asyncio.sleep(30)))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    async with asyncio.timeout(90):
        while lanes.busy:
            await asyncio.sleep(0.01)


async def test_an_error_reaches_the_caller(lanes: Lanes) -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await lanes.run(fails)
    assert await lanes.run(name_of_thread) == "khotan-lane-1"


async def test_a_lane_outlives_what_would_end_its_loop(lanes: Lanes) -> None:
    async def beside() -> None:
        raise SystemExit(3)

    async def exits() -> str:
        task = asyncio.create_task(beside())
        await asyncio.wait({task})
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return type(task.exception()).__name__

    async with asyncio.timeout(90):
        assert await lanes.run(exits) == "SystemExit"
        assert await lanes.run(name_of_thread) == "khotan-lane-1"


async def test_work_that_would_end_the_loop_of_its_caller_is_an_error_there(lanes: Lanes) -> None:
    async def exits() -> None:
        raise SystemExit(3)

    async with asyncio.timeout(90):
        with pytest.raises(KhotanError, match=r"SystemExit\(3\)"):
            await lanes.run(exits)
        assert await lanes.run(name_of_thread) == "khotan-lane-1"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_lane_whose_thread_has_ended_is_not_used_again(lanes: Lanes) -> None:
    async def loop_and_thread() -> tuple[Any, threading.Thread]:
        return asyncio.get_running_loop(), threading.current_thread()

    def broken() -> None:
        raise OSError("somebody has closed all files of the process")

    loop, thread = await lanes.run(loop_and_thread)
    loop.call_soon_threadsafe(setattr, loop, "_run_once", broken)
    await asyncio.to_thread(thread.join, 10)
    loop.close()
    async with asyncio.timeout(90):
        assert await lanes.run(name_of_thread) == "khotan-lane-2"
