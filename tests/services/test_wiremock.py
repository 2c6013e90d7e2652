"""Faults that only a real socket makes, from WireMock, over both transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from khotan_cli.errors import PlugError, PlugTimeout, PlugUnreachable
from khotan_cli.runtime import Plug, Retry, Var
from tests.support.services import Service

pytestmark = pytest.mark.xdist_group("wiremock")

Stub = Callable[..., str]


class Faulty(Plug):
    base_url = "{server}"
    server = Var()
    retry = Retry(attempts=1)
    timeout = 10.0


@pytest.fixture(params=["aiohttp", "httpx"])
async def plug(request: pytest.FixtureRequest, wiremock: Service) -> AsyncIterator[Faulty]:
    async with Faulty().with_options(transport=request.param).with_vars(server=wiremock.url) as made:
        yield made


@pytest.fixture
def admin(wiremock: Service) -> Any:
    with httpx.Client(base_url=f"{wiremock.url}/__admin", trust_env=False) as client:
        yield client


@pytest.fixture
def stub(admin: httpx.Client) -> Stub:
    """Makes a path of its own answer as given; each further answer comes after the one before it."""

    def make(*answers: dict[str, Any]) -> str:
        path = f"/{uuid4().hex}"
        for index, answer in enumerate(answers):
            mapping: dict[str, Any] = {"request": {"urlPath": path}, "response": answer}
            if len(answers) > 1:
                mapping |= {
                    "scenarioName": path,
                    "requiredScenarioState": "Started" if index == 0 else f"after {index}",
                    "newScenarioState": f"after {min(index + 1, len(answers) - 1)}",
                }
            admin.post("/mappings", json=mapping).raise_for_status()
        return path

    return make


def json_answer(value: Any) -> dict[str, Any]:
    return {"jsonBody": value, "headers": {"Content-Type": "application/json"}}


def asked(admin: httpx.Client, path: str) -> int:
    """How many requests the path received."""
    return int(admin.post("/requests/count", json={"urlPath": path}).json()["count"])


FAULTS = ["CONNECTION_RESET_BY_PEER", "EMPTY_RESPONSE", "MALFORMED_RESPONSE_CHUNK", "RANDOM_DATA_THEN_CLOSE"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_answer_is_unreachable_and_says_so(plug: Faulty, stub: Stub, fault: str) -> None:
    path = stub({"fault": fault})
    with pytest.raises(PlugUnreachable) as caught:
        await plug.get(path)
    assert caught.value.exit_code == 4
    assert caught.value.hint
    assert path in caught.value.message


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_get_is_repeated_after_a_fault(plug: Faulty, stub: Stub, admin: httpx.Client, fault: str) -> None:
    path = stub({"fault": fault}, {"fault": fault}, json_answer({"ok": True}))
    found = await plug.with_options(retry=Retry(attempts=3, backoff=0.01)).get(path)
    assert found == {"ok": True}
    assert asked(admin, path) == 3


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_post_that_may_have_arrived_is_not_repeated(
    plug: Faulty, stub: Stub, admin: httpx.Client, fault: str
) -> None:
    path = stub({"fault": fault}, json_answer({"ok": True}))
    with pytest.raises(PlugUnreachable):
        await plug.with_options(retry=Retry(attempts=3, backoff=0.01)).post(path, body={"a": 1})
    assert asked(admin, path) == 1


async def test_a_post_with_an_idempotency_key_is_repeated_with_the_same_key(
    plug: Faulty, stub: Stub, admin: httpx.Client
) -> None:
    path = stub({"fault": "EMPTY_RESPONSE"}, json_answer({"ok": True}))
    retry = Retry(attempts=3, backoff=0.01, idempotency_header="Idempotency-Key")
    assert await plug.with_options(retry=retry).post(path, body={"a": 1}) == {"ok": True}
    found = admin.post("/requests/find", json={"urlPath": path}).json()["requests"]
    keys = {name_value(request["headers"], "Idempotency-Key") for request in found}
    assert len(found) == 2
    assert len(keys) == 1


async def test_a_body_that_dribbles_ends_at_the_timeout(plug: Faulty, stub: Stub) -> None:
    # Every chunk comes well within a read timeout: only a bound on the whole attempt ends it.
    path = stub({"body": "x" * 400, "chunkedDribbleDelay": {"numberOfChunks": 200, "totalDuration": 60_000}})
    with pytest.raises(PlugTimeout) as caught:
        await plug.with_options(timeout=0.5).get(path)
    assert caught.value.exit_code == 4


async def test_a_slow_body_within_the_timeout_is_read_whole(plug: Faulty, stub: Stub) -> None:
    path = stub({"body": "y" * 4000, "chunkedDribbleDelay": {"numberOfChunks": 8, "totalDuration": 400}})
    assert len((await plug.raw("GET", path)).content) == 4000


async def test_an_answer_that_does_not_begin(plug: Faulty, stub: Stub) -> None:
    path = stub({"fixedDelayMilliseconds": 60_000, "body": "late"})
    with pytest.raises(PlugTimeout):
        await plug.with_options(timeout=httpx.Timeout(5, read=0.3)).get(path)


async def test_429_then_503_then_200_with_retry_after(plug: Faulty, stub: Stub, admin: httpx.Client) -> None:
    path = stub(
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"status": 503, "headers": {"Retry-After": "0"}},
        json_answer({"done": True}),
    )
    response = await plug.with_options(retry=Retry(attempts=3, backoff=0.01)).raw("GET", path)
    assert response.json() == {"done": True}
    assert response.extensions["khotan.attempts"] == 3
    assert asked(admin, path) == 3


async def test_a_retry_after_that_is_too_long_ends_the_call(plug: Faulty, stub: Stub, admin: httpx.Client) -> None:
    path = stub({"status": 429, "headers": {"Retry-After": "3600"}}, json_answer({}))
    with pytest.raises(PlugError) as caught:
        await plug.with_options(retry=Retry(attempts=3)).get(path)
    assert caught.value.status == 429
    assert asked(admin, path) == 1


async def test_the_connection_is_usable_after_a_fault(plug: Faulty, stub: Stub) -> None:
    broken, fine = stub({"fault": "MALFORMED_RESPONSE_CHUNK"}), stub(json_answer([1]))
    for _ in range(3):
        with pytest.raises(PlugUnreachable):
            await plug.get(broken)
        assert await plug.get(fine) == [1]


def name_value(headers: dict[str, str], name: str) -> str:
    return next(value for key, value in headers.items() if key.lower() == name.lower())
