"""Mappings on PostgreSQL, 100,000 of them: bulk upsert, and a lookup by a system's id beside one by primary key.

The peer of the bulk upsert is plain psycopg in the same run: the same rows into two tables of its own, with executemany and ON
CONFLICT, a thousand to a transaction. Bounds: in bulk at least 0.2 of that peer, and at least 5 times one by one; a lookup by the
id of a system takes at most 1.5 times as long as one by primary key, misses included.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._report import report
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.resources.mappings import Mappings, Resource
from khotan_cli.runtime.store import migrate
from khotan_cli.runtime.store.mappings import MappingStore
from tests.support.postgres import running_server

COUNT, PAGE, LOOKUPS, ROUNDS = 100_000, 1_000, 300, 5
BOUNDS = {"peer": 0.2, "single": 5.0, "lookup": 1.5}


async def measure(url: str, peer: float) -> int:
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
    return report(
        "mappings",
        {"bulkOfPeer": bulk / peer, "bulkToSingle": bulk / single, "lookupToGet": lookup, "missToGet": miss},
        at_least={"bulkOfPeer": BOUNDS["peer"], "bulkToSingle": BOUNDS["single"]},
        at_most={"lookupToGet": BOUNDS["lookup"], "missToGet": BOUNDS["lookup"]},
        mappingsPerSecond={"bulk": round(bulk), "single": round(single), "psycopg": round(peer)},
    )


def plain_psycopg(url: str) -> float:
    """Mappings per second of the peer: an entry and its two references each."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE peer_entry (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE)")
        connection.execute(
            "CREATE TABLE peer_ref (entry TEXT NOT NULL REFERENCES peer_entry, plug TEXT NOT NULL, ref TEXT NOT NULL, "
            "PRIMARY KEY (entry, plug), UNIQUE (plug, ref))"
        )
        connection.commit()
        started = time.perf_counter()
        for start in range(0, COUNT, PAGE):
            numbers = range(start, start + PAGE)
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO peer_entry VALUES (%s, %s) ON CONFLICT (name) DO NOTHING",
                    [(uuid.uuid5(uuid.NAMESPACE_OID, str(n)).hex, f"S{n}") for n in numbers],
                )
                cursor.executemany(
                    "INSERT INTO peer_ref SELECT id, %s, %s FROM peer_entry WHERE name = %s "
                    "ON CONFLICT (entry, plug) DO UPDATE SET ref = excluded.ref",
                    [(plug, ref, f"S{n}") for n in numbers for plug, ref in (("shop", str(n)), ("erp", f"e{n}"))],
                )
        return COUNT / (time.perf_counter() - started)


async def timed(call: Callable[[str], Awaitable[object]], values: list[str]) -> float:
    started = time.perf_counter()
    for value in values:
        await call(value)
    return (time.perf_counter() - started) / len(values)


def main() -> int:
    with running_server(f"bench-mappings-{os.getpid()}", durable=True) as postgres, postgres.database() as url:
        migrate.upgrade(url, Path.cwd())
        return asyncio.run(measure(url, plain_psycopg(url)))


if __name__ == "__main__":
    sys.exit(main())
