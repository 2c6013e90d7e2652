"""How long to wait before the next request: `Retry-After`, and the rate-limit headers that a plug declares. No I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

import httpx

ResetAs = Literal["auto", "epoch", "seconds"]
_EPOCH = 1_000_000_000.0
"""Numbers from here on are times, not durations: in seconds they would be a wait of 31 years."""
_EPOCH_MILLISECONDS = 100_000_000_000.0
_MEMBER = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?\Z")
_PARAMETER = re.compile(r"(?:^|[;\s])(r|t|w|remaining|reset)\s*=\s*(\d+)")


@dataclass(frozen=True)
class Quota:
    """Rate-limit headers of a service. When no requests remain, the plug waits for the reset.

    remaining, reset: names of the headers. reset_as: "epoch" (seconds or milliseconds since 1970, UTC), "seconds" from
    now, or "auto", which reads numbers of ten or more digits as an epoch. statuses: statuses of rejected requests when
    none remain; like a 429, they are retried after the reset. structured: name of a structured header whose
    members have parameters for both, as in `RateLimit: "default";r=0;t=30`; policy: name of the header with the windows,
    `RateLimit-Policy: "default";q=100;w=60`, which is used if the first header has no time.
    """

    remaining: str = "X-RateLimit-Remaining"
    reset: str = "X-RateLimit-Reset"
    reset_as: ResetAs = "auto"
    statuses: Collection[int] = (403, 429)
    structured: str = ""
    policy: str = ""

    @classmethod
    def github(cls) -> Quota:
        """GitHub: 403 or 429 with `X-RateLimit-Remaining: 0`; `X-RateLimit-Reset` is an epoch in seconds.

        Source: GitHub Docs, "Troubleshooting the REST API", section "Rate limit errors", and "Rate limits for the REST API".
        """
        return cls(reset_as="epoch")

    @classmethod
    def ietf(cls) -> Quota:
        """`RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-09; `t` and `w` are seconds.

        The fields of draft 06, `RateLimit-Remaining` and `RateLimit-Reset` in seconds, are read as well.
        """
        return cls("RateLimit-Remaining", "RateLimit-Reset", "seconds", (429, 503), "RateLimit", "RateLimit-Policy")

    def wait(self, response: httpx.Response, *, now: Callable[[], datetime] | None = None) -> float | None:
        """Seconds until the reset if the headers say that no requests remain; None otherwise."""
        headers = response.headers
        if self.structured and self.structured in headers:
            seconds = _structured(headers[self.structured], headers.get(self.policy, "") if self.policy else "")
            if seconds is not None:
                return seconds
        remaining, resets = _values(headers, self.remaining), _values(headers, self.reset)
        if not resets or not any(_is_exhausted(count) for count in remaining):
            return None
        moment = now() if now else datetime.now(UTC)
        # If a header is repeated for two windows, the values belong together by position.
        paired = (
            zip(remaining, resets, strict=True) if len(remaining) == len(resets) else [("0", text) for text in resets]
        )
        waits = [seconds_until(text, self.reset_as, moment) for count, text in paired if _is_exhausted(count)]
        return max((wait for wait in waits if wait is not None), default=None)


def _values(headers: httpx.Headers, name: str) -> list[str]:
    """The values of a header. Commas inside dates do not separate values."""
    texts = headers.get_list(name)
    split = [part.strip() for text in texts for part in text.split(",")]
    return split if all(_NUMBER.match(part) for part in split) else texts


def _is_exhausted(text: str) -> bool:
    """Whether a number means that no requests remain: 0, or negative at services that continue counting."""
    return bool(_NUMBER.match(text.strip())) and float(text) <= 0


def _structured(text: str, policy: str) -> float | None:
    """The longest wait of the members with no remaining requests."""
    windows = {_name(member): _numbers(member).get("w") for member in _MEMBER.findall(policy)}
    waits: list[float] = []
    members = _MEMBER.findall(text)
    if any(re.match(r"\s*(limit|remaining|reset)\s*=", member) for member in members):
        members = [";".join(members)]  # `limit=10, remaining=0, reset=5` of draft 07 is one limit
    for member in members:
        numbers = _numbers(member)
        count = numbers.get("r", numbers.get("remaining"))
        seconds = numbers.get("t", numbers.get("reset", windows.get(_name(member))))
        if count == 0 and seconds:
            waits.append(float(seconds))
    return max(waits, default=None)


def _name(member: str) -> str:
    return member.partition(";")[0].strip()


def _numbers(member: str) -> Mapping[str, int | None]:
    return {name: int(number) for name, number in _PARAMETER.findall(member)}


def retry_after(response: httpx.Response, *, now: Callable[[], datetime] | None = None) -> float | None:
    """Seconds to wait according to `Retry-After`: delay-seconds or an HTTP-date (RFC 9110 10.2.3), or a plausible epoch.

    Of several values, which a proxy may add, the longest is used.
    None without a usable value: 0, negative numbers and past dates are ignored.
    """
    if "retry-after" not in response.headers:
        return None
    moment = now() if now else datetime.now(UTC)
    waits = [seconds_until(text, "auto", moment) for text in _values(response.headers, "retry-after")]
    return max((wait for wait in waits if wait is not None), default=None)


def seconds_until(text: str, kind: ResetAs, now: datetime) -> float | None:
    """Seconds from now to the time in a header: a number, read according to `kind`, or a date. None if it is not in the
    future."""
    try:
        number = float(text)
    except ValueError:
        wait = _until(text, now)
    else:
        if not math.isfinite(number):
            return None
        epoch = kind == "epoch" or (kind == "auto" and number >= _EPOCH)
        moment = number / 1000 if number >= _EPOCH_MILLISECONDS else number
        wait = moment - now.timestamp() if epoch else number
    return wait if wait is not None and wait > 0 else None


def _until(text: str, now: datetime) -> float | None:
    at: datetime | None = None
    for read in (parsedate_to_datetime, _iso):
        try:
            at = read(text)
            break
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    if at is None:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return (at - now).total_seconds()


def _iso(text: str) -> datetime:
    return datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
