"""What a service says of the time of the next request: it holds the account, for a bounded time, and can be lifted."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from khotan_cli.errors import PlugError
from khotan_cli.runtime import Plug, Quota, Retry, get
from khotan_cli.runtime.http.quota import retry_after
from khotan_cli.runtime.http.rate_limit import MAX_PAUSE_SECONDS
from tests.support.loopback import Answer, as_json, loopback

FINE = as_json({"fine": True})


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    retry = Retry(attempts=3, backoff=0.001)
    read = get("/read", returns=dict[str, Any])


@pytest.fixture
def api() -> Api:
    return Api()


def script(*answers: Answer) -> Any:
    """A handler that gives these answers in turn, the last one again and again."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize(
    ("quota", "status", "headers"),
    [
        (Quota.github(), 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "{epoch}"}),
        (Quota.ietf(), 429, {"RateLimit": '"default";r=0;t=900'}),
        (Quota("X-Left", "X-Wait", "seconds"), 403, {"X-Left": "0", "X-Wait": "900"}),
    ],
)
async def test_an_exhausted_quota_holds_the_account(
    api: Api, quota: Quota, status: int, headers: dict[str, str]
) -> None:
    sent = {name: value.replace("{epoch}", str(int(time.time()) + 900)) for name, value in headers.items()}
    async with loopback(lambda a: Answer(status, b"{}", {"Content-Type": "application/json", **sent})) as server:
        plug = api.with_options(base_url=server.url)
        with pytest.raises(PlugError):
            await plug.with_options(retry=Retry(attempts=1)).read()
        assert await plug.shared.rates.longest_pause("api") == 0, "without a declaration these headers mean nothing"
        with pytest.raises(PlugError):
            await plug.with_options(quota=quota).read()
        assert 800 < await plug.shared.rates.longest_pause("api") <= 900
        asked = len(server.asked)
        with pytest.raises(PlugError, match="requested a pause"):
            await plug.read()
        assert len(server.asked) == asked
        assert await plug.shared.rates.resume("api") == 1


@pytest.mark.parametrize("value", ["1900000000", "1900000000000", "99999999", "Wed, 01 Jan 2098 00:00:00 GMT"])
async def test_no_retry_after_holds_a_plug_for_long(api: Api, value: str) -> None:
    async with loopback(script(as_json({}, 429, Retry_After=value))) as server:
        plug = api.with_options(base_url=server.url)
        with pytest.raises(PlugError):
            await plug.read()
    assert MAX_PAUSE_SECONDS - 60 < await plug.shared.rates.longest_pause("api") <= MAX_PAUSE_SECONDS


@pytest.mark.parametrize("value", ["0", "-1", "Wed, 01 Jan 2020 00:00:00 GMT", "1000000000", "soon"])
async def test_a_retry_after_that_names_no_future_is_absent(api: Api, value: str) -> None:
    async with loopback(script(as_json({}, 429, Retry_After=value), FINE)) as server:
        plug = api.with_options(base_url=server.url)
        assert await plug.read() == {"fine": True}
        assert await plug.shared.rates.longest_pause("api") == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "40"}, 40),
        ({"X-RateLimit-Remaining": "0.0", "X-RateLimit-Reset": "40"}, 40),
        ({"X-RateLimit-Remaining": "0, 5", "X-RateLimit-Reset": "30, 90"}, 30),
        ({"X-RateLimit-Remaining": "7, 0", "X-RateLimit-Reset": "30, 90"}, 90),
        ({"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "40"}, None),
        ({"X-RateLimit-Remaining": "none", "X-RateLimit-Reset": "40"}, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"}, None),
    ],
)
def test_how_services_write_that_nothing_remains(headers: dict[str, str], seconds: float | None) -> None:
    assert Quota().wait(httpx.Response(429, headers=headers)) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"), [("120, 60", 120), ("0, 60", 60), ("7", 7), ("1e2", 100), ("120s", None), ("0", None)]
)
def test_several_values_of_retry_after_are_as_long_as_the_longest(value: str, seconds: float | None) -> None:
    assert retry_after(httpx.Response(503, headers={"Retry-After": value})) == seconds
