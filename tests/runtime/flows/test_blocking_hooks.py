"""Hooks that block, and those that are not functions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from khotan_cli.runtime import Hooks, RunInfo
from khotan_cli.runtime.runs.hooks import EventInfo

EVENT = EventInfo("1", "shop", "order.paid", "evt_1")
RUN = RunInfo("r", "flow", None, "completed", "manual")


async def test_a_hook_that_blocks_holds_up_nobody_else() -> None:
    go, told = threading.Event(), list[str]()

    def blocks(about: EventInfo | RunInfo) -> None:
        assert go.wait(120), "the event loop stood still"
        told.append(about.id)

    hooks = Hooks(on_webhook_received=blocks, on_start=blocks)

    async def others() -> None:
        go.set()

    await asyncio.gather(hooks.received(EVENT), others())
    go.clear()
    await asyncio.gather(hooks.started(RUN), others())
    assert told == ["1", "r"]


async def test_a_sender_does_not_wait_for_a_hook_that_blocks(caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()

    def blocks(event: EventInfo) -> None:
        go.wait(120)

    try:
        await Hooks(on_webhook_received=blocks).received(EVENT)
    finally:
        go.set()
    assert "of wire shop raised TimeoutError" in caplog.text


async def test_a_function_that_gives_an_awaitable_is_awaited() -> None:
    told = list[int]()

    async def note(event: EventInfo) -> None:
        told.append(threading.get_ident())

    def given(event: EventInfo) -> Awaitable[None]:
        return note(event)

    await Hooks(on_webhook_received=given).received(EVENT)
    await Hooks(on_webhook_received=note).received(EVENT)
    assert told == [threading.get_ident()] * 2, "in the event loop"
