"""What every signature scheme checks in the same way: the secret's encoding, the timestamp, the headers that must be there."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, TypeVar

from khotan_cli.runtime.http.json_path import dig
from khotan_cli.runtime.webhooks.request import Headers, RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify.timestamps import TimestampFormat, moment_of

Encoding = Literal["hex", "base64"]
SecretEncoding = Literal["utf-8", "base64", "hex"]
K = TypeVar("K")

logger = logging.getLogger("khotan.webhooks")


def decoded_secret(secret: str, encoding: SecretEncoding, prefix: str) -> bytes:
    """The key that a secret stands for. Raises RequestRejected for an empty one, or one that is not encoded so: the wire is set up
    wrong."""
    text = secret.removeprefix(prefix) if prefix else secret
    if not text:
        raise RequestRejected("the wire's secret is empty but for its prefix: anybody could sign with it")
    if encoding == "utf-8":
        return text.encode()
    try:
        if encoding == "hex":
            return bytes.fromhex(text)
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise RequestRejected(f"the wire's secret is not {encoding}") from None


def usable(scheme: str, secrets: Sequence[str], read: Callable[[str], K]) -> list[K]:
    """What `read` makes of each secret. One that it refuses is passed over while there is another; else raises RequestRejected."""
    found: list[K] = []
    problems: dict[int, RequestRejected] = {}
    for number, secret in enumerate(secrets, 1):
        try:
            found.append(read(secret))
        except RequestRejected as exc:
            problems[number] = exc
    for number, problem in problems.items():
        if not found:
            raise problem
        _warn(f"{scheme}: secret {number} of {len(secrets)} is passed over: {problem}")
    return found


@cache
def _warn(text: str) -> None:
    """Once in a process: it would be said again for each event."""
    logger.warning(text)


def check_time(timestamp: str, now: float, tolerance: float | None, form: TimestampFormat = "seconds") -> None:
    """Raises RequestRejected for what is no moment in that form, or one further away than the tolerance, in either direction."""
    moment = moment_of(timestamp, form)
    if moment is None:
        raise RequestRejected(f"the timestamp is missing, or not written as {form}")
    if tolerance is not None and abs(now - moment) > tolerance:
        raise RequestRejected(f"the timestamp is {now - moment:+.0f} s from now, more than {tolerance:g} s")


def check_body_time(
    request: WebhookRequest, path: str, now: float, tolerance: float | None, form: TimestampFormat
) -> None:
    """As check_time, for a moment at a dotted path of the JSON body, a number or a text. The body must be verified before."""
    try:
        found = dig(request.json, path)
    except ValueError:
        raise RequestRejected("the body is not JSON, so it holds no timestamp") from None
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise RequestRejected(f"the body has no timestamp at {path}")
    check_time(str(found), now, tolerance, form)


def required(headers: Headers, *names: str) -> str:
    """The first of the headers that is there. Raises RequestRejected."""
    for name in names:
        if name in headers:
            return headers[name]
    raise RequestRejected(f"the header {names[0]} is missing")
