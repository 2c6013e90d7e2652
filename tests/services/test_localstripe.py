"""Plugs against localstripe: form bodies, keyset paging, bearer and basic."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import BaseModel

from khotan_cli.errors import PlugError
from khotan_cli.runtime import BasicAuth, BearerAuth, KeysetPaginator, Plug, Var, get, post
from tests.support.services import Service

pytestmark = pytest.mark.xdist_group("localstripe")

CUSTOMERS = 23


class Customer(BaseModel):
    id: str
    email: str | None
    description: str | None
    metadata: dict[str, str]


class CustomerPage(BaseModel):
    data: list[Customer]
    has_more: bool
    url: str


class StripeErrorBody(BaseModel):
    type: str
    message: str = ""


class StripeError(BaseModel):
    error: StripeErrorBody


class Stripe(Plug):
    base_url = "{server}/v1"
    server = Var()
    api_key = Var(secret=True)
    auth = BearerAuth(api_key)
    encoding = "form"
    query_arrays = "brackets"
    paginator = KeysetPaginator(param="starting_after", id_field="id", items="data", has_more="has_more")

    list_customers = get("/customers", returns=CustomerPage)
    get_customer = get("/customers/{customer_id}", returns=Customer, responses={404: StripeError})
    create_customer = post("/customers", returns=Customer, responses={400: StripeError})


@pytest.fixture
async def stripe(localstripe: Service) -> AsyncIterator[Stripe]:
    httpx.delete(f"{localstripe.url}/_config/data", trust_env=False).raise_for_status()
    async with Stripe().with_vars(server=localstripe.url, api_key="sk_test_1234567890") as plug:
        yield plug


async def test_a_nested_form_body_arrives_as_it_was_meant(stripe: Stripe) -> None:
    made = await stripe.create_customer(
        body={"email": "ada+1@example.com", "description": "50 % Ä & ü=?", "metadata": {"tier": "gold", "a b": "c&d"}}
    )
    again = await stripe.get_customer(customer_id=made.id)
    assert again == made
    assert (made.email, made.description) == ("ada+1@example.com", "50 % Ä & ü=?")
    assert made.metadata == {"tier": "gold", "a b": "c&d"}


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_keyset_paging_reads_every_record_once(stripe: Stripe, limit: int) -> None:
    made = [(await stripe.create_customer(body={"description": f"{number}"})).id for number in range(CUSTOMERS)]
    read = [customer.id async for customer in stripe.list_customers.items(limit=limit)]
    assert sorted(read) == sorted(made)
    pages = [page async for page in stripe.list_customers.pages(limit=limit)]
    assert len(pages) == -(-CUSTOMERS // limit)
    assert [page.has_more for page in pages] == [True] * (len(pages) - 1) + [False]


async def test_basic_authentication_with_the_key_as_user_name(stripe: Stripe) -> None:
    basic = stripe.with_auth(BasicAuth(Stripe.api_key))
    made = await basic.create_customer(body={"email": "b@example.com"})
    assert (await stripe.get_customer(customer_id=made.id)).email == "b@example.com"


async def test_a_declared_error_carries_its_model(stripe: Stripe) -> None:
    with pytest.raises(PlugError) as caught:
        await stripe.get_customer(customer_id="cus_none")
    assert caught.value.status == 404
    assert isinstance(caught.value.body, StripeError)


async def test_a_wrong_key_is_refused_and_not_shown(stripe: Stripe) -> None:
    with pytest.raises(PlugError) as caught:
        await stripe.with_vars(api_key="pk_wrong_key_9999").list_customers()
    assert (caught.value.code, caught.value.status) == ("plug_refused", 401)
    assert "pk_wrong_key_9999" not in str(caught.value.to_json())
