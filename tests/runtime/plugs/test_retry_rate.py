"""The policies by themselves: waits, buckets, places. No clock but the test's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khotan_cli.runtime import Quota, RateLimit, Retry
from khotan_cli.runtime.http.quota import retry_after
from khotan_cli.runtime.http.rate_limit import MAX_PAUSE_SECONDS, ProcessRateStore
from khotan_cli.runtime.http.retry import Attempt


def answered(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@given(number=st.integers(1, 60), backoff=st.floats(0, 10), most=st.floats(0, 100))
def test_waits_are_jittered_over_the_whole_exponential_bound(number: int, backoff: float, most: float) -> None:
    retry = Retry(attempts=100, backoff=backoff, max_backoff=most)
    attempt = Attempt(number, "GET", 0.0, response=answered(503))
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    retry.delay(attempt, uniform=uniform)
    assert bounds == [(0, min(most, backoff * 2 ** (number - 1 if number < 32 else 30)))]


def test_attempts_deadline_and_cap_end_a_call() -> None:
    retry = Retry(attempts=3, deadline=10, max_retry_after=5, backoff=0)
    assert retry.delay(Attempt(3, "GET", 0, response=answered(503))) is None
    assert retry.delay(Attempt(1, "GET", 10, response=answered(503))) is None
    assert retry.delay(Attempt(1, "GET", 7, response=answered(503, retry_after="4"))) is None
    assert retry.delay(Attempt(1, "GET", 0, response=answered(503, retry_after="6"))) is None
    assert retry.delay(Attempt(1, "GET", 0, response=answered(503, retry_after="4"))) == 4


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        (httpx.ConnectError("x"), True),
        (httpx.ConnectTimeout("x"), True),
        (httpx.PoolTimeout("x"), True),
        (httpx.ReadTimeout("x"), False),
        (httpx.ReadError("x"), False),
        (httpx.RemoteProtocolError("x"), False),
        (httpx.WriteError("x"), False),
        (httpx.UnsupportedProtocol("x"), False),
    ],
)
def test_a_write_is_repeated_only_where_it_was_never_sent(error: Exception, repeated: bool) -> None:
    assert (Retry().delay(Attempt(1, "POST", 0, error=error)) is not None) is repeated
    assert (Retry().delay(Attempt(1, "GET", 0, error=error)) is not None) is not isinstance(
        error, httpx.UnsupportedProtocol
    )
    assert Retry().delay(Attempt(1, "POST", 0, error=error, sent=False)) is not None or isinstance(
        error, httpx.UnsupportedProtocol
    )


def test_a_503_that_names_a_time_turned_the_request_away() -> None:
    assert Retry().delay(Attempt(1, "POST", 0, response=answered(503))) is None
    assert Retry().delay(Attempt(1, "POST", 0, response=answered(503, retry_after="1"))) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        ("-5", None),
        ("0", None),
        ("inf", None),
        ("1735689630", 30.0),
        ("1735689630000", 30.0),
        ("1500000000", None),
        ("2025-01-01T00:00:30Z", 30.0),
        ("Wed, 01 Jan 2025 00:00:30 GMT", 30.0),
        ("Wed, 01 Jan 2020 00:00:30 GMT", None),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    at = datetime(2025, 1, 1, tzinfo=UTC)
    assert retry_after(answered(429, retry_after=text), now=lambda: at) == seconds
    assert retry_after(answered(429)) is None


def test_nonsense_is_refused() -> None:
    for make in (
        lambda: Retry(attempts=0),
        lambda: Retry(backoff=-1),
        RateLimit,
        lambda: RateLimit(requests=-1),
        lambda: RateLimit(requests=1, per=0),
        lambda: RateLimit(concurrency=0),
        lambda: RateLimit(requests=1, burst=0),
    ):
        with pytest.raises(ValueError):
            make()


@given(
    rate=st.integers(1, 50),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=60),
)
def test_no_window_ever_sees_more_than_burst_and_rate(rate: int, burst: int, gaps: list[float]) -> None:
    now = 100.0
    store = ProcessRateStore(clock=lambda: now)
    limit = RateLimit(requests=rate, per=1.0, burst=burst)
    gone: list[float] = []

    async def run() -> None:
        nonlocal now
        for gap in gaps:
            now += gap
            gone.append(now + await store.reserve("k", limit.interval, limit.burst_size))

    asyncio.run(run())
    gone.sort()
    for first, start in enumerate(gone):
        within = sum(1 for moment in gone[first:] if moment < start + 1.0 - 1e-6)
        assert within <= burst + rate


async def test_a_hold_moves_everybody_and_the_longer_one_stays() -> None:
    now = 0.0
    store = ProcessRateStore(clock=lambda: now)
    await store.pause("k", 10)
    await store.pause("k", 5)
    assert await store.paused_for("k") == 10 and await store.paused_for("other") == 0
    waits = [await store.reserve("k", 1.0, 1) for _ in range(3)]
    assert waits == [10, 11, 12]


async def test_places_are_given_in_order_and_back_when_cancelled() -> None:
    store = ProcessRateStore()
    order: list[int] = []
    release = asyncio.Event()

    async def user(number: int) -> None:
        async with store.slot("k", 1):
            order.append(number)
            await release.wait()

    tasks = [asyncio.create_task(user(n)) for n in range(4)]
    while not order:
        await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[0].cancel()
    release.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2, 3]
    async with asyncio.timeout(60), store.slot("k", 1):
        order.append(9)


@pytest.mark.parametrize(
    ("quota", "headers", "seconds"),
    [
        (Quota.github(), {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1735689630"}, 30.0),
        (Quota.github(), {"x-ratelimit-remaining": "1", "x-ratelimit-reset": "1735689630"}, None),
        (Quota.github(), {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1735689000"}, None),
        (Quota.github(), {"x-ratelimit-remaining": "0"}, None),
        (Quota(reset_as="seconds"), {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, 12.0),
        (Quota(), {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, 12.0),
        (Quota("X-Left", "X-Until"), {"x-left": "0", "x-until": "1735689630000"}, 30.0),
        (Quota.ietf(), {"ratelimit": '"default";r=0;t=30'}, 30.0),
        (Quota.ietf(), {"ratelimit": '"default";r=50;t=30'}, None),
        (Quota.ietf(), {"ratelimit": '"a,b";r=0;t=5, "day";r=0;t=90, "x";r=1;t=999'}, 90.0),
        (Quota.ietf(), {"ratelimit": '"default";r=0', "ratelimit-policy": '"default";q=100;w=60'}, 60.0),
        (Quota.ietf(), {"ratelimit": "limit=10, remaining=0, reset=7"}, 7.0),
        (Quota.ietf(), {"ratelimit-remaining": "0", "ratelimit-reset": "9"}, 9.0),
    ],
)
def test_quota_headers(quota: Quota, headers: dict[str, str], seconds: float | None) -> None:
    at = datetime(2025, 1, 1, tzinfo=UTC)
    assert quota.wait(httpx.Response(403, headers=headers), now=lambda: at) == seconds


def test_a_503_whose_retry_after_names_no_time_is_not_a_refusal() -> None:
    assert Retry().delay(Attempt(1, "POST", 0, response=answered(503, retry_after="0"))) is None


def test_an_exhausted_quota_repeats_even_a_write() -> None:
    assert Retry().delay(Attempt(1, "POST", 0, response=answered(403), exhausted=7.0)) == 7.0
    assert Retry().delay(Attempt(1, "POST", 0, response=answered(403), exhausted=70.0)) is None


async def test_a_hold_is_capped_and_can_be_lifted() -> None:
    store = ProcessRateStore(clock=lambda: 0.0)
    await store.pause("shop:a", 1_900_000_000)
    await store.pause("shop", 5)
    await store.pause("shopping", 7)
    assert await store.paused_for("shop:a") == MAX_PAUSE_SECONDS == await store.longest_pause("shop")
    await store.reserve("shop:a", 1.0, 1)
    assert await store.resume("shop") == 2
    assert await store.longest_pause("shop") == 0 == await store.reserve("shop:a", 1.0, 1)
    assert await store.longest_pause("shopping") == 7 and await store.resume("shop") == 0
