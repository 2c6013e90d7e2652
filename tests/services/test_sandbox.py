"""Plugs against the bundled sandbox: every way in, every way to page, one contract that is wrong and one that is true."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from khotan_cli.errors import PlugError
from khotan_cli.runtime import (
    ApiKeyAuth,
    BasicAuth,
    BearerAuth,
    CursorPaginator,
    KeysetPaginator,
    OAuth2ClientCredentials,
    OffsetPaginator,
    Plug,
    Retry,
    Var,
    get,
    post,
)
from khotan_cli.sandbox import access
from khotan_cli.sandbox.data import CUSTOMERS, ORDERS, PRODUCTS
from khotan_cli.sandbox.tour import sandbox
from tests.support.services import Service

pytestmark = pytest.mark.xdist_group("sandbox")


class Record(BaseModel):
    id: str


class ErrorBody(BaseModel):
    code: str
    message: str


class ShopError(BaseModel):
    error: ErrorBody


class NewLine(BaseModel):
    product_id: str
    quantity: int


class NewOrder(BaseModel):
    customer_id: str
    lines: list[NewLine]


class Shop(Plug):
    base_url = "{server}/{area}"
    server = Var()
    area = Var()

    list_products = get("/products", item=Record, paginator=OffsetPaginator(items="items", total="total", limit=90))
    list_orders = get("/orders", item=Record, paginator=CursorPaginator(items="orders"))
    list_customers = get("/customers", item=Record, paginator=KeysetPaginator(items="data", has_more="has_more"))
    get_product = get("/products/{id}", returns=Record, responses={404: ShopError})
    create_order = post("/orders", body=NewOrder, returns=Record, retry=Retry(idempotency_header="Idempotency-Key"))


AUTHS: dict[str, httpx.Auth] = {
    "bearer": BearerAuth(access.BEARER_TOKEN),
    "basic": BasicAuth(access.USERNAME, access.PASSWORD),
    "api-key-header": ApiKeyAuth(access.API_KEY, header=access.API_KEY_HEADER),
    "api-key-query": ApiKeyAuth(access.API_KEY, query=access.API_KEY_PARAM),
    "oauth2": OAuth2ClientCredentials("/token", access.CLIENT_ID, access.CLIENT_SECRET),
    "oauth2-post": OAuth2ClientCredentials(
        "/token", access.CLIENT_ID, access.CLIENT_SECRET, auth_method="client_secret_post"
    ),
}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with sandbox(0) as url:
        yield Service(url)


@pytest.fixture(params=list(AUTHS))
async def shop(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[Shop]:
    area = request.param.removesuffix("-post")
    async with Shop().with_vars(server=service.url, area=area).with_auth(AUTHS[request.param]) as plug:
        yield plug


async def test_every_record_is_read_once(shop: Shop) -> None:
    counts: dict[str, Any] = {}
    for endpoint, limit in ((shop.list_products, 90), (shop.list_orders, 70), (shop.list_customers, 100)):
        ids = [record.id async for record in endpoint.items(limit=limit)]
        assert len(ids) == len(set(ids))
        counts[endpoint.endpoint.name] = len(ids)
    assert counts["list_products"] == PRODUCTS
    assert counts["list_customers"] == CUSTOMERS
    assert counts["list_orders"] >= ORDERS  # other tests of this file add some


async def test_a_declared_error_carries_its_model(shop: Shop) -> None:
    with pytest.raises(PlugError) as caught:
        await shop.get_product(id="prod_0000")
    assert caught.value.body == ShopError(error=ErrorBody(code="not_found", message="There is no product 'prod_0000'."))


async def test_without_a_credential_it_is_refused(shop: Shop) -> None:
    with pytest.raises(PlugError) as caught:
        await shop.with_auth(None).get_product(id="prod_0001")
    assert caught.value.code == "plug_refused"


async def test_an_order_is_created(shop: Shop) -> None:
    made = await shop.create_order(
        NewOrder(customer_id="cus_0001", lines=[NewLine(product_id="prod_0001", quantity=1)])
    )
    assert (await shop.get(f"/orders/{made.id}"))["customer_id"] == "cus_0001"
