"""Whether and when to retry a failed attempt. Pure policy, without clock and network.

Sources: RFC 9110 9.2.2 (idempotent methods), 10.2.3 (Retry-After), 15.5.9 (408), RFC 6585 4 (429);
exponential backoff with full jitter: each wait is uniform between zero and the exponential bound.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import httpx

from khotan_cli.runtime.http.quota import retry_after

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
UNPROCESSED_STATUSES = frozenset({408, 429})
"""Statuses of requests that were not processed: 408 was received incompletely, 429 was rejected."""
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""Failures before the first byte of the request was sent."""


@dataclass(frozen=True)
class Attempt:
    """The outcome of one attempt. `number` counts from 1; `elapsed` is seconds since the call began.

    `sent` is False if the request itself cannot have reached the service (its token could not be fetched).
    `exhausted`: seconds until a declared quota resets, if the service rejected the request for that reason.
    """

    number: int
    method: str
    elapsed: float
    response: httpx.Response | None = None
    error: Exception | None = None
    sent: bool = True
    headers: Mapping[str, str] | None = None
    exhausted: float | None = None


@dataclass(frozen=True)
class Retry:
    """How often and when a call is retried.

    attempts: total number, including the first. statuses: statuses that are retried.
    methods: methods, besides the idempotent ones, that are safe to retry at this service (`methods={"POST"}`).
    backoff, max_backoff, max_retry_after, deadline: seconds. A `Retry-After` above max_retry_after ends the call
    immediately; `deadline` limits the whole call, including waits. should_retry: returns whether a successful response
    is actually a throttle; it must not raise. idempotency_header: name of a header that gets one random key per call,
    the same for all its attempts; with it, every method is retried.
    """

    attempts: int = 3
    statuses: Collection[int] = RETRIED_STATUSES
    methods: Collection[str] = ()
    backoff: float = 0.5
    max_backoff: float = 30.0
    max_retry_after: float = 60.0
    deadline: float | None = None
    should_retry: Callable[[httpx.Response], bool] | None = None
    idempotency_header: str | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("Retry(attempts=…) includes the first attempt: it must be 1 or more")
        if min(self.backoff, self.max_backoff, self.max_retry_after) < 0:
            raise ValueError("Retry: backoff, max_backoff and max_retry_after must not be negative")

    def delay(self, attempt: Attempt, *, uniform: Callable[[float, float], float] = random.uniform) -> float | None:
        """Seconds to wait before the next attempt, or None for no further attempt."""
        if attempt.number >= self.attempts or not self._is_retryable(attempt) or not self._is_safe(attempt):
            return None
        requested = retry_after(attempt.response) if attempt.response is not None else None
        if attempt.exhausted is not None:
            requested = max(requested or 0.0, attempt.exhausted)
        if requested is not None and requested > self.max_retry_after:
            return None
        bound = min(self.max_backoff, self.backoff * 2 ** min(attempt.number - 1, 30))
        wait = uniform(0, bound) if requested is None else requested
        if self.deadline is not None and attempt.elapsed + wait >= self.deadline:
            return None
        return wait

    def _is_retryable(self, attempt: Attempt) -> bool:
        if attempt.response is None:
            return isinstance(attempt.error, httpx.TransportError) and not isinstance(
                attempt.error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
            )
        if attempt.response.status_code in self.statuses or attempt.exhausted is not None:
            return True
        return self.should_retry is not None and attempt.response.is_success and self.should_retry(attempt.response)

    def _is_safe(self, attempt: Attempt) -> bool:
        """Whether a retry cannot repeat an effect of the request."""
        if not attempt.sent or self.idempotency_header or attempt.exhausted is not None:
            return True
        if attempt.method in IDEMPOTENT or attempt.method in {method.upper() for method in self.methods}:
            return True
        if attempt.response is None:
            return isinstance(attempt.error, NEVER_SENT)
        status = attempt.response.status_code
        # 503 with Retry-After means that the service rejected the request (RFC 9110 15.6.4); without it, the request may
        # have been processed in part. A 200 gets here only if should_retry recognised a throttle.
        rejected = status == 503 and retry_after(attempt.response) is not None
        return status in UNPROCESSED_STATUSES or rejected or attempt.response.is_success
