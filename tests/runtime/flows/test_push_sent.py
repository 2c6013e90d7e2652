"""What was sent is sent: answers that are odd, ids that are missing, records that vanish, changes made at the service."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlmodel import select

from khotan_cli.runtime import FlowContext, Plug, Resource, delete, get, outflow, post, put, step
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.worker.dry_run import dry_run
from tests.runtime.flows.conftest import ItemRow, Run, Shop, counts, rows_of
from tests.support.flows import some_items
from tests.support.loopback import Answer, Asked, Loopback, as_json, loopback


class Created(BaseModel):
    id: str
    state: str


class Remote(Plug):
    base_url = "http://x.invalid"

    create = post("/things", body=dict, returns=dict)
    typed = post("/things", body=dict, returns=Created)
    update = put("/things/{thing}", body=dict, returns=dict)
    remove = delete("/things/{thing}")
    many = post("/things/many", body=dict, returns=dict)
    read = get("/things", returns=dict)


class Service:
    """Keeps things by id, with an ETag each. `reply` changes what it answers to a creation."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, int] = {}
        self.reply: Any = lambda ref, body: as_json({"id": ref, **body}, 201)
        self.asked: list[Asked] = []

    def __call__(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        ref = asked.path.rpartition("/")[2]
        if asked.method == "POST":
            ref = f"r{len(self.things) + 1}"
            self.things[ref], self.versions[ref] = asked.json(), 1
            answer: Answer = self.reply(ref, asked.json())
        elif ref not in self.things:
            return as_json({"message": "no such thing"}, 404)
        elif asked.method == "DELETE":
            del self.things[ref]
            return Answer(204)
        else:
            if asked.headers.get("if-match", self.tag(ref)) != self.tag(ref):
                return as_json({"details": {"existing": self.things[ref]}}, 412)
            self.things[ref], self.versions[ref] = asked.json(), self.versions[ref] + 1
            answer = as_json({"id": ref})
        answer.headers["ETag"] = self.tag(ref)
        return answer

    def tag(self, ref: str) -> str:
        return f'"{ref}-{self.versions[ref]}"'

    def calls(self) -> list[tuple[str, str]]:
        found = [(asked.method, asked.path) for asked in self.asked]
        self.asked.clear()
        return found


@pytest.fixture
async def service_loop(host: Environment) -> Any:
    async with loopback(Service()) as served:
        remote = Remote().with_options(base_url=served.url)
        host.plugs["remote"] = remote  # type: ignore[index]
        host.resources["things"] = Resource("things", connect_field="id", plugs={"remote": "objectId"})  # type: ignore[index]
        yield served, remote
        await remote.aclose()


def parts(service_loop: tuple[Loopback, Remote]) -> tuple[Service, Remote]:
    served, remote = service_loop
    assert isinstance(served.handler, Service)
    return served.handler, remote


async def fill(host: Environment, *numbers: int) -> None:
    async with host.database.writing() as session:
        for number in numbers:
            item = some_items(number + 1)[number]
            await session.execute(text("INSERT INTO items (id, name, price) VALUES (:id, :name, :price)"), item)


async def sql(host: Environment, statement: str) -> None:
    async with host.database.writing() as session:
        await session.execute(text(statement))


def body_of(row: ItemRow) -> dict[str, Any]:
    return {"name": row.name, "price": row.price}


def pushing(shop: Shop, endpoint: Any, **options: Any) -> Any:
    resource = options.pop("resource", None)

    @outflow(shop, resource=resource)
    async def out(ctx: FlowContext) -> None:
        await ctx.push(select(ItemRow), endpoint, key="id", body=body_of, **options)

    return out


ODD = {
    "not the model": lambda ref, body: as_json({"id": ref, "status": "new"}, 201),
    "null where text is declared": lambda ref, body: as_json({"id": ref, "state": None}, 201),
    "HTML": lambda ref, body: Answer(201, b"<p>thanks</p>", {"Content-Type": "text/html"}),
    "broken JSON": lambda ref, body: Answer(200, b'{"id": "', {"Content-Type": "application/json"}),
    "cut short": lambda ref, body: Answer(raw=b"HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{"),
    "too large": lambda ref, body: Answer(201, b" " * 40_000_000, {"Content-Type": "application/json"}),
    "not gzip": lambda ref, body: Answer(201, b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
    "nothing": lambda ref, body: Answer(201, b"", {"Content-Type": "application/json"}),
}


@pytest.mark.parametrize("reply", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("on_error", ["skip", "fail"])
async def test_a_success_is_sent_whatever_its_body_is(
    run: Run, host: Environment, shop: Shop, service_loop: Any, reply: Any, on_error: Any
) -> None:
    service, remote = parts(service_loop)
    service.reply = reply
    await fill(host, 1, 2, 3)
    out = pushing(shop, remote.typed, on_error=on_error)
    row = await run(out)
    assert (row.status, counts(row)) == ("completed", {"extracted": 3, "transformed": 3, "created": 3})
    said = [line.message for line in await host.runs.updates(row.id)]
    assert len(said) == 1 and "does not match its declaration" in said[0]
    assert counts(await run(out)) == {"extracted": 3, "skipped": 3} and len(service.things) == 3


async def test_the_id_of_an_answer_that_is_not_as_declared_is_kept(
    run: Run, host: Environment, shop: Shop, service_loop: Any
) -> None:
    service, remote = parts(service_loop)
    service.reply = ODD["not the model"]
    await fill(host, 1)
    out = pushing(shop, remote.typed, update=remote.update)
    assert (await run(out)).created == 1
    await sql(host, "UPDATE items SET name = 'changed'")
    assert counts(await run(out)) == {"extracted": 1, "transformed": 1, "updated": 1}
    assert service.things == {"r1": {"name": "changed", "price": 0.25}}


@pytest.mark.parametrize("resource", [None, "things"])
async def test_an_answer_without_the_id_ends_the_run_and_a_corrected_path_repairs_it(
    run: Run, host: Environment, shop: Shop, service_loop: Any, resource: str | None
) -> None:
    service, remote = parts(service_loop)
    service.reply = lambda ref, body: as_json({"data": {"key": ref}}, 201)
    await fill(host, 1, 2)
    wrong = pushing(shop, remote.create, update=remote.update, resource=resource, concurrency=1)
    row = await run(wrong)
    assert (row.status, row.error["error"]) == ("failed", "ref_missing") and "'" in row.error["message"]
    assert ("objectId" in row.error["message"]) == (resource is not None)
    assert len(service.things) == 1
    await sql(host, "UPDATE items SET name = 'changed'")
    row = await run(wrong)  # the one that was sent is not sent again
    assert row.status == "failed" and len(service.things) == 2
    rejects, _ = await host.runs.rejects(row.id)
    assert "was sent before" in rejects[0].reason
    right = pushing(shop, remote.create, update=remote.update, ref="data.key", resource=resource)
    row = await run(right)
    assert (row.status, row.updated, len(service.things)) == ("completed", 1, 2), row.error
    assert {thing["name"] for thing in service.things.values()} == {"changed"}


async def test_ids_can_be_entered_by_hand(run: Run, host: Environment, shop: Shop, service_loop: Any) -> None:
    from khotan_cli.runtime.store.mappings import MappingChanges

    service, remote = parts(service_loop)
    service.reply = lambda ref, body: Answer(201)
    await fill(host, 1)
    out = pushing(shop, remote.create, update=remote.update, resource="things")
    assert (await run(out)).error["error"] == "ref_missing"
    await host.mappings.upsert(MappingChanges("things", {"1": {"remote": "r1"}}))
    await sql(host, "UPDATE items SET name = 'changed'")
    assert counts(await run(out)) == {"extracted": 1, "transformed": 1, "updated": 1}
    assert len(service.things) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"update": Remote.update, "ref": "uuid"}, "uuid"),
        ({"delete": Remote.remove, "ref": "data.id"}, "data.id"),
        ({"ref": "uuid"}, "uuid"),
        ({"etag": True}, "etag"),
        ({"max_delete": 0.5}, "max_delete"),
        ({"delete": Remote.remove, "max_delete": 2}, "max_delete"),
        ({"delete": Remote.create}, "path parameters"),
        ({"update": "x"}, "update"),
        ({"batch": 2, "headers": lambda record: {}}, "headers"),
    ],
)
async def test_options_that_cannot_hold_are_refused_before_anything_is_sent(
    run: Run, host: Environment, shop: Shop, service_loop: Any, options: dict[str, Any], words: str
) -> None:
    service, remote = parts(service_loop)
    await fill(host, 1)
    bound = {
        k: v.__get__(remote, Remote) if hasattr(v, "__get__") and k != "headers" else v for k, v in options.items()
    }
    row = await run(pushing(shop, remote.typed, **bound))
    assert (row.status, row.error["error"]) == ("failed", "config_invalid") and words in row.error["message"]
    assert service.things == {}


async def test_a_batch_keeps_its_ids(run: Run, host: Environment, shop: Shop, service_loop: Any) -> None:
    service, remote = parts(service_loop)
    await fill(host, 1, 2, 3)
    service.reply = lambda ref, body: as_json({"things": [{"id": item["name"]} for item in body["things"]]})
    out = pushing(shop, remote.many, batch=2, batch_key="things", ref="id")
    assert (await run(out)).created == 3
    kept = await rows_of(
        host, "SELECT CAST(value AS TEXT) FROM khotan_cache_entries WHERE cache = '_sent' ORDER BY key"
    )
    assert [f"item {n}" in value for n, (value,) in enumerate(kept, 1)] == [True] * 3
    service.reply = lambda ref, body: as_json({"accepted": len(body["things"])})
    await fill(host, 4)
    row = await run(out)
    assert (row.status, row.error["error"]) == ("failed", "ref_missing")


@pytest.mark.parametrize("resource", [None, "things"])
async def test_records_that_vanish_are_deleted(
    run: Run, host: Environment, shop: Shop, service_loop: Any, resource: str | None
) -> None:
    service, remote = parts(service_loop)
    await fill(host, *range(1, 7))
    out = pushing(shop, remote.create, update=remote.update, delete=remote.remove, ref="id", resource=resource, page=2)
    assert (await run(out)).created == 6
    service.calls()
    await sql(host, "DELETE FROM items WHERE id IN (2, 5)")
    del service.things["r5"]  # gone there already
    report = await dry_run(host, out, "default", None)
    assert report.failure is None and report.requests["DELETE remote.remove"]["count"] == 2
    assert service.calls() == []
    row = await run(out)
    assert counts(row) == {"extracted": 4, "skipped": 4, "deleted": 2}
    assert sorted(service.calls()) == [("DELETE", "/things/r2"), ("DELETE", "/things/r5")]
    assert counts(await run(out)) == {"extracted": 4, "skipped": 4} and service.calls() == []
    if resource:
        assert await rows_of(host, "SELECT count(*) FROM khotan_mappings") == [(4,)]
    await fill(host, 2)  # a record that comes back is made anew
    assert (await run(out)).created == 1


async def test_without_delete_nothing_is_deleted(run: Run, host: Environment, shop: Shop, service_loop: Any) -> None:
    service, remote = parts(service_loop)
    await fill(host, 1, 2)
    out = pushing(shop, remote.create, update=remote.update)
    await run(out)
    await sql(host, "DELETE FROM items WHERE id = 2")
    assert (await run(out)).deleted == 0 and len(service.things) == 2


@pytest.mark.parametrize(
    ("left", "share", "status"),
    [(10, None, "failed"), (12, None, "completed"), (0, None, "failed"), (0, 1, "completed"), (20, 0.1, "failed")],
)
async def test_a_push_that_would_delete_most_records_stops(
    run: Run, host: Environment, shop: Shop, service_loop: Any, left: int, share: Any, status: str
) -> None:
    service, remote = parts(service_loop)
    await fill(host, *range(24))
    out = pushing(shop, remote.create, delete=remote.remove, max_delete=share)
    await run(out)
    await sql(host, f"DELETE FROM items WHERE id >= {left}")
    row = await run(out)
    assert row.status == status and len(service.things) == (24 if status == "failed" else left)
    if status == "failed":
        assert row.error["error"] == "too_many_deletions" and "max_delete" in row.error["hint"]


async def test_a_source_that_did_not_come_whole_deletes_nothing(
    run: Run, host: Environment, shop: Shop, service_loop: Any
) -> None:
    service, remote = parts(service_loop)
    records: list[dict[str, Any]] = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]

    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        await ctx.push(records, remote.create, key="id", delete=remote.remove)

    await run(out)
    records[1] = {"name": "b"}
    row = await run(out)
    assert (row.status, row.deleted, len(service.things)) == ("partial", 0, 2)
    assert any("no key" in line.message for line in await host.runs.updates(row.id))


async def test_headers_and_parameters_by_record(run: Run, host: Environment, shop: Shop, service_loop: Any) -> None:
    service, remote = parts(service_loop)
    await fill(host, 1)
    seen: list[Any] = []

    def headers(record: ItemRow, known: Any) -> dict[str, str]:
        seen.append(known)
        return {"Idempotency-Key": f"k-{record.id}"}

    out = pushing(shop, remote.create, update=remote.update, headers=headers)
    await run(out)
    await sql(host, "UPDATE items SET name = 'changed'")
    await run(out)
    assert [asked.headers["idempotency-key"] for asked in service.asked] == ["k-1", "k-1"]
    assert seen[0] is None and seen[1].ref == "r1"


@pytest.mark.parametrize("resource", [None, "things"])
async def test_a_change_made_at_the_service_is_not_overwritten(
    run: Run, host: Environment, shop: Shop, service_loop: Any, resource: str | None
) -> None:
    service, remote = parts(service_loop)
    await fill(host, 1)
    out = pushing(shop, remote.create, update=remote.update, etag=True, ref="id", resource=resource)
    await run(out)
    for name in ("second", "third"):
        await sql(host, f"UPDATE items SET name = '{name}'")
        assert (await run(out)).updated == 1
    assert [asked.headers.get("if-match") for asked in service.asked] == [None, '"r1-1"', '"r1-2"']
    service.things["r1"], service.versions["r1"] = {"name": "theirs"}, 9
    await sql(host, "UPDATE items SET name = 'ours'")
    row = await run(out)
    assert (row.status, row.failed, service.things["r1"]) == ("partial", 1, {"name": "theirs"})
    (reject,), _ = await host.runs.rejects(row.id)
    assert reject.reason.startswith("412: record 1 was changed at the service")
    assert reject.record["ours"]["name"] == "ours"
    assert reject.record["theirs"]["details"]["existing"] == {"name": "theirs"}


class Change(BaseModel):
    kind: Literal["thing"] = "thing"
    name: str | None = None
    price: float | None = None


@pytest.mark.parametrize("declared", [dict, Change])
async def test_a_field_can_be_cleared_and_what_is_unset_is_not_sent(
    run: Run, host: Environment, shop: Shop, service_loop: Any, declared: Any
) -> None:
    service, remote = parts(service_loop)

    class Typed(Remote):
        base_url = remote.base_url
        create = post("/things", body=declared, returns=dict)
        update = put("/things/{thing}", body=declared, returns=dict)

    typed = Typed(name="remote")
    made: list[Change] = [Change(name="a", price=1.0)]

    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        await ctx.push([{"id": 1}], typed.create, update=typed.update, key="id", body=lambda record: made[0])

    await run(out)
    made[0] = Change(name=None)
    report = await dry_run(host, out, "default", None)
    assert report.requests["PUT remote.update"]["sample"][0]["body"] == {"kind": "thing", "name": None}
    assert (await run(out)).updated == 1
    assert service.things["r1"] == {"kind": "thing", "name": None}
    assert (await run(out)).skipped == 1
    await typed.aclose()


async def test_a_step_whose_code_is_wrong_is_not_tried_again(run: Run, shop: Shop) -> None:
    tries: list[int] = []

    @step(attempts=5, backoff=0.0)
    async def wrong(ctx: FlowContext, what: str) -> None:
        tries.append(1)
        if what == "type":
            len(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        if what == "name":
            undefined  # type: ignore[name-defined]  # noqa: B018, F821  # pyright: ignore[reportUndefinedVariable]
        if what == "attribute":
            _ = "".nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        raise OSError("later perhaps")

    @outflow(shop)
    async def out(ctx: FlowContext) -> None:
        await wrong(ctx, ctx.body)

    for what, expected in (("type", 1), ("name", 1), ("attribute", 1), ("other", 5)):
        tries.clear()
        assert (await run(out, body=what)).status == "failed" and len(tries) == expected
