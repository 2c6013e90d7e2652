"""Mappings on PostgreSQL, 100,000 of them: bulk upsert, and a lookup by a system's id beside one by primary key.

Bounds: in bulk at least 20 times 441 per second, which is the rate of the TypeScript original one by one; a lookup by id of a
system at most 1.5 times one by primary key, misses included.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from khotan_cli.runtime.records.resources import Mappings, Resource
from khotan_cli.runtime.store import migrate
from khotan_cli.runtime.store.database import Database
from khotan_cli.runtime.store.mappings import MappingStore
from tests.support.postgres import running_server

COUNT, PAGE, LOOKUPS, ROUNDS = 100_000, 1_000, 300, 5
ORIGINAL = 441
BOUNDS = {"bulk": 20.0, "lookup": 1.5}


async def measure(url: str) -> bool:
    database = Database(url, Path.cwd())
    store = MappingStore(database)
    goods = Mappings(Resource("goods", connect_field="sku", plugs={"shop": "id", "erp": "nr"}), store)
    started = time.perf_counter()
    for start in range(0, COUNT, PAGE):
        await goods.upsert_many([(f"S{n}", {"shop": str(n), "erp": f"e{n}"}) for n in range(start, start + PAGE)])
    bulk = COUNT / (time.perf_counter() - started)
    started = time.perf_counter()
    for n in range(200):
        await goods.upsert(f"T{n}", shop=f"t{n}")
    single = 200 / (time.perf_counter() - started)
    found, _ = await goods.search(limit=LOOKUPS)
    ids, refs = [entry.id for entry in found], [entry.refs["erp"] for entry in found if "erp" in entry.refs]
    ratios: list[float] = []
    misses: list[float] = []
    for _ in range(ROUNDS):
        by_id = await timed(store.get, ids)
        by_ref = await timed(lambda value: goods.lookup_ref("erp", value), refs)
        missed = await timed(lambda value: goods.lookup_ref("erp", f"no-{value}"), refs)
        ratios.append(by_ref / by_id)
        misses.append(missed / by_id)
    await database.dispose()
    lookup, miss = statistics.median(ratios), statistics.median(misses)
    print(
        f"bulk upsert {bulk:>9,.0f}/s, {bulk / ORIGINAL:.0f} times the original one by one (bound {BOUNDS['bulk']:.0f})"
    )
    print(f"one by one  {single:>9,.0f}/s, {single / ORIGINAL:.1f} times the original")
    print(
        f"a lookup by a system's id takes {lookup:.2f}, a miss {miss:.2f} of one by primary key (bound {BOUNDS['lookup']})"
    )
    return bulk / ORIGINAL >= BOUNDS["bulk"] and max(lookup, miss) <= BOUNDS["lookup"]


async def timed(call: Callable[[str], Awaitable[object]], values: list[str]) -> float:
    started = time.perf_counter()
    for value in values:
        await call(value)
    return (time.perf_counter() - started) / len(values)


def main() -> None:
    with running_server(f"bench-mappings-{os.getpid()}", durable=True) as postgres, postgres.database() as url:
        migrate.upgrade(url, Path.cwd())
        if not asyncio.run(measure(url)):
            sys.exit("A bound is not kept")


if __name__ == "__main__":
    main()
