"""A plug for the OpenAPI petstore, served by prism from its published document."""

from __future__ import annotations

from collections.abc import AsyncIterator

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


class Petstore(Plug):
    base_url = "{server}"
    server = Var()
    api_key = Var(secret=True)
    auth = ApiKeyAuth(api_key, header="api_key")
    retry = Retry(attempts=1)

    get_pet = get("/pet/{pet_id}", returns=Pet)
    find_by_status = get("/pet/findByStatus", returns=list[Pet])
    add_pet = post("/pet", returns=Pet, body=Pet)


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
    pet = Pet(id=1, name="Rex", photoUrls=["http://example.com/1.png"], status="sold")
    assert isinstance(await signed_in.add_pet(pet), Pet)


async def test_without_the_key_it_is_refused(plug: Petstore) -> None:
    with pytest.raises(PlugError) as caught:
        await plug.with_auth(None).get_pet(pet_id=10)
    assert (caught.value.code, caught.value.status) == ("plug_refused", 401)
