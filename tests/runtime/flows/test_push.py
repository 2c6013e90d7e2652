"""ctx.push: records to a service, and two systems that mirror each other."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Numeric, Uuid, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel, select

from khotan_cli.errors import DatabaseUnreachable
from khotan_cli.runtime import FlowContext, Plug, Resource, inflow, outflow, relay, step
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.runs import RunStore
from khotan_cli.runtime.transfer.push import PushResult
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.execution import execute
from tests.runtime.flows.conftest import ItemRow, Run, Shop, counts, rows_of
from tests.support.flows import Source, some_items
from tests.support.loopback import Answer, Asked, as_json, loopback


class ContactRow(SQLModel, table=True):
    __tablename__ = "contacts"  # pyright: ignore[reportAssignmentType]

    id: int = Field(primary_key=True)
    mail: str | None = Field(default=None, unique=True)


class EntryRow(SQLModel, table=True):
    __tablename__ = "entries"  # pyright: ignore[reportAssignmentType]

    day: date = Field(primary_key=True)
    amount: Decimal = Field(primary_key=True, sa_type=Numeric(10, 2))
    ref: uuid.UUID = Field(primary_key=True, sa_type=Uuid)


async def fill(host: Environment, count: int) -> None:
    async with host.database.writing() as session:
        for item in some_items(count):
            await session.execute(text("INSERT INTO items (id, name, price) VALUES (:id, :name, :price)"), item)


def payload(row: ItemRow) -> dict[str, Any]:
    return {"name": row.name, "price": row.price}


@pytest.mark.parametrize("resource", ["goods", None])
async def test_a_service_that_tells_no_id_is_not_told_twice(
    run: Run, host: Environment, shop: Shop, resource: str | None
) -> None:
    async with loopback(lambda asked: Answer(204)) as served:
        other = shop.with_options(base_url=served.url)

        @outflow(shop, resource=resource)
        async def out(ctx: FlowContext) -> None:
            await ctx.push(select(ItemRow), other.endpoint("take"), key="id", body=payload)

        await fill(host, 3)
        assert counts(await run(out)) == {"extracted": 3, "transformed": 3, "created": 3}
        assert counts(await run(out)) == {"extracted": 3, "skipped": 3}
    assert len(served.asked) == 3


async def test_what_was_sent_is_known_whatever_was_pushed_before_it(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        if ctx.body == "both":
            await ctx.push([{"id": 100, "name": "other"}], shop.create_item, key="id", name="others")
        await ctx.push(select(ItemRow), shop.create_item, key="id", body=payload)

    await fill(host, 3)
    await run(out)
    source.sent.clear()
    await run(out, body="both")
    assert [body for _, _, body in source.sent] == [{"id": 100, "name": "other"}]


async def test_a_cancelled_push_makes_no_further_call(run: Run, host: Environment, shop: Shop) -> None:
    running: list[str] = []

    async def service(asked: Asked) -> Answer:
        if len(served.asked) == 3:
            await host.runs.cancel(running[0])
        return as_json({"id": asked.json()["name"]})

    async with loopback(service) as served:
        other = shop.with_options(base_url=served.url)

        @outflow(shop)
        async def out(ctx: FlowContext) -> None:
            running.append(ctx.run_id)
            await ctx.push(select(ItemRow), other.create_item, key="id", body=payload, concurrency=1)

        await fill(host, 20)
        row = await run(out)
    assert (row.status, row.created, len(served.asked)) == ("cancelled", 3, 3)


@pytest.mark.parametrize("resource", ["goods", None])
async def test_a_second_run_updates_and_leaves_out_what_is_there(
    run: Run, host: Environment, shop: Shop, source: Source, resource: str | None
) -> None:
    @outflow(shop, resource=resource)
    async def out(ctx: FlowContext) -> None:
        await ctx.push(select(ItemRow), shop.create_item, update=shop.update_item, key="id", body=payload, page=7)

    await fill(host, 20)
    row = await run(out)
    assert (row.status, counts(row)) == ("completed", {"extracted": 20, "transformed": 20, "created": 20})
    assert sorted(sent[2]["name"] for sent in source.sent) == sorted(f"item {n}" for n in range(20))
    source.sent.clear()
    assert counts(await run(out)) == {"extracted": 20, "skipped": 20}
    assert source.sent == []
    async with host.database.writing() as session:
        await session.execute(text("UPDATE items SET price = 99 WHERE id = 4"))
    assert counts(await run(out)) == {"extracted": 20, "transformed": 1, "updated": 1, "skipped": 19}
    ((method, path, body),) = source.sent
    assert method == "PUT" and path.startswith("/sent/ref-") and body == {"name": "item 4", "price": 99}
    if resource:
        found = await host.mappings.by_keys("goods", ["item 4"])
        assert found["item 4"].refs["shop"] == path.rpartition("/")[2]


async def test_a_refused_record_is_counted_and_kept(run: Run, host: Environment, shop: Shop, source: Source) -> None:
    await fill(host, 5)

    async def picky(asked: Asked) -> Answer:
        if asked.json()["name"] == "item 3":
            return as_json({"error": "no"}, 422)
        return as_json({"id": f"r{asked.json()['name']}"})

    async with loopback(picky) as served:
        other = shop.with_options(base_url=served.url)

        @outflow(shop)
        async def out(ctx: FlowContext) -> None:
            await ctx.push(select(ItemRow), other.create_item, key="id", body=payload)

        row = await run(out)
        assert (row.status, row.created, row.failed) == ("partial", 4, 1)
        rejects, _ = await host.runs.rejects(row.id)
        assert rejects[0].record == {"name": "item 3", "price": 0.75} and rejects[0].reason.startswith(
            "422: record 3: "
        )
        assert rejects[0].reason.endswith(": no")
        again = await run(out)
        assert (again.status, again.created, again.skipped, again.failed) == ("partial", 0, 4, 1)


async def test_a_service_that_is_gone_ends_the_run(run: Run, host: Environment, shop: Shop) -> None:
    await fill(host, 5)
    gone = shop.with_options(base_url="http://127.0.0.1:9")

    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        await ctx.push(select(ItemRow), gone.create_item, key="id", body=payload)

    row = await run(out)
    assert (row.status, row.error["error"], row.failed) == ("failed", "plug_unreachable", 0)


async def test_what_was_sent_before_a_crash_is_not_sent_again(
    host: Environment, shop: Shop, declare: Callable[[Flow], Flow]
) -> None:
    await fill(host, 30)
    bodies: list[str] = []
    results: list[PushResult] = []
    stuck, crashed = [True], asyncio.Event()

    async def service(asked: Asked) -> Answer:
        if len(bodies) == 12 and stuck[0]:
            crashed.set()
            await asyncio.sleep(30)
        bodies.append(asked.json()["name"])
        if asked.json()["name"] == "item 5":
            return as_json({"error": "no"}, 422)
        return as_json({"id": f"ref-{asked.json()['name']}"})

    async with loopback(service) as served:
        other = shop.with_options(base_url=served.url)

        @outflow(shop)
        async def out(ctx: FlowContext) -> None:
            results.append(await ctx.push(select(ItemRow), other.create_item, key="id", body=payload, concurrency=1))

        declare(out)
        run_id = await Dispatcher(host).trigger("out")
        first = asyncio.create_task(execute(host, run_id))
        await crashed.wait()
        first.cancel()  # as when the process ends there: nothing more is written
        await asyncio.gather(first, return_exceptions=True)
        stuck[0] = False
        await execute(host, run_id)
    row = await host.runs.get(run_id)
    assert row is not None
    assert sorted(bodies) == sorted(f"item {n}" for n in range(30)), "sent once each"
    assert (row.status, row.epoch) == ("partial", 2)
    assert counts(row) == {"extracted": 30, "transformed": 30, "created": 29, "failed": 1}
    assert results == [PushResult(extracted=30, created=29, failed=1, pages=1)]
    assert (await host.runs.rejects(run_id))[1] == 1


async def test_a_retry_from_a_step_keeps_what_became_of_the_records_before(
    host: Environment, shop: Shop, source: Source, run: Run
) -> None:
    async def picky(asked: Asked) -> Answer:
        return (
            as_json({"error": "no"}, 422) if asked.json()["name"] == "item 1" else as_json({"id": asked.json()["name"]})
        )

    @step()
    async def fails_once(ctx: FlowContext) -> None:
        if ctx.source == "manual" and not retried:
            raise ValueError("not yet")

    retried: list[str] = []
    async with loopback(picky) as served:
        other = shop.with_options(base_url=served.url)

        @outflow(shop)
        async def out(ctx: FlowContext) -> None:
            done = await ctx.push(select(ItemRow), other.create_item, key="id", body=payload, page=3)
            assert done == PushResult(extracted=5, created=4, failed=1, pages=2)
            await fails_once(ctx)

        await fill(host, 5)
        failed = await run(out)
        assert (failed.status, failed.error["message"]) == ("failed", "ValueError: not yet")
        retried.append(await Dispatcher(host).retry(failed.id, "3"))
        assert await execute(host, retried[0]) == "partial"
    row = await host.runs.get(retried[0])
    assert row is not None
    assert counts(row) == {"extracted": 5, "transformed": 5, "created": 4, "failed": 1}
    rejects, total = await host.runs.rejects(retried[0])
    assert total == 1 and rejects[0].record["name"] == "item 1"
    assert len(served.asked) == 5


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_what_is_of_no_record_ends_the_run(run: Run, host: Environment, shop: Shop, status: int) -> None:
    await fill(host, 5)
    async with loopback(lambda asked: as_json({"error": "not now"}, status)) as served:
        other = shop.with_options(base_url=served.url)

        @outflow(shop)
        async def out(ctx: FlowContext) -> None:
            await ctx.push(select(ItemRow), other.create_item, key="id", body=payload, concurrency=1)

        row = await run(out)
    assert (row.status, row.failed, len(served.asked)) == ("failed", 0, 1)


async def test_an_outcome_whose_commit_was_not_heard_is_counted_once(
    run: Run, host: Environment, shop: Shop, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the commit of what was sent; the counters do not take it twice."""
    writing, broken = Database.writing, [False]

    @asynccontextmanager
    async def breaks(self: Database, **options: Any) -> AsyncIterator[AsyncSession]:
        async with writing(self, **options) as session:
            yield session
            sent = await session.execute(text("SELECT count(*) FROM khotan_seen_keys WHERE key LIKE 'created%'"))
            breaks_now = not broken[0] and sent.scalar() == 1
        if breaks_now:
            broken[0] = True
            raise DatabaseUnreachable("the connection is gone")

    monkeypatch.setattr(Database, "writing", breaks)

    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        await ctx.push(select(ItemRow), shop.create_item, key="id", body=payload, concurrency=1)

    await fill(host, 3)
    row = await run(out)
    assert broken[0]
    assert counts(row) == {"extracted": 3, "transformed": 3, "created": 3}


async def test_batches_with_an_outcome_for_each(run: Run, host: Environment, shop: Shop) -> None:
    await fill(host, 10)
    sizes: list[int] = []

    async def service(asked: Asked) -> Answer:
        records = asked.json()["records"]
        sizes.append(len(records))
        return as_json({"records": [{"id": f"id-{r['name']}", "ok": r["name"] != "item 7"} for r in records]})

    async with loopback(service) as served:
        other = shop.with_options(base_url=served.url)

        @outflow(shop, resource="goods")
        async def out(ctx: FlowContext) -> None:
            await ctx.push(
                select(ItemRow),
                other.create_many,
                key="id",
                body=payload,
                batch=4,
                batch_key="records",
                outcomes=lambda answer, records: [None if one["ok"] else "refused" for one in answer["records"]],
            )

        row = await run(out)
    assert sorted(sizes) == [2, 4, 4]
    assert (row.status, row.created, row.failed) == ("partial", 9, 1)
    assert (await host.mappings.by_keys("goods", ["item 2"]))["item 2"].refs == {"shop": "id-item 2"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": "nope"}, "no column 'nope'"),
        ({"key": ()}, "needs a key"),
        ({"key": "id", "batch": 0}, "1 or more"),
        ({"key": "id", "batch": 2, "ids": dict}, "works for single records"),
        ({"key": "id", "batch_key": "x"}, "batch above 1"),
        ({"key": "id", "source": select(ItemRow).limit(3)}, "with a limit"),
        ({"key": "id", "source": select(ItemRow, ContactRow)}, "combines a whole table"),
    ],
)
async def test_parts_that_do_not_fit(
    run: Run, host: Environment, shop: Shop, options: dict[str, Any], words: str
) -> None:
    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        await ctx.push(**{"source": select(ItemRow), "endpoint": shop.create_item, **options})

    row = await run(out)
    assert row.status == "failed" and words in row.error["message"], row.error


async def test_a_relay_from_a_list_and_from_an_endpoint(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @relay(shop, to=shop)
    async def pass_on(ctx: FlowContext) -> None:
        done = await ctx.push(
            shop.list_items, ctx.to.endpoint("create_item"), key="id", body=lambda r: {"name": r.name}
        )
        assert (done.pages, done.created) == (3, 25)
        await ctx.push([{"k": n} for n in range(5)], shop.create_item, key="k", page=2)

    source.items = some_items(25)
    row = await run(pass_on)
    assert (row.status, row.created) == ("completed", 30), row.error
    assert {"k": 4} in [body for _, _, body in source.sent]


async def test_rows_without_a_key_are_told_wherever_the_database_sorts_them(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        await ctx.ensure_table(ContactRow)
        async with ctx.session() as session:
            for n in range(11):
                session.add(ContactRow(id=n, mail=None if n < 7 else f"m{n}"))
        await ctx.push(select(ContactRow), shop.create_item, key="mail", page=3, body=lambda row: {"mail": row.mail})

    row = await run(out)
    assert (row.status, counts(row)) == (
        "partial",
        {"extracted": 11, "transformed": 4, "created": 4, "failed": 7},
    )
    assert sorted(body["mail"] for _, _, body in source.sent) == ["m10", "m7", "m8", "m9"]
    rejects, total = await host.runs.rejects(row.id)
    assert total == 7 and {reject.record["id"] for reject in rejects} == set(range(7))


async def test_pages_follow_a_key_of_several_columns_that_json_writes_as_texts(
    run: Run, host: Environment, shop: Shop, source: Source
) -> None:
    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        await ctx.ensure_table(EntryRow)
        async with ctx.session() as session:
            for n in range(9):
                day, amount = date(2026, 1, 1 + n // 4), Decimal(n // 2) / 4
                session.add(EntryRow(day=day, amount=amount, ref=uuid.UUID(int=n)))
        await ctx.push(
            select(EntryRow),
            shop.create_item,
            key=("day", "amount", "ref"),
            page=2,
            concurrency=1,
            body=lambda row: {"n": row.ref.int},
        )

    row = await run(out)
    assert (row.status, counts(row)) == ("completed", {"extracted": 9, "transformed": 9, "created": 9}), row.error
    assert [body["n"] for _, _, body in source.sent] == list(range(9))


class Mirror:
    """A system that holds records and lists them; every write to it is counted, and moves its `updated` on."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.writes = 0

    def put(self, record: dict[str, Any], ref: str = "") -> dict[str, Any]:
        self.writes += 1
        ref = ref or f"r{len(self.records) + 1}"
        self.records[ref] = {**self.records.get(ref, {}), **record, "id": ref, "updated": self.writes}
        return self.records[ref]

    async def __call__(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            return as_json({"data": list(self.records.values())})
        ref = asked.path.removeprefix("/records").strip("/")
        return as_json(self.put(asked.json(), ref))


async def test_two_systems_that_mirror_each_other_settle(host: Environment, run: Run) -> None:
    from khotan_cli.runtime import FunctionPaginator, get, post, put

    class System(Plug):
        base_url = "http://x.invalid"
        paginator = FunctionPaginator(lambda page: None, items="data")
        read = get("/records")
        create = post("/records", body=dict, returns=dict)
        change = put("/records/{ref}", body=dict, returns=dict)

    left, right = Mirror(), Mirror()
    async with loopback(left) as a, loopback(right) as b:
        one = System(name="left").with_options(base_url=a.url)
        two = System(name="right").with_options(base_url=b.url)
        for plug in (one, two):
            plug.bind(host.vars)
        host.plugs.update({"left": one, "right": two})  # type: ignore[attr-defined]
        host.resources["people"] = Resource("people", connect_field="mail", plugs={"left": "id", "right": "id"})  # type: ignore[index]

        def body(record: dict[str, Any]) -> dict[str, Any]:
            return {"mail": record["mail"], "name": record["name"]}

        @relay(one, to=two, resource="people")
        async def there(ctx: FlowContext) -> None:
            await ctx.push(one.read, two.create, update=two.change, key="mail", body=body)

        @relay(two, to=one, resource="people")
        async def back(ctx: FlowContext) -> None:
            await ctx.push(two.read, one.create, update=one.change, key="mail", body=body)

        async def rounds(count: int) -> tuple[int, int]:
            for _ in range(count):
                assert (await run(there)).status == "completed"
                assert (await run(back)).status == "completed"
            return left.writes, right.writes

        for number in range(5):
            left.put({"mail": f"{number}@x", "name": f"n{number}"})
        right.put({"mail": "r@x", "name": "from right"})
        settled = await rounds(2)
        assert settled == (5 + 1, 1 + 5), "each record was written once to the other system"
        assert await rounds(4) == settled
        left.put({"name": "changed on the left"}, "r2")
        right.put({"name": "changed on the right"}, "r1")
        settled = await rounds(2)
        assert await rounds(3) == settled, "the number of writes goes on growing"
        names = sorted(record["name"] for record in left.records.values())
        assert names == sorted(record["name"] for record in right.records.values())
        assert "changed on the left" in names and "changed on the right" in names
        await one.aclose()
        await two.aclose()


async def test_an_inflow_and_an_outflow_settle(host: Environment, run: Run, shop: Shop) -> None:
    mirror = Mirror()

    async def service(asked: Asked) -> Answer:
        if asked.method == "GET":
            data = [{"id": int(r["id"]), "name": r["name"], "price": r["price"]} for r in mirror.records.values()]
            return as_json({"data": data, "total": len(data)})
        ref = asked.path.removeprefix("/sent").strip("/")
        return as_json(mirror.put(asked.json(), ref or str(len(mirror.records) + 1)))

    async with loopback(service) as served:
        here = shop.with_options(base_url=served.url)

        @inflow(shop, resource="goods")
        async def bring(ctx: FlowContext) -> None:
            await ctx.sync(here.list_items, into=ItemRow, key="id")

        @outflow(shop, resource="goods")
        async def send(ctx: FlowContext) -> None:
            await ctx.push(select(ItemRow), here.create_item, update=here.update_item, key="id", body=payload)

        mirror.put({"name": "theirs", "price": 1.0}, "1")
        await run(bring)
        row = await run(send)
        assert (row.skipped, mirror.writes) == (1, 1), "what came from there is not sent back"
        async with host.database.writing() as session:
            await session.execute(text("UPDATE items SET price = 5 WHERE id = 1"))
        await run(send)
        brought = await run(bring)
        assert (brought.updated, brought.skipped, mirror.writes) == (0, 1, 2), "our own write is recognised"
        for _ in range(3):
            await run(send)
            await run(bring)
        assert mirror.writes == 2
        assert await rows_of(host) == [(1, "theirs", 5.0)]


async def test_a_service_that_writes_values_down_differently_settles_too(
    host: Environment, run: Run, shop: Shop
) -> None:
    mirror = Mirror()

    async def service(asked: Asked) -> Answer:
        if asked.method == "GET":
            data = [{**r, "id": int(r["id"]), "price": f"{r['price']:.2f}"} for r in mirror.records.values()]
            return as_json({"data": data, "total": len(data)})
        ref = asked.path.removeprefix("/sent").strip("/")
        return as_json(mirror.put(asked.json(), ref or str(len(mirror.records) + 1)))

    async with loopback(service) as served:
        here = shop.with_options(base_url=served.url)

        @inflow(shop, resource="goods")
        async def bring(ctx: FlowContext) -> None:
            def row(item: Any) -> dict[str, Any]:
                return {"id": item["id"], "name": item["name"], "price": float(item["price"])}

            await ctx.sync(here.list_loose, into=ItemRow, key="id", transform=row)

        @outflow(shop, resource="goods")
        async def send(ctx: FlowContext) -> None:
            await ctx.push(select(ItemRow), here.create_item, update=here.update_item, key="id", body=payload)

        mirror.put({"name": "theirs", "price": 1.0}, "1")
        writes: list[int] = []
        for _ in range(3):
            await run(bring)
            await run(send)
            writes.append(mirror.writes)
        assert writes == [2, 2, 2], "once, as 1.0 is not what was read; then it is known as what it comes back"
        async with host.database.writing() as session:
            await session.execute(text("UPDATE items SET price = 5 WHERE id = 1"))
        for _ in range(3):
            await run(send)
            await run(bring)
        assert mirror.writes == 3
        mirror.put({"price": 7.0}, "1")  # by somebody else
        await run(bring)
        await run(send)
        await run(send)
        assert await rows_of(host) == [(1, "theirs", 7.0)]
        async with host.database.writing() as session:
            await session.execute(text("UPDATE items SET price = 5 WHERE id = 1"))
        before = mirror.writes
        await run(send)
        assert mirror.writes == before + 1, "what was there once is not taken for what is there now"


async def test_a_lost_run_writes_nothing_more(host: Environment, shop: Shop, source: Source, run: Run) -> None:
    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        assert (await RunStore(host.database).begin(ctx.run_id)) is not None  # another process takes the run
        await ctx.push(select(ItemRow), shop.create_item, key="id", body=payload)

    await fill(host, 3)
    row = await run(out)
    assert (row.status, row.created, row.epoch) == ("running", 0, 2)
    assert source.sent == []
