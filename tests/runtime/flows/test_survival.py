"""What a run survives: its process killed, its database stopped, its code edited, its source misbehaving."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.support.flows import (
    Source,
    connection,
    flows_project,
    run_row,
    some_items,
    trigger,
    wait_until_ended,
    worker,
)
from tests.support.loopback import threaded_loopback

PAGES, SIZE, KILLS = 100, 10, 20


@pytest.mark.timeout(240)
def test_twenty_kills_lose_and_repeat_nothing(database_url: str, tmp_path: Path) -> None:
    source = Source(some_items(PAGES * SIZE), delay=0.004)
    dice = random.Random(57)
    kills = 0
    with threaded_loopback(source) as served:
        project = flows_project(tmp_path, served.url, database_url, size=SIZE)
        run_id = trigger(project, "items")
        finished: set[int] = set()
        while kills < KILLS:
            before = len(source.asked)
            with worker(project) as running:
                source.wait_for(before + dice.randint(1, 4))
                time.sleep(dice.uniform(0, 0.02))  # a random moment
                running.kill()
            kills += 1
            again = finished & set(source.asked[before:])
            assert not again, f"finished pages were fetched again: {sorted(again)}"
            finished = finished_pages(database_url, run_id)
        with worker(project) as running:
            row = wait_until_ended(database_url, run_id)
            running.stop()
    assert (row["status"], row["error"]) == ("completed", None)
    assert kills == KILLS
    assert row["epoch"] > KILLS / 2
    counts = {name: row[name] for name in ("extracted", "created", "updated", "skipped", "failed")}
    assert counts == {"extracted": PAGES * SIZE, "created": PAGES * SIZE, "updated": 0, "skipped": 0, "failed": 0}
    with connection(database_url) as run:
        assert run("SELECT count(*), count(DISTINCT id), sum(id) FROM items") == [
            (PAGES * SIZE, PAGES * SIZE, sum(range(PAGES * SIZE)))
        ]
        assert run("SELECT count(*) FROM khotan_run_steps WHERE run_id = $", run_id) == [(PAGES,)]
    assert run_row(database_url, run_id)["status"] == "completed"


def finished_pages(database_url: str, run_id: str) -> set[int]:
    """Offsets of the pages whose step is stored."""
    with connection(database_url) as run:
        rows = run("SELECT name FROM khotan_run_steps WHERE run_id = $", run_id)
    return {(int(name.rpartition(" ")[2]) - 1) * SIZE for (name,) in rows}
