"""Checks shared by signature schemes: encoding of the secret, timestamp and required headers."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, TypeVar

from khotan_cli.runtime.content.json_path import dig
from khotan_cli.runtime.webhooks.request import Headers, RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify.timestamps import TimestampFormat, moment_of

Encoding = Literal["hex", "base64"]
SecretEncoding = Literal["utf-8", "base64", "hex"]
K = TypeVar("K")

logger = logging.getLogger("khotan.webhooks")


def decoded_secret(secret: str, encoding: SecretEncoding, prefix: str) -> bytes:
    """Decode a secret into a key. Raises RequestRejected if the secret is empty or has another encoding."""
    text = secret.removeprefix(prefix) if prefix else secret
    if not text:
        raise RequestRejected("the wire's secret is empty apart from its prefix")
    if encoding == "utf-8":
        return text.encode()
    try:
        if encoding == "hex":
            return bytes.fromhex(text)
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise RequestRejected(f"the wire's secret is not valid {encoding}") from None


def usable(scheme: str, secrets: Sequence[str], read: Callable[[str], K]) -> list[K]:
    """Decode each secret with `read` and skip invalid secrets. Raises RequestRejected if none is valid."""
    keys: list[K] = []
    problems: dict[int, RequestRejected] = {}
    for number, secret in enumerate(secrets, 1):
        try:
            keys.append(read(secret))
        except RequestRejected as exc:
            problems[number] = exc
    for number, problem in problems.items():
        if not keys:
            raise problem
        _warn(f"{scheme}: secret {number} of {len(secrets)} is skipped: {problem}")
    return keys


@cache
def _warn(text: str) -> None:
    """Log a warning once per process, not for each event."""
    logger.warning(text)


def check_time(timestamp: str, now: float, tolerance: float | None, form: TimestampFormat = "seconds") -> None:
    """Raises RequestRejected if the timestamp is invalid or differs from `now` by more than the tolerance."""
    moment = moment_of(timestamp, form)
    if moment is None:
        raise RequestRejected(f"the timestamp is missing or not in the format {form}")
    if tolerance is not None and abs(now - moment) > tolerance:
        raise RequestRejected(f"the timestamp is {now - moment:+.0f} s from now, more than {tolerance:g} s")


def check_body_time(
    request: WebhookRequest, path: str, now: float, tolerance: float | None, form: TimestampFormat
) -> None:
    """Like check_time, for a timestamp at a dotted path in the JSON body. Verify the body first."""
    try:
        timestamp = dig(request.json, path)
    except ValueError:
        raise RequestRejected("the body is not JSON and has no timestamp") from None
    if isinstance(timestamp, bool) or not isinstance(timestamp, (str, int)):
        raise RequestRejected(f"the body has no timestamp at {path}")
    check_time(str(timestamp), now, tolerance, form)


def required(headers: Headers, *names: str) -> str:
    """Return the first of the headers that is present. Raises RequestRejected if none is."""
    for name in names:
        if name in headers:
            return headers[name]
    raise RequestRejected(f"the header {names[0]} is missing")
