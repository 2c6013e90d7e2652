"""Saved responses and their replay through a plug's own pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from khotan_cli.errors import PlugError, ResponseInvalid, UsageError
from khotan_cli.runtime.auth.schemes import BearerAuth
from khotan_cli.runtime.contract.check import model_for_status
from khotan_cli.runtime.contract.saved import SavedResponse, load_saved, parse_saved, write_saved
from khotan_cli.runtime.http.rate_limit import RateLimit
from khotan_cli.runtime.http.variables import Var
from khotan_cli.runtime.paging.paginators import CursorPaginator
from khotan_cli.runtime.plugs.endpoint import get
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.testing import assert_contract, replay


class Order(BaseModel):
    id: int


class Orders(BaseModel):
    data: list[Order]
    next: str | None = None


class Problem(BaseModel):
    error: str


class Shop(Plug):
    base_url = "https://{shop}.example.com/v1/{tenant}"
    shop = Var()
    tenant = Var()
    api_key = Var(secret=True)
    auth = BearerAuth(api_key)
    rate_limit = RateLimit(requests=1, per=3600)

    list_orders = get("/orders", returns=Orders, paginator=CursorPaginator(param="cursor", cursor="next", items="data"))
    get_order = get("/orders/{order_id}", returns=Order, responses={404: Problem, "5XX": Problem})


def saved(path: str, body: Any, *, status: int = 200, method: str = "GET") -> SavedResponse:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", "content-encoding": "gzip", "set-cookie": "sid=1"}
    return SavedResponse("shop", "", method, f"https://acme.example.com/v1/t1{path}", status, headers, content)


async def test_replay_needs_neither_network_nor_credentials(tmp_path: Path) -> None:
    shop = Shop()
    before = (shop.transport, shop.auth, shop.shared, shop.rate_limit)
    write_saved(tmp_path / "order.json", saved("/orders/7", {"id": 7}))
    async with replay(shop, tmp_path / "order.json") as plug:
        assert plug is shop
        assert [await plug.get_order(order_id=7) for _ in range(3)] == [Order(id=7)] * 3
    with replay(shop, saved("/orders/8", {"id": 8})) as plug:
        assert (await plug.get_order(order_id=8)).id == 8
        assert (await plug.with_options(timeout=1.0).get_order(order_id=8)).id == 8
    assert (shop.transport, shop.auth, shop.shared, shop.rate_limit) == before


async def test_replay_decodes_and_validates_as_ever() -> None:
    with replay(Shop(), saved("/orders/1", {"id": "x"}), saved("/orders/2", {"error": "none"}, status=404)) as plug:
        with pytest.raises(ResponseInvalid):
            await plug.get_order(order_id=1)
        with pytest.raises(PlugError) as caught:
            await plug.get_order(order_id=2)
    assert caught.value.body == Problem(error="none")


async def test_same_request_answers_in_order_then_repeats_the_last() -> None:
    replayed = replay(Shop(), saved("/orders/1", {"id": 1}), saved("/orders/1", {"id": 2}))
    with replayed as plug:
        assert [(await plug.get_order(order_id=1)).id for _ in range(4)] == [1, 2, 2, 2]
    assert len(replayed.transport.requests) == 4


async def test_query_tells_pages_apart() -> None:
    first = saved("/orders", {"data": [{"id": 1}], "next": "b"})
    second = saved("/orders?cursor=b", {"data": [{"id": 2}], "next": None})
    with replay(Shop(), second, first) as plug:
        assert [order.id async for order in plug.list_orders.items()] == [1, 2]
        with pytest.raises(UsageError) as caught:
            await plug.get("/orders", params={"cursor": "z"})
    assert "cursor=z" in caught.value.message


async def test_what_nothing_answers_is_named() -> None:
    with replay(Shop(), saved("/orders/1", {"id": 1})) as plug:
        with pytest.raises(UsageError) as caught:
            await plug.get_order(order_id=2)
        with pytest.raises(UsageError):
            await plug.post("/orders/1")
    assert "GET" in caught.value.message
    assert "/orders/2" in caught.value.message
    assert "GET /v1/t1/orders/1" in caught.value.hint


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [1.5, null, "\xc3\xa4"]}',
        b'{"a": 123456789012345678901234567890}',
        b"\xff\x00",
        b"",
        b"<p>hi</p>",
        b"[NaN]",
    ],
)
def test_body_comes_back_as_it_was(tmp_path: Path, body: bytes) -> None:
    write_saved(tmp_path / "x.json", saved("/", body))
    back = load_saved(tmp_path / "x.json").body
    assert back == body or json.loads(back) == json.loads(body)


def test_no_credential_is_written(tmp_path: Path) -> None:
    url = "https://u:pw@x.example/a?api_key=k3y&limit=1"
    made = SavedResponse(
        "shop",
        "list",
        "GET",
        url,
        200,
        {"Set-Cookie": "sid=1", "Authorization": "B"},
        b"{}",
    )
    write_saved(tmp_path / "x.json", made)
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["request"] == {"method": "GET", "url": "https://x.example/a?api_key=••••&limit=1"}
    assert document["response"]["headers"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a response saved by khotan"),
        ('{"khotan": 2}', "format 2"),
        ('{"khotan": 1}', "no 'request'"),
        (
            '{"khotan": 1, "plug": "a", "endpoint": "b", "request": {"method": "GET", "url": "/"}, "response": {}}',
            "no 'body'",
        ),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_is_no_saved_response(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match=says):
        replay(Shop(), tmp_path / "x.json")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read"):
        load_saved(tmp_path / "none.json")
    with pytest.raises(UsageError, match="Cannot write"):
        write_saved(tmp_path / "none" / "x.json", saved("/", {}))
    broken = {**saved("/", {}).to_json(), "response": {"status": 200, "headers": {}, "bodyBase64": "***"}}
    with pytest.raises(UsageError, match="not a response saved by khotan"):
        parse_saved(broken)


def test_assert_contract() -> None:
    assert assert_contract(Shop.get_order, saved("/orders/1", {"id": 1})).matches
    assert assert_contract(Shop().get_order, saved("/orders/1", {"error": "x"}, status=404)).model == "Problem"
    with pytest.raises(AssertionError, match=r"\$\.id: type_mismatch: expected integer, got string"):
        assert_contract(Shop.get_order, saved("/orders/1", {"id": "x"}))
    assert_contract(Shop.get_order, saved("/orders/1", {"id": "1"}), fail_on="breaking")
    with pytest.raises(AssertionError, match="declares no model for status 400"):
        assert_contract(Shop.get_order, saved("/orders/1", {}, status=400))


def test_model_is_that_of_the_status() -> None:
    declared = {status: model_for_status(Shop.get_order, status) for status in (200, 201, 404, 503, 400)}
    assert declared == {200: Order, 201: Order, 404: Problem, 503: Problem, 400: None}


def test_a_saved_response_answers_a_request() -> None:
    response = saved("/", {"id": 1}).response(httpx.Request("GET", "https://x.example/"))
    assert response.json() == {"id": 1}
    assert "set-cookie" not in response.headers
