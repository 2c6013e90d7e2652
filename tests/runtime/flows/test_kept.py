"""What a flow keeps can be seen and reset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from khotan_cli.errors import KhotanError, UnknownName, UsageError
from khotan_cli.runtime import FlowContext, outflow
from khotan_cli.runtime.flows.kept_state import KeptState
from khotan_cli.runtime.resources.mappings import Resource
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.worker.dispatch import Dispatcher
from tests.runtime.flows.conftest import Run, Shop, rows_of
from tests.support.flows import Source, flows_project, some_items, trigger, wait_until_ended, worker
from tests.support.loopback import threaded_loopback

RECORDS: list[dict[str, Any]] = [{"id": number, "name": f"n{number}", "shelf": f"s{number}"} for number in (1, 2, 3)]


def declared(shop: Shop, key: Any = "id", **options: Any) -> Any:
    resource = options.pop("resource", None)

    @outflow(shop, resource=resource)
    async def out(ctx: FlowContext) -> None:
        await ctx.cursor("since").set("2026-01-01")
        await ctx.cursor("page").set(7)
        await ctx.push(
            RECORDS, shop.create_item, key=key, update=shop.update_item, name="records", concurrency=1, **options
        )

    return out


def facts(destinations: list[Any]) -> list[tuple[str, str, int, list[tuple[str, str]]]]:
    return [(d.name, d.kept_in, d.records, [(item.key, item.ref) for item in d.items]) for d in destinations]


async def test_cursors_and_records_are_seen(run: Run, host: Environment, shop: Shop) -> None:
    flow = declared(shop)
    await run(flow)
    kept = KeptState(host, flow)
    assert [(cursor.name, cursor.value) for cursor in await kept.cursors()] == [("page", 7), ("since", "2026-01-01")]
    name = "shop.create_item records"
    all_three = [("1", "ref-1"), ("2", "ref-2"), ("3", "ref-3")]
    assert facts(await kept.destinations(10, 0)) == [(name, "flow", 3, all_three)]
    assert facts(await kept.destinations(1, 1, name)) == [(name, "flow", 3, all_three[1:2])]
    with pytest.raises(UnknownName, match="destination 'elsewhere'"):
        await kept.destinations(10, 0, "elsewhere")


async def test_another_flow_of_a_similar_name_is_left_alone(
    run: Run, host: Environment, shop: Shop, declare: Any
) -> None:
    flow = declared(shop)
    await run(flow)
    await host.entries.set_many("_sent", "out_too/shop.create_item records", {"9": {"ref": "x", "fields": {}}})
    await host.entries.set_many("_cursor", "out_too", {"since": 1})
    removed = await KeptState(host, flow).reset(["all"])
    assert (removed.cursors, removed.records) == (2, 3)
    assert await rows_of(host, "SELECT owner FROM khotan_cache_entries ORDER BY cache") == [
        ("out_too",),
        ("out_too/shop.create_item records",),
    ]


@pytest.mark.parametrize(
    ("what", "removed", "cursors", "records", "sent_again"),
    [
        (["cursor:since"], (1, 0), ["page"], 3, []),
        (["cursor:since", "cursor:page"], (2, 0), [], 3, []),
        (["sent:shop.create_item records"], (0, 3), ["page", "since"], 0, ["POST"] * 3),
        (["sent:shop.create_item records:2"], (0, 1), ["page", "since"], 2, ["POST"]),
        (["all"], (2, 3), [], 0, ["POST"] * 3),
    ],
)
async def test_a_reset_changes_what_the_next_run_sends(
    run: Run,
    host: Environment,
    shop: Shop,
    source: Source,
    what: list[str],
    removed: tuple[int, int],
    cursors: list[str],
    records: int,
    sent_again: list[str],
) -> None:
    flow = declared(shop)
    await run(flow)
    kept = KeptState(host, flow)
    done = await kept.reset(what)
    assert (done.cursors, done.records) == removed
    assert [cursor.name for cursor in await kept.cursors()] == cursors
    assert sum(one.records for one in await kept.destinations(10, 0)) == records
    source.sent.clear()
    await run(flow)
    assert [method for method, _, _ in source.sent] == sent_again


@pytest.mark.parametrize("part", ["", ":s2/n2"])
async def test_mapped_records_keep_their_ids_and_are_updated(
    run: Run, host: Environment, shop: Shop, source: Source, part: str
) -> None:
    host.resources["shelved"] = Resource("shelved", connect_field=("shelf", "name"), plugs={"shop": "id"})  # type: ignore[index]
    flow = declared(shop, resource="shelved")
    await run(flow)
    kept = KeptState(host, flow)
    assert facts(await kept.destinations(2, 0)) == [
        ("shelved.shop", "mappings", 3, [("s1/n1", "ref-1"), ("s2/n2", "ref-2")])
    ]
    done = await kept.reset([f"sent:shelved.shop{part}"])
    assert done.records == (1 if part else 3)
    source.sent.clear()
    await run(flow)
    paths = [(method, path) for method, path, _ in source.sent]
    assert paths == [("PUT", f"/sent/ref-{number}") for number in ([2] if part else [1, 2, 3])]


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("cursor:sinse", UnknownName, "Unknown cursor 'sinse' of flow 'out'"),
        ("sent:elsewhere", UnknownName, "Unknown destination 'elsewhere' of flow 'out'"),
        ("sent:shop.create_item records:99", UsageError, "has no record '99'"),
        ("cursors", UsageError, "state 'cursors'"),
        ("cursor:", UsageError, "state 'cursor:'"),
    ],
)
async def test_what_is_not_there_resets_nothing(
    run: Run, host: Environment, shop: Shop, what: str, kind: type[KhotanError], words: str
) -> None:
    flow = declared(shop)
    await run(flow)
    kept = KeptState(host, flow)
    with pytest.raises(kind, match=words):
        await kept.reset(["cursor:since", what])
    assert len(await kept.cursors()) == 2


async def test_an_active_run_is_in_the_way(run: Run, host: Environment, shop: Shop) -> None:
    flow = declared(shop)
    await run(flow)
    active = await Dispatcher(host).trigger("out")
    with pytest.raises(KhotanError, match=f"{active} is pending") as raised:
        await KeptState(host, flow).reset(["all"])
    assert raised.value.code == "flow_active"
    assert len(await KeptState(host, flow).cursors()) == 2


FLOW = """
@outflow(shop)
async def sending(ctx: FlowContext) -> None:
    await ctx.cursor("since").set(3)
    await ctx.push([{"id": 1}, {"id": 2}], shop.create_item, key="id", update=shop.update_item, name="two")
"""


@pytest.mark.timeout(120)
def test_from_a_shell(database_url: str, tmp_path: Path) -> None:
    with threaded_loopback(Source(some_items(1))) as served:
        project = flows_project(tmp_path, served.url, database_url, flows=FLOW)
        assert "has no cursors" in project.khotan("flows", "state", "sending", json_mode=False).stdout
        with worker(project) as running:
            wait_until_ended(database_url, trigger(project, "sending"))
            running.stop()
    document = project.khotan("flows", "state", "sending").json
    assert [(one["name"], one["value"]) for one in document["cursors"]] == [("since", 3)]
    (sent,) = document["destinations"]
    assert (sent["name"], sent["keptIn"], sent["records"]) == ("shop.create_item two", "flow", 2)
    assert [item["key"] for item in sent["items"]] == ["1", "2"]
    text = project.khotan("flows", "state", "sending", "--limit", "1", json_mode=False).stdout
    assert "since" in text and "2 records sent" in text and "1 more are not shown: --offset 1" in text
    listed = project.khotan("caches", "list")
    assert (listed.json["items"], listed.json["cursors"], listed.json["sent"]) == ([], 1, 2)
    assert listed.json["next"] == ["khotan flows state sending"]
    words = project.khotan("caches", "list", json_mode=False).stdout
    assert "1 cursor and 2 sent records" in words and "khotan flows state sending" in words
    refused = project.khotan("flows", "state", "sending", "--reset", "all")
    assert refused.json["error"] == "no_terminal"
    waiting = trigger(project, "sending")
    active = project.khotan("flows", "state", "sending", "--reset", "all", "--yes")
    assert (active.json["error"], active.json["next"]) == ("flow_active", [f"khotan flows cancel {waiting}"])
    project.khotan("flows", "cancel", waiting)
    done = project.khotan(
        "flows", "state", "sending", "--reset", "cursor:since", "--reset", "sent:shop.create_item two:1", "--yes"
    )
    assert (done.json["cursors"], done.json["records"]) == (1, 1)
    assert project.khotan("flows", "state", "sending").json["destinations"][0]["records"] == 1
