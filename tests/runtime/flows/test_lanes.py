"""RunThreadPool: what blocks its thread, or is cancelled, is in nobody's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.worker.threads import RunThreadPool


async def _nothing() -> None: ...


async def name_of_thread() -> str:
    return threading.current_thread().name


@pytest.fixture
def pool() -> Iterator[RunThreadPool]:
    made = RunThreadPool(_nothing)
    yield made
    made.stop()


async def test_an_idle_lane_is_used_again(pool: RunThreadPool) -> None:
    assert {await pool.run(name_of_thread) for _ in range(5)} == {"khotan-run-1"}
    assert not pool.busy


async def test_a_cancelled_caller_does_not_free_a_lane_that_is_blocked(pool: RunThreadPool) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    here = asyncio.get_running_loop()

    async def blocks() -> None:
        here.call_soon_threadsafe(begun.set)
        go_on.wait(120)
        await asyncio.sleep(30)

    work = asyncio.create_task(pool.run(blocks))
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    async with asyncio.timeout(90):
        assert await pool.run(name_of_thread) == "khotan-run-2"
    assert pool.busy, "what blocks is still there"
    go_on.set()
    async with asyncio.timeout(90):
        while pool.busy:  # it is cancelled as soon as it yields
            await asyncio.sleep(0.01)


async def test_work_cancelled_before_it_begins_frees_its_lane(pool: RunThreadPool) -> None:
    for _ in range(20):
        work = asyncio.create_task(pool.run(lambda: asyncio.sleep(30)))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    async with asyncio.timeout(90):
        while pool.busy:
            await asyncio.sleep(0.01)


async def test_an_error_reaches_the_caller(pool: RunThreadPool) -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await pool.run(fails)
    assert await pool.run(name_of_thread) == "khotan-run-1"


async def test_a_lane_outlives_what_would_end_its_loop(pool: RunThreadPool) -> None:
    async def beside() -> None:
        raise SystemExit(3)

    async def exits() -> str:
        task = asyncio.create_task(beside())
        await asyncio.wait({task})
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return type(task.exception()).__name__

    async with asyncio.timeout(90):
        assert await pool.run(exits) == "SystemExit"
        assert await pool.run(name_of_thread) == "khotan-run-1"


async def test_work_that_would_end_the_loop_of_its_caller_is_an_error_there(pool: RunThreadPool) -> None:
    async def exits() -> None:
        raise SystemExit(3)

    async with asyncio.timeout(90):
        with pytest.raises(KhotanError, match=r"SystemExit\(3\)"):
            await pool.run(exits)
        assert await pool.run(name_of_thread) == "khotan-run-1"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_lane_whose_thread_has_ended_is_not_used_again(pool: RunThreadPool) -> None:
    async def loop_and_thread() -> tuple[Any, threading.Thread]:
        return asyncio.get_running_loop(), threading.current_thread()

    def broken() -> None:
        raise OSError("somebody has closed all files of the process")

    loop, thread = await pool.run(loop_and_thread)
    loop.call_soon_threadsafe(setattr, loop, "_run_once", broken)
    await asyncio.to_thread(thread.join, 10)
    loop.close()
    async with asyncio.timeout(90):
        assert await pool.run(name_of_thread) == "khotan-run-2"
