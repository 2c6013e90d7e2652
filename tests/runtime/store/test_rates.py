"""Rate buckets that several processes share."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import select, update

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.tables import RATES
from khotan_cli.runtime.http.rate_limit import MAX_PAUSE_SECONDS, ProcessRateStore
from khotan_cli.runtime.store.rate_limits import DatabaseRateStore
from tests.runtime.store.conftest import Spawn

# Reserves twenty places at once, and prints how long each has to wait.
_RESERVE = """
import asyncio, json, sys
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.store.rate_limits import DatabaseRateStore

async def main(url):
    database = Database(url)
    await database.ping()
    rates = DatabaseRateStore(database)
    print("ready", flush=True)
    sys.stdin.readline()
    waits = await asyncio.gather(*(rates.reserve("shop:abc", 1000.0, 5) for _ in range(20)))
    await database.dispose()
    print(json.dumps(waits))

asyncio.run(main(sys.argv[1]))
"""

_SLOTS = """
import asyncio, os, sys
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.store.rate_limits import DatabaseRateStore

async def main(url, journal):
    database = Database(url)
    rates = DatabaseRateStore(database)
    out = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def call():
        async with rates.slot("shop:abc", 2):
            os.write(out, b"+")
            await asyncio.sleep(0.002)
            os.write(out, b"-")

    await asyncio.gather(*(call() for _ in range(10)))
    await database.dispose()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def rates(database: Database) -> DatabaseRateStore:
    return DatabaseRateStore(database)


async def test_a_burst_goes_at_once_and_the_rest_is_spaced(rates: DatabaseRateStore) -> None:
    waits = [await rates.reserve("shop:abc", 10.0, 3) for _ in range(5)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert 8.0 < waits[3] <= 10.0
    assert 18.0 < waits[4] <= 20.0
    assert waits[4] - waits[3] == pytest.approx(10.0, abs=2.0)


async def test_it_decides_as_the_store_in_memory_does(rates: DatabaseRateStore) -> None:
    memory = ProcessRateStore()
    asked: list[tuple[str, float, int]] = [("a", 100.0, 1), ("b", 100.0, 4), ("c", 50.0, 2)]
    await rates.pause("c", 1000.0)
    await memory.pause("c", 1000.0)
    for _ in range(6):
        for key, interval, burst in asked:
            mine, theirs = await rates.reserve(key, interval, burst), await memory.reserve(key, interval, burst)
            assert mine == pytest.approx(theirs, abs=5.0)


async def test_keys_do_not_share_a_bucket(rates: DatabaseRateStore) -> None:
    await rates.reserve("shop:abc", 10.0, 1)
    assert await rates.reserve("shop:def", 10.0, 1) == 0.0
    assert await rates.reserve("bank:abc", 10.0, 1) == 0.0


async def test_without_an_interval_nothing_waits_but_for_a_hold(rates: DatabaseRateStore) -> None:
    assert [await rates.reserve("shop:abc", 0.0, 1) for _ in range(3)] == [0.0, 0.0, 0.0]
    await rates.pause("shop:abc", 30.0)
    assert 28.0 < await rates.reserve("shop:abc", 0.0, 1) <= 30.0


async def test_a_hold_is_seen_at_once_here_and_within_a_second_elsewhere(
    rates: DatabaseRateStore, database: Database
) -> None:
    elsewhere = DatabaseRateStore(database)
    assert await elsewhere.paused_for("shop:abc") == 0.0
    await rates.pause("shop:abc", 30.0)
    assert 28.0 < await rates.paused_for("shop:abc") <= 30.0
    async with asyncio.timeout(90):
        while not await elsewhere.paused_for("shop:abc"):
            await asyncio.sleep(0.05)
    assert 20.0 < await elsewhere.paused_for("shop:abc") <= 30.0
    assert await rates.paused_for("shop:def") == 0.0


async def test_a_shorter_hold_does_not_shorten_a_longer_one(rates: DatabaseRateStore, database: Database) -> None:
    await rates.pause("shop:abc", 30.0)
    elsewhere = DatabaseRateStore(database)
    await elsewhere.pause("shop:abc", 1.0)
    assert await elsewhere.paused_for("shop:abc") > 25.0
    assert await elsewhere.reserve("shop:abc", 1.0, 1) > 25.0


async def test_those_who_wait_behind_a_hold_come_out_spaced(rates: DatabaseRateStore) -> None:
    await rates.pause("shop:abc", 100.0)
    waits = [await rates.reserve("shop:abc", 10.0, 1) for _ in range(3)]
    assert [wait - waits[0] for wait in waits] == pytest.approx([0.0, 10.0, 20.0], abs=3.0)
    assert waits[0] == pytest.approx(100.0, abs=3.0)


async def test_a_bucket_fills_again(rates: DatabaseRateStore, database: Database) -> None:
    for _ in range(3):
        await rates.reserve("shop:abc", 10.0, 3)
    async with database.session() as session:
        await session.execute(update(RATES).values(arrival_at=RATES.c.arrival_at - 60))
    assert [await rates.reserve("shop:abc", 10.0, 3) for _ in range(3)] == [0.0, 0.0, 0.0]


async def test_buckets_long_unused_are_forgotten(rates: DatabaseRateStore, database: Database) -> None:
    await rates.pause("held:abc", 10.0)
    await rates.reserve("old:abc", 1.0, 1)
    async with database.session() as session:
        await session.execute(update(RATES).where(RATES.c.key == "old:abc").values(arrival_at=1000.0))
    await DatabaseRateStore(database).reserve("shop:abc", 1.0, 1)
    async with database.session() as session:
        keys = set((await session.execute(select(RATES.c.key))).scalars())
    assert keys == {"held:abc", "shop:abc"}


async def test_two_processes_together_keep_the_rate(migrated_url: str, spawn: Spawn) -> None:
    processes = [spawn(_RESERVE, migrated_url) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate, "go\n") for process in processes))
    each = [json.loads(output) for output, _ in outputs]
    # Five at once, then one per 1000 s, each place given away once: the intervals are long beside the test's own time.
    expected = [max(0.0, (number - 4) * 1000.0) for number in range(40)]
    assert sorted(each[0] + each[1]) == pytest.approx(expected, abs=100.0)


async def test_slots_bound_what_runs_at_once_over_processes(migrated_url: str, tmp_path: Path, spawn: Spawn) -> None:
    journal = tmp_path / "journal"
    processes = [spawn(_SLOTS, migrated_url, str(journal)) for _ in range(2)]
    for process in processes:
        assert await asyncio.to_thread(process.wait, 60) == 0
    running = most = 0
    for mark in journal.read_text():
        running += 1 if mark == "+" else -1
        most = max(most, running)
    assert running == 0
    assert 1 <= most <= 2
    assert len(journal.read_text()) == 40


async def test_as_many_as_there_are_slots_run_at_once(rates: DatabaseRateStore, database: Database) -> None:
    meeting = asyncio.Barrier(2)

    async def call(store: DatabaseRateStore) -> None:
        async with store.slot("shop:abc", 2):
            await meeting.wait()

    async with asyncio.timeout(90):
        await asyncio.gather(call(rates), call(DatabaseRateStore(database)))


async def test_a_cancelled_caller_gives_its_slot_back(rates: DatabaseRateStore, database: Database) -> None:
    inside = asyncio.Event()

    async def call() -> None:
        async with rates.slot("shop:abc", 1):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(90), DatabaseRateStore(database).slot("shop:abc", 1):
        pass


async def test_a_hold_is_capped_listed_and_lifted_for_every_process(database: Database) -> None:
    ours, theirs = DatabaseRateStore(database), DatabaseRateStore(database)
    await ours.pause("shop:abc", 1_900_000_000)
    await ours.pause("shop_two", 50)
    assert MAX_PAUSE_SECONDS - 60 < await theirs.paused_for("shop:abc") <= MAX_PAUSE_SECONDS
    assert await ours.reserve("shop:abc", 1.0, 1) > 3000
    paused = await theirs.paused()
    assert set(paused) == {"shop", "shop_two"} and paused["shop"] > 3000
    assert await theirs.longest_pause("shop") > 3000 and await theirs.longest_pause("sho") == 0
    assert await theirs.resume("shop") == 1
    assert await theirs.paused_for("shop:abc") == 0 and await theirs.longest_pause("shop_two") > 0
    ours._held = {key: (0.0, until, set_at) for key, (_, until, set_at) in ours._held.items()}  # its second is over
    assert await ours.paused_for("shop:abc") == 0
    assert await ours.reserve("shop:abc", 1.0, 1) == 0


async def test_a_hold_of_decades_that_an_older_version_stored_is_cut_to_size(
    rates: DatabaseRateStore, database: Database
) -> None:
    await rates.pause("shop:abc", 5.0)
    async with database.session() as session:
        await session.execute(update(RATES).values(held_until=RATES.c.held_until + 2e9, arrival_at=2e9 + 2e9))
    assert await rates.reserve("shop:abc", 1.0, 1) <= MAX_PAUSE_SECONDS
    assert MAX_PAUSE_SECONDS < await rates.reserve("shop:abc", 1.0, 1) <= MAX_PAUSE_SECONDS + 1.0
    async with database.session() as session:
        held = (await session.execute(select(RATES.c.held_until - database.now()))).scalar_one()
    assert held <= MAX_PAUSE_SECONDS
