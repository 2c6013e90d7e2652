"""When a failed attempt is repeated, and after how long. Pure policy: no clock, no network.

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
"""The service says that it did not process the request: 408 never received it whole, 429 turned it away."""
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
"""Failures before the first byte of the request left this machine."""


@dataclass(frozen=True)
class Attempt:
    """What is known of one attempt: `number` counts from 1, `elapsed` is seconds since the call began.

    `sent` is False where the request itself cannot have reached the service (its token could not be fetched).
    `exhausted`: seconds until a declared quota is reset, where that is why the service turned the request away.
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
    """How often and when a call is repeated.

    attempts: tries in all, the first included. statuses: the responses that are repeated.
    methods: further methods that are safe to repeat at this service (`methods={"POST"}`), besides the idempotent ones.
    backoff, max_backoff, max_retry_after, deadline: seconds. A `Retry-After` above max_retry_after ends the call
    at once; `deadline` bounds the whole call, waits included. should_retry: sees a response that looks like a success
    and says whether it is a throttle in disguise (it must not raise). idempotency_header: name of a header that gets one
    random key per call, the same over its attempts; with it every method is repeated.
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
            raise ValueError("Retry(attempts=…) counts the first try: it must be 1 or more")
        if min(self.backoff, self.max_backoff, self.max_retry_after) < 0:
            raise ValueError("Retry's times are seconds and cannot be negative")

    def delay(self, attempt: Attempt, *, uniform: Callable[[float, float], float] = random.uniform) -> float | None:
        """Seconds to wait before the next attempt, or None where there is none."""
        if attempt.number >= self.attempts or not self._worth_it(attempt) or not self._safe(attempt):
            return None
        asked = retry_after(attempt.response) if attempt.response is not None else None
        if attempt.exhausted is not None:
            asked = max(asked or 0.0, attempt.exhausted)
        if asked is not None and asked > self.max_retry_after:
            return None
        bound = min(self.max_backoff, self.backoff * 2 ** min(attempt.number - 1, 30))
        wait = uniform(0, bound) if asked is None else asked
        if self.deadline is not None and attempt.elapsed + wait >= self.deadline:
            return None
        return wait

    def _worth_it(self, attempt: Attempt) -> bool:
        if attempt.response is None:
            return isinstance(attempt.error, httpx.TransportError) and not isinstance(
                attempt.error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
            )
        if attempt.response.status_code in self.statuses or attempt.exhausted is not None:
            return True
        return self.should_retry is not None and attempt.response.is_success and self.should_retry(attempt.response)

    def _safe(self, attempt: Attempt) -> bool:
        """Whether repeating cannot do the same thing twice."""
        if not attempt.sent or self.idempotency_header or attempt.exhausted is not None:
            return True
        if attempt.method in IDEMPOTENT or attempt.method in {method.upper() for method in self.methods}:
            return True
        if attempt.response is None:
            return isinstance(attempt.error, NEVER_SENT)
        status = attempt.response.status_code
        # 503 with Retry-After is a service that turned the request away (RFC 9110 15.6.4); without it, it may have
        # failed half-way. A throttle inside a 200 was recognised by the plug's author as one.
        refused = status == 503 and retry_after(attempt.response) is not None
        return status in UNPROCESSED_STATUSES or refused or attempt.response.is_success
