"""The sandbox over HTTP: five ways in, three ways to page, honest errors, dishonest documentation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from khotan_cli.sandbox import access
from khotan_cli.sandbox.data import CUSTOMERS, ORDERS, PRODUCTS, catalogue
from khotan_cli.sandbox.tour import sandbox
from tests.support.ports import free_port

BEARER = {"Authorization": f"Bearer {access.BEARER_TOKEN}"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with sandbox(0) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{url}/bearer", headers=BEARER, trust_env=False) as made:
        yield made


def oauth_token(url: str, **options: Any) -> httpx.Response:
    return httpx.post(f"{url}/oauth2/token", trust_env=False, **options)


def test_two_starts_send_the_same_bytes() -> None:
    assert catalogue() == catalogue()
    with sandbox(0) as one, sandbox(0) as two:
        answers = {httpx.get(f"{u}/bearer/orders", headers=BEARER, trust_env=False).content for u in (one, two)}
    assert len(answers) == 1


@pytest.mark.parametrize("area", list(access.AREAS))
def test_each_way_in_works_and_refuses_with_a_challenge(url: str, area: str) -> None:
    token = oauth_token(
        url,
        data={
            "grant_type": "client_credentials",
            "client_id": access.CLIENT_ID,
            "client_secret": access.CLIENT_SECRET,
        },
    ).json()["access_token"]
    given: dict[str, dict[str, Any]] = {
        "bearer": {"headers": BEARER},
        "basic": {"auth": (access.USERNAME, access.PASSWORD)},
        "api-key-header": {"headers": {access.API_KEY_HEADER: access.API_KEY}},
        "api-key-query": {"params": {access.API_KEY_PARAM: access.API_KEY}},
        "oauth2": {"headers": {"Authorization": f"Bearer {token}"}},
    }
    for name, options in given.items():
        response = httpx.get(f"{url}/{area}/products", trust_env=False, **options)
        assert response.status_code == (200 if name == area else 401), name
    refused = httpx.get(f"{url}/{area}/products", trust_env=False)
    assert refused.headers["www-authenticate"]
    assert refused.json()["error"]["code"] == "unauthorized"


def test_the_token_endpoint_takes_a_form_encoded_basic_secret_and_refuses_the_rest(url: str) -> None:
    grant = {"grant_type": "client_credentials"}
    encoded = ("sandbox-client", "s3cr3t%2B%2F%3D%3A+x%25")
    assert oauth_token(url, data=grant, auth=encoded).json()["token_type"] == "Bearer"
    plain = oauth_token(url, data=grant, auth=("sandbox-client", access.CLIENT_SECRET))
    assert (plain.status_code, plain.json()["error"]) == (401, "invalid_client")
    assert "www-authenticate" in plain.headers
    assert oauth_token(url, data={"grant_type": "password"}, auth=encoded).json()["error"] == "unsupported_grant_type"
    assert oauth_token(url, json=grant, auth=encoded).json()["error"] == "invalid_request"
    assert httpx.get(f"{url}/oauth2/token", trust_env=False).status_code == 405


def test_products_by_offset(client: httpx.Client) -> None:
    read: list[Any] = []
    while page := client.get("/products", params={"limit": 100, "offset": len(read)}).json()["items"]:
        read += page
    assert [item["id"] for item in read] == [f"prod_{number + 1:04d}" for number in range(PRODUCTS)]


def test_orders_by_cursor(client: httpx.Client) -> None:
    read: list[str] = []
    params: dict[str, Any] = {"limit": 70}
    while True:
        page = client.get("/orders", params=params).json()
        read += [order["id"] for order in page["orders"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert len(read) == len(set(read)) >= ORDERS


def test_customers_by_keyset(client: httpx.Client) -> None:
    read: list[str] = []
    more = True
    while more:
        params = {"limit": 99} | ({"starting_after": read[-1]} if read else {})
        page = client.get("/customers", params=params).json()
        read += [customer["id"] for customer in page["data"]]
        more = page["has_more"]
    assert len(read) == len(set(read)) == CUSTOMERS


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/products?limit=0", "limit"),
        ("/products?limit=101", "limit"),
        ("/products?limit=ten", "limit"),
        ("/products?limit=", "limit"),
        ("/products?offset=-1", "offset"),
        ("/orders?cursor=nonsense", "cursor"),
        ("/orders?cursor=", "cursor"),
        ("/customers?starting_after=cus_x", "starting_after"),
    ],
)
def test_a_bad_parameter_is_named(client: httpx.Client, path: str, param: str) -> None:
    response = client.get(path)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == param


def test_what_is_not_there(client: httpx.Client) -> None:
    for path in ("/products/prod_9999", "/nothing"):
        response = client.get(path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert client.get("/products/prod_0007").json()["id"] == "prod_0007"
    assert client.delete("/products").status_code == 405


def test_an_idempotency_key_creates_one_order(client: httpx.Client) -> None:
    body = {"customer_id": "cus_0001", "lines": [{"product_id": "prod_0001", "quantity": 2}]}
    first = client.post("/orders", json=body, headers={"Idempotency-Key": "k-1"})
    again = client.post("/orders", json=body, headers={"Idempotency-Key": "k-1"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == client.get(f"/orders/{first.json()['id']}").json()
    other = client.post("/orders", json=body | {"lines": []}, headers={"Idempotency-Key": "k-1"})
    assert other.json()["error"]["param"] == "Idempotency-Key"
    assert client.post("/orders", json=body).json()["id"] != first.json()["id"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], "body"),
        ({}, "customer_id"),
        ({"customer_id": "cus_0001"}, "lines"),
        ({"customer_id": "cus_0001", "lines": [{"product_id": "x", "quantity": 1}]}, "lines[0].product_id"),
        ({"customer_id": "cus_0001", "lines": [{"product_id": "prod_0001", "quantity": True}]}, "lines[0].quantity"),
    ],
)
def test_a_bad_order_is_refused(client: httpx.Client, body: Any, param: str) -> None:
    response = client.post("/orders", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (422, param)


def test_a_body_that_is_not_json(client: httpx.Client) -> None:
    response = client.post("/orders", content=b"\xff{")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


def test_the_documentation_is_wrong_where_it_is_meant_to_be(url: str, client: httpx.Client) -> None:
    document = httpx.get(f"{url}/openapi.json", trust_env=False).json()
    schema = document["components"]["schemas"]["Product"]
    items = client.get("/products").json()["items"]  # the default page must hold every kind of flaw
    assert schema["properties"]["price_cents"]["type"] == "integer"
    assert all(isinstance(item["price_cents"], str) for item in items)
    assert "description" in schema["required"]
    assert 0 < sum("description" not in item for item in items) < len(items)
    assert "barcode" not in schema["properties"]
    assert all("barcode" in item for item in items)
    assert any(item["stock"] is None for item in items)
    assert {item["status"] for item in items} - set(schema["properties"]["status"]["enum"]) == {"archived"}
    assert any(len(item["created_at"]) == 10 for item in items)
    page = httpx.get(f"{url}/docs", trust_env=False)
    assert page.headers["content-type"].startswith("text/html")
    assert access.BEARER_TOKEN in page.text


def test_a_port_that_is_taken() -> None:
    port = free_port()
    command = [sys.executable, "-m", "khotan_cli.sandbox", "--port", str(port)]
    with sandbox(port):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 4
    assert '"port_in_use"' in done.stdout
