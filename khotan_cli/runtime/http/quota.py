"""When a service wants the next request: `Retry-After`, and the rate-limit headers that a plug declares. Pure policy."""

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
"""A number from here on is a moment and no duration: as seconds it would be a wait of 31 years."""
_EPOCH_MILLISECONDS = 100_000_000_000.0
_MEMBER = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?\Z")
_PARAMETER = re.compile(r"(?:^|[;\s])(r|t|w|remaining|reset)\s*=\s*(\d+)")


@dataclass(frozen=True)
class Quota:
    """Rate-limit headers of a service: while none remain, the plug waits for the reset.

    remaining, reset: names of the headers. reset_as: "epoch" (seconds or milliseconds since 1970, UTC), "seconds" from
    now, or "auto", which takes numbers of ten digits and more as an epoch. statuses: answers that turn a request away
    where none remain; they are repeated after the reset, as a 429 is. structured: name of a structured header whose
    members have parameters for both, as in `RateLimit: "default";r=0;t=30`; policy: name of the header with the windows,
    `RateLimit-Policy: "default";q=100;w=60`, which is used where the first header names no time.
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
        """Seconds until the reset where the headers say that nothing remains; None otherwise."""
        headers = response.headers
        if self.structured and self.structured in headers:
            found = _structured(headers[self.structured], headers.get(self.policy, "") if self.policy else "")
            if found is not None:
                return found
        lefts, resets = _values(headers, self.remaining), _values(headers, self.reset)
        if not resets or not any(_nothing(left) for left in lefts):
            return None
        moment = now() if now else datetime.now(UTC)
        # A header that is there twice, for two windows, has its values side by side.
        paired = zip(lefts, resets, strict=True) if len(lefts) == len(resets) else [("0", text) for text in resets]
        waits = [seconds_until(text, self.reset_as, moment) for left, text in paired if _nothing(left)]
        return max((wait for wait in waits if wait is not None), default=None)


def _values(headers: httpx.Headers, name: str) -> list[str]:
    """The values of a header. A date holds a comma of its own."""
    found = headers.get_list(name)
    split = [part.strip() for text in found for part in text.split(",")]
    return split if all(_NUMBER.match(part) for part in split) else found


def _nothing(text: str) -> bool:
    """Whether a number says that nothing remains: 0, or less at services that count on."""
    return bool(_NUMBER.match(text.strip())) and float(text) <= 0


def _structured(text: str, policy: str) -> float | None:
    """The longest wait of the members of which nothing remains."""
    windows = {_name(member): _numbers(member).get("w") for member in _MEMBER.findall(policy)}
    waits: list[float] = []
    members = _MEMBER.findall(text)
    if any(re.match(r"\s*(limit|remaining|reset)\s*=", member) for member in members):
        members = [";".join(members)]  # `limit=10, remaining=0, reset=5` of draft 07 is one limit
    for member in members:
        numbers = _numbers(member)
        left = numbers.get("r", numbers.get("remaining"))
        seconds = numbers.get("t", numbers.get("reset", windows.get(_name(member))))
        if left == 0 and seconds:
            waits.append(float(seconds))
    return max(waits, default=None)


def _name(member: str) -> str:
    return member.partition(";")[0].strip()


def _numbers(member: str) -> Mapping[str, int | None]:
    return {name: int(number) for name, number in _PARAMETER.findall(member)}


def retry_after(response: httpx.Response, *, now: Callable[[], datetime] | None = None) -> float | None:
    """Seconds that `Retry-After` asks for: delay-seconds or an HTTP-date (RFC 9110 10.2.3), or a plausible epoch.

    Of several values, as a proxy adds them, the longest counts.
    None where there is no usable value: 0, a negative number, and a date that has passed are as good as absent.
    """
    if "retry-after" not in response.headers:
        return None
    moment = now() if now else datetime.now(UTC)
    waits = [seconds_until(text, "auto", moment) for text in _values(response.headers, "retry-after")]
    return max((wait for wait in waits if wait is not None), default=None)


def seconds_until(text: str, kind: ResetAs, now: datetime) -> float | None:
    """Seconds from now to what a header names: a number as `kind` says, or a date. None where that is not in the future."""
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
