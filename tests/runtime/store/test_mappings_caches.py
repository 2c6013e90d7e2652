"""Keys, mappings and caches in both databases."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khotan_cli.errors import ConfigError, MappingConflict, UnknownName, UsageError
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.resources.caches import Cache, CacheHandle
from khotan_cli.runtime.resources.mappings import Mappings, Resource
from khotan_cli.runtime.store.caches import CacheStore
from khotan_cli.runtime.store.canonical_key import decode_key, encode_key
from khotan_cli.runtime.store.field_state import merge_state
from khotan_cli.runtime.store.mappings import MappingStore
from khotan_cli.runtime.transfer.field_digests import digest, field_digests, holds

_part = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5) | st.text("\x00\x01\x02a", min_size=1)
_key = st.lists(_part, min_size=1, max_size=3)


@given(_key, _key)
def test_keys_are_unambiguous_and_keep_their_order(left: list[str], right: list[str]) -> None:
    assert decode_key(encode_key(left)) == tuple(left)
    assert (encode_key(left) == encode_key(right)) == (left == right)
    assert (encode_key(left) < encode_key(right)) == (left < right)


@pytest.mark.parametrize("key", ["", [], ["a", ""], [None], [True], [1.5], [["a"]], "\ud800"])
def test_what_is_no_key(key: Any) -> None:
    with pytest.raises(UsageError):
        encode_key(key)


def test_digests_know_equal_values() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) and digest(1) == digest(1.0) != digest("1")
    assert digest({"a": [1.0, {"b": 2.0}]}) == digest({"a": [1, {"b": 2}]}), "deep inside, too"
    assert digest(1e300) == digest(int(1e300)) != digest(1e299) and digest(True) != digest(1)
    known = field_digests({"a": 1, "b": "x", "more": True})
    assert holds(known, field_digests({"a": 1, "b": "x"}))
    assert not holds(known, field_digests({"a": 2})) and not holds(None, {"a": "x"}) and not holds(known, {})


def test_what_was_written_is_known_by_what_it_comes_back_as() -> None:
    held = merge_state(None, {"price": "w"}, written=True)
    assert holds(held, {"price": "w"}) and not holds(held, {"price": "r"})
    assert merge_state(held, {"price": "w"}, written=False) == {"price": "w"}
    held = merge_state(held, {"price": "r", "name": "n"}, written=False)
    assert holds(held, {"price": "w"}) and holds(held, {"price": "r", "name": "n"})
    assert merge_state(held, {"price": "r"}, written=False) == held == merge_state(held, {"price": "w"}, written=True)
    changed = merge_state(held, {"price": "x"}, written=False)
    assert holds(changed, {"price": "x"}) and not holds(changed, {"price": "w"}) and not holds(changed, {"price": "r"})


@pytest.fixture
def goods(database: Database) -> Mappings:
    return Mappings(Resource("goods", connect_field="sku", plugs={"shop": "id", "erp": "nr"}), MappingStore(database))


async def test_refs_merge_or_replace(goods: Mappings) -> None:
    made = await goods.upsert("SKU-1", shop="gid://1")
    assert made is not None and made.refs == {"shop": "gid://1"}
    merged = await goods.upsert("SKU-1", erp=7)
    assert merged is not None and merged.refs == {"shop": "gid://1", "erp": "7"} and merged.id == made.id
    moved = await goods.upsert("SKU-1", shop="gid://2")
    assert moved is not None and moved.refs["shop"] == "gid://2"
    assert await goods.lookup_ref("shop", "gid://1") is None
    only = await goods.upsert("SKU-1", replace=True, erp="8")
    assert only is not None and only.refs == {"erp": "8"}
    assert await goods.delete("SKU-1") and not await goods.delete("SKU-1")
    assert await goods.lookup_ref("erp", "8") is None


async def test_many_at_once_and_counts(goods: Mappings) -> None:
    items = [(f"S{n:05}", {"shop": str(n), "erp": f"e{n}"}) for n in range(2500)]
    assert await goods.upsert_many(items) == (2500, 0, 0)
    before = await goods.lookup("S00007")
    assert await goods.upsert_many(items) == (0, 0, 2500)
    assert await goods.lookup("S00007") == before
    assert await goods.upsert_many([("S00007", {"shop": "new"}), ("X", {"erp": "x"})]) == (1, 1, 0)
    found = await goods.lookup_refs("erp", ["e1", "e2499", "nope"])
    assert {ref: entry.key for ref, entry in found.items()} == {"e1": ("S00001",), "e2499": ("S02499",)}
    assert set(await goods.lookup_many(["S00001", "none", "X"])) == {("S00001",), ("X",)}


async def test_an_id_belongs_to_one_mapping(goods: Mappings) -> None:
    await goods.upsert("A", shop="1")
    for items in ([("B", {"shop": "1"})], [("B", {"shop": "2"}), ("C", {"shop": "2"})]):
        with pytest.raises(MappingConflict) as caught:
            await goods.upsert_many([*items, ("D", {"shop": "9"})])
        assert "shop" in caught.value.message and caught.value.http_status == 409 and caught.value.hint
    assert [entry.key for entry in (await goods.search())[0]] == [("A",)], "nothing was written"
    # Two mappings may exchange an id in one call's order only where it is free: the old one is given up first.
    await goods.upsert("A", shop="2")
    assert (await goods.upsert("B", shop="1")) is not None


async def test_two_that_claim_an_id_at_once(goods: Mappings) -> None:
    results = await asyncio.gather(*(goods.upsert(f"K{n}", shop="same") for n in range(5)), return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, MappingConflict) for result in results if isinstance(result, BaseException))


async def test_the_same_key_at_once_is_one_mapping(goods: Mappings) -> None:
    await asyncio.gather(goods.upsert("K", shop="1"), goods.upsert("K", erp="2"), return_exceptions=True)
    await goods.upsert_many([("K", {"shop": "1", "erp": "2"})])
    found, total = await goods.search()
    assert total == 1 and found[0].refs == {"shop": "1", "erp": "2"}


async def test_search_pages_in_the_order_of_keys(database: Database) -> None:
    resource = Resource("rows", connect_field=("tenant", "sku"), plugs={"shop": "id"})
    rows = Mappings(resource, MappingStore(database))
    keys = [("b", "1"), ("a", "10"), ("a", "9"), ("a%", "x_y"), ("A", "z")]
    await rows.upsert_many([(key, {"shop": f"id-{index}"}) for index, key in enumerate(keys)])
    assert [entry.key for entry in (await rows.search())[0]] == sorted(keys)
    page, total = await rows.search(limit=2, offset=1)
    assert ([entry.key for entry in page], total) == (sorted(keys)[1:3], 5)
    assert [entry.key for entry in (await rows.search("%"))[0]] == [("a%", "x_y")]
    assert [entry.key for entry in (await rows.search("ID-2"))[0]] == [("a", "9")]
    assert (await rows.search("nothing")) == ([], 0)
    with pytest.raises(UsageError, match="2 parts"):
        await rows.lookup("a")


async def test_names_that_are_not_declared(goods: Mappings) -> None:
    with pytest.raises(UnknownName, match="shp"):
        await goods.upsert("A", shp="1")
    with pytest.raises(UnknownName):
        await goods.lookup_ref("shp", "1")
    with pytest.raises(UsageError, match="must be a non-empty str"):
        await goods.upsert("A", shop="")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resource("", connect_field="a", plugs={"x": "id"}),
        lambda: Resource("a", connect_field=(), plugs={"x": "id"}),
        lambda: Resource("a", connect_field=("b", "b"), plugs={"x": "id"}),
        lambda: Resource("a", connect_field="b", plugs={}),
        lambda: Resource("a", connect_field="b", plugs={"x": ""}),
        lambda: Cache("_mine"),
        lambda: Cache("a b"),
        lambda: Cache("a", ttl="soon"),
        lambda: Cache("a", ttl=0),
        lambda: Cache("a", scope="world"),  # type: ignore[arg-type]
    ],
)
def test_declarations_that_cannot_hold(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    ("ttl", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1.5d", 129600), (7, 7), (None, None)]
)
def test_times_to_live(ttl: Any, seconds: float | None) -> None:
    assert Cache("a", ttl=ttl).ttl == seconds
    assert Cache("a").seconds(timedelta(minutes=1)) == 60


async def test_entries_expire_unseen_and_are_swept(database: Database) -> None:
    store = CacheStore(database)
    things = CacheHandle(Cache("things", ttl="1h"), store)
    other = CacheHandle(Cache("things"), store, "flow")
    await things.set_many({"a": {"n": [1, None]}, "b/c": None, "old": 1})
    await other.set("a", "theirs")
    await store.set_many("things", "", {"old": 1}, seconds=-1)
    assert await things.get("a") == {"n": [1, None]} and await things.get("b/c", "x") is None
    assert await things.get("old", "gone") == "gone" and await other.get("a") == "theirs"
    assert await things.keys() == ["a", "b/c"] and await things.keys("b") == ["b/c"]
    assert not await things.delete("old") and await things.delete("a") and await things.get("a") is None
    assert await store.counts() == {"things": 2}
    assert await store.sweep() == 1 and await store.sweep() == 0
    assert (await other.clear(), await things.clear()) == (1, 1)


async def test_what_a_cache_does_not_take(database: Database) -> None:
    things = CacheHandle(Cache("things"), CacheStore(database))
    for values in ({"ok": 1, "bad": object()}, {"": 1}):
        with pytest.raises(UsageError):
            await things.set_many(values)
    for ttl in ("later", "9999999999d", 1e300, 10**400, float("nan"), float("inf"), -1):
        with pytest.raises(UsageError, match="time to live"):
            await things.set("a", 1, ttl=ttl)
    assert await things.keys() == []
