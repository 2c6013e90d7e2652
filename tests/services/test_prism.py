"""A plug for the OpenAPI petstore, served by prism from its published documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import pytest
from pydantic import BaseModel

from khotan_cli.errors import PlugError
from khotan_cli.runtime import ApiKeyAuth, BearerAuth, Plug, Retry, Var, get, post
from tests.support.services import Service

pytestmark = pytest.mark.xdist_group("prism")


class Category(BaseModel):
    id: int
    name: str


class Tag(BaseModel):
    id: int
    name: str


class Pet(BaseModel):
    id: int
    name: str
    category: Category | None = None
    photoUrls: list[str]
    tags: list[Tag] = []
    status: str


class Order(BaseModel):
    id: int
    petId: int
    quantity: int
    status: Literal["placed", "approved", "delivered"]


class Petstore(Plug):
    base_url = "{server}"
    server = Var()
    api_key = Var(secret=True)
    auth = ApiKeyAuth(api_key, header="api_key")
    retry = Retry(attempts=1)

    get_pet = get("/pet/{pet_id}", returns=Pet)
    find_by_status = get("/pet/findByStatus", returns=list[Pet])
    place_order = post("/store/order", returns=Order, body=Order)


@pytest.fixture
async def plug(petstore: Service) -> AsyncIterator[Petstore]:
    async with Petstore().with_vars(server=petstore.url, api_key="special-key") as made:
        yield made


async def test_the_documented_answer_fits_the_model(plug: Petstore) -> None:
    pet = await plug.get_pet(pet_id=10)
    assert isinstance(pet, Pet)
    assert pet.name


async def test_query_and_body_pass_prisms_validation(plug: Petstore) -> None:
    signed_in = plug.with_auth(BearerAuth("a-token"))
    assert all(isinstance(pet, Pet) for pet in await signed_in.find_by_status(status="available"))
    order = Order(id=1, petId=10, quantity=2, status="placed")
    assert isinstance(await signed_in.place_order(order), Order)
    with pytest.raises(PlugError) as caught:  # prism validates against the document
        await signed_in.post("/store/order", body={"id": 1, "petId": 10, "quantity": "two"})
    assert caught.value.status in (400, 422)


async def test_without_the_key_it_is_refused(plug: Petstore) -> None:
    with pytest.raises(PlugError) as caught:
        await plug.with_auth(None).get_pet(pet_id=10)
    assert (caught.value.code, caught.value.status) == ("plug_refused", 401)
