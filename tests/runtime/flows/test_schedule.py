"""Schedules, and who starts what is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from khotan_cli.errors import ConfigError
from khotan_cli.runtime import FlowContext, Variant, inflow
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.schedule import Schedule
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.execution import execute
from tests.runtime.flows.conftest import Shop, rows_of

NOON = datetime(2026, 3, 2, 12, 7, tzinfo=UTC)  # a Monday


@pytest.mark.parametrize(
    ("cron", "zone", "after", "latest"),
    [
        ("*/15 * * * *", "UTC", "2026-03-02T12:15", "2026-03-02T12:00"),
        ("7 12 * * *", "UTC", "2026-03-03T12:07", "2026-03-02T12:07"),
        ("0 9-17/4 * jan-dec mon-fri", "UTC", "2026-03-02T13:00", "2026-03-02T09:00"),
        ("0 0 1,15 * *", "UTC", "2026-03-15T00:00", "2026-03-01T00:00"),
        ("0 0 13 * fri", "UTC", "2026-03-06T00:00", "2026-02-27T00:00"),  # day or weekday
        ("30 8 * * SUN", "Europe/Berlin", "2026-03-08T07:30", "2026-03-01T07:30"),
        ("@daily", "America/New_York", "2026-03-03T05:00", "2026-03-02T05:00"),
        ("0 0 29 2 *", "UTC", "2028-02-29T00:00", "2024-02-29T00:00"),
    ],
)
def test_when_it_comes(cron: str, zone: str, after: str, latest: str) -> None:
    schedule = Schedule(cron, zone)
    assert schedule.after(NOON).isoformat()[:16] == after
    assert schedule.latest(NOON).isoformat()[:16] == latest


def test_clocks_that_change() -> None:
    berlin = Schedule("30 2 * * *", "Europe/Berlin")
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)  # 2:30 does not exist on the 29th
    due = [moment for _, moment in zip(range(2), berlin.upcoming(before), strict=False)]
    assert [moment.isoformat()[:16] for moment in due] == ["2026-03-29T01:00", "2026-03-30T00:30"]
    autumn = Schedule("30 2 * * *", "Europe/Berlin")  # and comes twice on 25 October
    due = [moment for _, moment in zip(range(2), autumn.upcoming(datetime(2026, 10, 24, 12, tzinfo=UTC)), strict=False)]
    assert [moment.date().isoformat() for moment in due] == ["2026-10-25", "2026-10-26"]


CHANGES = {
    "UTC": ["2026-03-29T01:00"],
    "Europe/Berlin": ["2026-03-29T01:00", "2026-10-25T01:00"],
    "America/New_York": ["2026-03-08T07:00", "2026-11-01T06:00"],
    "America/Santiago": ["2026-04-05T03:00", "2026-09-06T04:00"],  # at midnight
    "Australia/Lord_Howe": ["2026-04-04T15:00", "2026-10-03T15:30"],  # by half an hour
}


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize(
    "cron",
    ["* * * * *", "*/15 * * * *", "0 * * * *", "30 2 * * *", "15,45 2 * * *", "*/15 2 * * *", "0 0 * * *", "45 1 * * *",
     "0 1-3 * * *", "7 */2 * * *", "0 */6 * * sun", "59 23 L * *", "*/30 1,2 * 3,4,10,11 *", "0 0 29 2 *"],
)  # fmt: skip
def test_the_last_one_is_the_last_of_those_that_come(cron: str, zone: str) -> None:
    schedule = Schedule(cron, zone)
    for change in CHANGES[zone]:
        middle = datetime.fromisoformat(change).replace(tzinfo=UTC)
        start = middle - timedelta(days=365 * 9 if "29 2" in cron else 3 if cron.startswith("*") else 40)
        coming, known = schedule.upcoming(start), [start]
        while known[-1] <= middle + timedelta(hours=5):
            known.append(next(coming))
        assert known == sorted(set(known)), "each later than the one before"
        moments = [middle + timedelta(seconds=450 * number) for number in range(-40, 40)]
        for moment in moments:
            before = [due for due in known[1:] if due <= moment]
            if before:
                assert Schedule(cron, zone).latest(moment) == before[-1]
            assert Schedule(cron, zone).after(moment) == next(due for due in known if due > moment)
            assert (schedule.latest(moment), schedule.after(moment)) == (
                Schedule(cron, zone).latest(moment),
                Schedule(cron, zone).after(moment),
            ), "whatever was asked before"


@pytest.mark.parametrize("zone", CHANGES)
def test_no_quarter_of_an_hour_is_left_out(zone: str) -> None:
    for change in CHANGES[zone]:
        start = datetime.fromisoformat(change).replace(tzinfo=UTC) - timedelta(hours=6)
        coming = Schedule("*/15 * * * *", zone).upcoming(start)
        assert [next(coming) for _ in range(48)] == [start + timedelta(minutes=15 * (n + 1)) for n in range(48)]


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * foo *", "x", "*/0 * * * *",
     "5-1 * * * *", "* * * * mon-", "0 0 31 2 *", "0 0 30 feb *", "* * * * *; rm"],
)  # fmt: skip
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule(text)
    assert caught.value.hint


@pytest.fixture
def flow(shop: Shop, declare: Callable[[Flow], Flow]) -> Flow:
    @inflow(
        shop,
        variants={
            "delta": Variant(schedule="*/15 * * * *"),
            "often": Variant(schedule="* * * * *", overlap=True),
            "hand": Variant(),
        },
    )
    async def flow(ctx: FlowContext) -> None: ...

    return declare(flow)


async def started(dispatcher: Dispatcher, now: datetime) -> list[str]:
    return [f"{run.variant} {run.due_at.isoformat()[11:16]}" for run in await dispatcher.dispatch_due(now)]


async def end_all(host: Environment) -> None:
    for row in await host.runs.active():
        await execute(host, row.id)


async def test_a_schedule_starts_to_count_when_it_is_first_met(host: Environment, flow: Flow) -> None:
    dispatcher = Dispatcher(host)
    assert await started(dispatcher, NOON) == []
    assert await started(dispatcher, NOON + timedelta(seconds=59)) == []
    assert await started(dispatcher, NOON + timedelta(minutes=1)) == ["often 12:08"]
    assert await started(dispatcher, NOON + timedelta(minutes=1, seconds=30)) == []
    rows = await rows_of(host, "SELECT variant, source, status FROM khotan_runs")
    assert rows == [("often", "scheduled", "pending")]


async def test_missed_times_are_caught_up_once(host: Environment, flow: Flow) -> None:
    await Dispatcher(host).dispatch_due(NOON)
    later = NOON + timedelta(hours=5)
    assert await started(Dispatcher(host), later) == ["delta 17:00", "often 17:07"]
    assert await started(Dispatcher(host), later) == []


async def test_dispatchers_at_once_start_a_due_run_once(host: Environment, flow: Flow) -> None:
    await Dispatcher(host).dispatch_due(NOON)
    later = NOON + timedelta(minutes=8)
    parts = await asyncio.gather(*(started(Dispatcher(host), later) for _ in range(6)))
    assert sorted(run for part in parts for run in part) == ["delta 12:15", "often 12:15"]
    assert await rows_of(host, "SELECT count(*) FROM khotan_runs") == [(2,)]
    assert await rows_of(host, f"SELECT count(*) FROM {host.run_queue.table}") == [(2,)]


async def test_overlapping_runs_are_skipped_unless_allowed(host: Environment, flow: Flow) -> None:
    dispatcher = Dispatcher(host)
    await dispatcher.dispatch_due(NOON)
    await dispatcher.trigger("flow", "delta")
    assert await started(dispatcher, NOON + timedelta(minutes=8)) == ["often 12:15"]
    await end_all(host)
    assert await started(dispatcher, NOON + timedelta(minutes=22)) == ["often 12:29"], (
        "what was skipped is not caught up"
    )
    await end_all(host)
    assert await started(dispatcher, NOON + timedelta(minutes=23)) == ["delta 12:30", "often 12:30"]


async def test_variants_queue_behind_each_other(host: Environment, shop: Shop, declare: Callable[[Flow], Flow]) -> None:
    @inflow(shop, variants={"delta": Variant(schedule="*/15 * * * *"), "full": Variant(schedule="0 2 * * 0")})
    async def charges(ctx: FlowContext) -> None: ...

    declare(charges)
    dispatcher, now = Dispatcher(host), datetime(2026, 3, 7, 23, 50, tzinfo=UTC)  # a Saturday
    counted = {"delta": 0, "full": 0}
    while now < datetime(2026, 3, 8, 3, tzinfo=UTC):
        for run in await dispatcher.dispatch_due(now):
            counted[run.variant] += 1
        if now.hour != 2:  # at 2 both are due, and are still waiting a quarter of an hour later
            await end_all(host)
        now += timedelta(minutes=15)
    assert counted == {"delta": 9, "full": 1}
    asked = "SELECT count(*) FROM khotan_runs WHERE status = 'pending'"
    assert await rows_of(host, asked) == [(2,)]
    asked = f"SELECT DISTINCT queue_name, queue_partition_key FROM {host.run_queue.table}"
    assert await rows_of(host, asked) == [("khotan", "charges")], "one partition: one at a time"


async def test_a_disabled_flow_or_plug_is_not_started(host: Environment, flow: Flow) -> None:
    dispatcher = Dispatcher(host)
    await dispatcher.dispatch_due(NOON)
    await host.switches.set_enabled("flow", False)
    assert await started(dispatcher, NOON + timedelta(minutes=1)) == []
    await host.switches.set_enabled("flow", True)
    await host.vars.set_enabled("shop", False)
    assert await started(dispatcher, NOON + timedelta(minutes=2)) == []
    await host.vars.set_enabled("shop", True)
    assert await started(dispatcher, NOON + timedelta(minutes=3)) == ["often 12:10"]


async def test_a_clock_that_is_set_back(host: Environment, flow: Flow) -> None:
    dispatcher = Dispatcher(host)
    ahead = NOON + timedelta(days=30)
    await dispatcher.dispatch_due(ahead)
    assert await started(dispatcher, ahead + timedelta(minutes=1)) == ["often 12:08"]
    # A small step back starts nothing twice.
    assert await started(dispatcher, ahead + timedelta(seconds=30)) == []
    # The clock had been a month ahead: schedules go on from the right time.
    for fresh in (dispatcher, Dispatcher(host)):
        assert await started(fresh, NOON) == []
    assert await started(dispatcher, NOON + timedelta(minutes=1)) == ["often 12:08"]
    assert await started(Dispatcher(host), NOON + timedelta(minutes=1)) == []


async def test_a_run_that_ended_before_it_began(host: Environment, flow: Flow) -> None:
    from khotan_cli.runtime.api.models.flow_views import run_info
    from khotan_cli.runtime.database.tables import RUNS

    run_id = await Dispatcher(host).trigger("flow", "hand")
    await execute(host, run_id)
    async with host.database.session() as session:
        ahead = datetime.now(UTC) + timedelta(hours=2)
        await session.execute(RUNS.update().values(started_at=ahead))
    row: Any = await host.runs.get(run_id)
    assert run_info(row, "").seconds == 0
