"""Locks over processes: one holder, renewed while it works, taken over when it dies."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from sqlalchemy import select, update

from khotan_cli.errors import DatabaseUnreachable
from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.locks import lease
from khotan_cli.runtime.database.tables import LEASES
from khotan_cli.runtime.store.variables import DatabaseVarStore
from tests.runtime.store.conftest import Spawn

# Appends "in" and "out" to a file while it holds the lock: a second holder would show as two "in" in a row.
_TURNS = """
import asyncio, os, sys
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.store.variables import DatabaseVarStore

async def main(url, journal, turns):
    database = Database(url)
    store = DatabaseVarStore(database, None)
    out = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def turn():
        async with store.lock("refresh"):
            os.write(out, b"in\\n")
            await asyncio.sleep(0.002)
            os.write(out, b"out\\n")

    await asyncio.gather(*(turn() for _ in range(int(turns))))
    await database.dispose()

asyncio.run(main(*sys.argv[1:]))
"""

_HOLD = """
import asyncio, sys
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.store.variables import DatabaseVarStore

async def main(url):
    store = DatabaseVarStore(Database(url), None, lease_seconds=1.0)
    async with store.lock("refresh"):
        print("held", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def store(database: Database, secret: str) -> DatabaseVarStore:
    return DatabaseVarStore(database, Cipher(secret), lease_seconds=1.0)


async def _held(database: Database) -> list[str]:
    async with database.session() as session:
        return list((await session.execute(select(LEASES.c.name))).scalars())


async def test_a_lock_is_given_back(store: DatabaseVarStore, database: Database) -> None:
    async with store.lock("refresh"):
        assert await _held(database) == ["lock:refresh"]
    assert await _held(database) == []


async def test_a_lock_is_given_back_after_an_error(store: DatabaseVarStore, database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.lock("refresh"):
            _ = 1 / 0
    assert await _held(database) == []


async def test_different_names_do_not_wait_for_each_other(store: DatabaseVarStore) -> None:
    async with asyncio.timeout(90), store.lock("a"), store.lock("b"):
        pass


async def test_a_cancelled_holder_lets_go(store: DatabaseVarStore, database: Database) -> None:
    inside = asyncio.Event()

    async def hold() -> None:
        async with store.lock("refresh"):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _held(database) == []


@pytest.mark.parametrize("moments", range(0, 30, 3))
async def test_cancelling_at_any_moment_leaves_nothing_behind(
    store: DatabaseVarStore, database: Database, moments: int
) -> None:
    async def hold() -> None:
        async with store.lock("refresh"):
            await asyncio.sleep(0)

    await database.ping()  # a connection that is cancelled while it logs in holds up the server
    task = asyncio.create_task(hold())
    for _ in range(moments):
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await _held(database) == []


async def test_a_cancelled_waiter_leaves_the_holder_alone(store: DatabaseVarStore, database: Database) -> None:
    other = DatabaseVarStore(database, None, lease_seconds=1.0)
    async with store.lock("refresh"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), other.lock("refresh"):
                pytest.fail("two holders")
        assert await _held(database) == ["lock:refresh"]


async def test_processes_take_turns(migrated_url: str, tmp_path: Path, spawn: Spawn) -> None:
    journal = tmp_path / "journal"
    processes = [spawn(_TURNS, migrated_url, str(journal), "5") for _ in range(3)]
    for process in processes:
        assert await asyncio.to_thread(process.wait, 60) == 0
    assert journal.read_text().split() == ["in", "out"] * 15


async def test_the_lock_of_a_killed_process_runs_out(
    store: DatabaseVarStore, database: Database, migrated_url: str, spawn: Spawn
) -> None:
    holder = spawn(_HOLD, migrated_url)
    assert holder.stdout is not None
    assert await asyncio.to_thread(holder.stdout.readline) == "held\n"
    holder.kill()
    assert await _held(database) == ["lock:refresh"]
    async with asyncio.timeout(30), store.lock("refresh"):
        assert await _held(database) == ["lock:refresh"]
    assert await _held(database) == []


async def test_a_holder_that_works_on_keeps_its_lock(database: Database) -> None:
    other = DatabaseVarStore(database, None, lease_seconds=1.5)
    async with lease(database, ["lock:refresh"], seconds=1.5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0), other.lock("refresh"):
                pytest.fail("the lease ran out while it was held")


async def test_a_holder_that_lost_its_lease_says_so_and_takes_nothing_away(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "khotan.store")
    async with lease(database, ["slot"], seconds=0.15):
        async with database.session() as session:
            await session.execute(update(LEASES).values(owner="another", expires_at=database.now() + 60))
        async with asyncio.timeout(90):
            while not caplog.records:
                await asyncio.sleep(0.01)
    assert "expired while it was held" in caplog.text
    assert await _held(database) == ["slot"]


async def test_of_several_names_any_free_one_is_held(database: Database) -> None:
    names = ["slot:0", "slot:1", "slot:2"]
    async with lease(database, names) as first, lease(database, names) as second, lease(database, names) as third:
        assert {first, second, third} == set(names)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), lease(database, names):
                pytest.fail("a fourth holder of three places")


async def test_an_unreachable_database_is_an_error_of_waiting(tmp_path: Path) -> None:
    database = Database("postgresql://khotan@127.0.0.1:1/none", tmp_path)
    with pytest.raises(DatabaseUnreachable):
        async with lease(database, ["lock"]):
            pytest.fail("held without a database")
    await database.dispose()
