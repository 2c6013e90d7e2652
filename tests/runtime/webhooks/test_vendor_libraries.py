"""Presets beside the vendors' own libraries and the values that their documentation prints.

Razorpay, Paddle and Square publish Python libraries that verify webhooks; LINE prints an example in its documentation (Verify
webhook signature). For Intercom, Zoom and Linear see `test_vendors`: the first two print no example that can be recomputed, and
Linear's library is for Node.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import razorpay  # type: ignore[import-untyped]
from paddle_billing.Notifications import Secret, Verifier  # type: ignore[import-untyped]
from razorpay.errors import SignatureVerificationError  # type: ignore[import-untyped]
from square.utils.webhooks_helper import verify_signature

from khotan_cli.errors import ConfigError
from khotan_cli.runtime import Plug, Wire
from khotan_cli.runtime.webhooks.inbound.identify import events_of
from khotan_cli.runtime.webhooks.request import Headers, RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify import signatures
from khotan_cli.runtime.webhooks.verify.schemes import Scheme

URL = "https://hooks.example.test/in?shop=7"
BODIES = [
    b'{"event":"order.paid","type":"a.b"}',
    '{ "note" : "Kāšgar — 和田",\n "n": 1.50 }'.encode(),
    b'{"a":"\\u00e9"}\r\n',
]
Judge = Callable[[str, bytes, dict[str, str]], bool]


class Shop(Plug):
    base_url = "http://shop.invalid"


def razorpay_accepts(secret: str, body: bytes, fields: dict[str, str]) -> bool:
    client: Any = razorpay.Client(auth=("key", "secret"))
    try:
        client.utility.verify_webhook_signature(body.decode(), fields["X-Razorpay-Signature"], secret)
    except SignatureVerificationError:
        return False
    return True


def paddle_accepts(secret: str, body: bytes, fields: dict[str, str]) -> bool:
    request: Any = SimpleNamespace(headers=fields, body=body)
    return bool(Verifier(5).verify(request, Secret(secret)))


def square_accepts(secret: str, body: bytes, fields: dict[str, str]) -> bool:
    return verify_signature(
        request_body=body.decode(),
        signature_header=fields["X-Square-HmacSha256-Signature"],
        signature_key=secret,
        notification_url=URL,
    )


VENDORS: list[tuple[Scheme, Judge]] = [
    (signatures.razorpay(), razorpay_accepts),
    (signatures.paddle(), paddle_accepts),
    (signatures.square(), square_accepts),
]


def ours(scheme: Scheme, secret: str, body: bytes, fields: dict[str, str], now: float) -> bool:
    try:
        scheme.verify(WebhookRequest("POST", URL, Headers(fields), body), [secret], now)
    except RequestRejected:
        return False
    return True


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("scheme", "vendor"), VENDORS, ids=lambda one: getattr(one, "name", ""))
def test_the_vendors_library_judges_as_the_preset_does(scheme: Scheme, vendor: Judge, body: bytes) -> None:
    now = time.time()
    made = dict(scheme.sign(WebhookRequest("POST", URL, Headers({}), body), "s3cret", now, ""))
    altered = {name: value[:-2] + ("00" if value[-2:] != "00" else "11") for name, value in made.items()}
    cases = [("s3cret", body, made), ("other", body, made), ("s3cret", body + b" ", made), ("s3cret", body, altered)]
    verdicts = [vendor(*case) for case in cases]
    assert verdicts == [True, False, False, False]
    assert [ours(scheme, *case, now) for case in cases] == verdicts


def test_paddles_library_refuses_old_signatures_as_the_preset_does() -> None:
    now, scheme = time.time(), signatures.paddle()
    made = dict(scheme.sign(WebhookRequest("POST", URL, Headers({}), b"{}"), "s", now - 3600, ""))
    assert not paddle_accepts("s", b"{}", made) and not ours(scheme, "s", b"{}", made, now)
    rotated = {"Paddle-Signature": made["Paddle-Signature"].replace(";h1=", ";h1=" + "0" * 64 + ";h1=")}
    assert ours(scheme, "s", b"{}", rotated, now - 3600), "several signatures while a secret is rotated"


def test_lines_documented_example() -> None:
    """developers.line.biz, Verify webhook signature: the request that the Verify button sends, its secret and its signature."""
    body = b'{"destination":"U8e742f61d673b39c7fff3cecb7536ef0","events":[]}'
    secret, scheme = "8c570fa6dd201bb328f1c1eac23a96d8", signatures.line()
    fields = {"X-Line-Signature": "GhRKmvmHys4Pi8DxkF4+EayaH0OqtJtaZxgTD9fMDLs="}
    assert ours(scheme, secret, body, fields, 0)
    assert not ours(scheme, secret, body + b" ", fields, 0)
    [event] = events_of(Wire(Shop(), verify=scheme), WebhookRequest("POST", URL, Headers(fields), body))
    assert (event.problem, event.handler_runs) == (None, ())


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (1_700_000_000_000, True),
        (1_700_000_059_999, True),
        (1_699_999_940_001, True),
        (1_699_999_939_000, False),
        (1_700_000_061_000, False),
        (1_700_000_000, False),
        ("1700000000000", True),
        (None, False),
        (True, False),
        ([], False),
    ],
)
def test_linears_timestamp_is_within_a_minute(value: Any, accepted: bool) -> None:
    """As in Linear's own library (linear/linear, packages/sdk/src/webhooks/client.ts): more than 60 seconds are refused."""
    body = json.dumps({"type": "Issue", "action": "update", "webhookTimestamp": value}).encode()
    fields = {"Linear-Signature": hmac.new(b"s", body, hashlib.sha256).hexdigest()}
    assert ours(signatures.linear(), "s", body, fields, NOW) is accepted
    assert not ours(signatures.linear(), "t", body, fields, NOW)


def test_linears_timestamp_is_required() -> None:
    body = b'{"type":"Issue"}'
    fields = {"Linear-Signature": hmac.new(b"s", body, hashlib.sha256).hexdigest()}
    assert not ours(signatures.linear(), "s", body, fields, NOW)


@pytest.mark.parametrize(
    ("form", "path", "document", "accepted"),
    [
        ("seconds", "meta.sent", {"meta": {"sent": 1_700_000_000}}, True),
        ("seconds", "meta.sent", {"meta": {"sent": 1_600_000_000}}, False),
        ("milliseconds", "meta.sent", {"meta": {"sent": 1_700_000_000_000}}, True),
        ("iso", "sent", {"sent": "2023-11-14T22:13:20Z"}, True),
        ("iso", "sent", {"sent": "2022-11-14T22:13:20Z"}, False),
        ("iso", "sent", {}, False),
        ("seconds", "sent", [], False),
    ],
)
def test_a_timestamp_in_any_body(form: Any, path: str, document: Any, accepted: bool) -> None:
    scheme = signatures.hmac(header="X-Sig", timestamp_field=path, timestamp_format=form)
    body = json.dumps(document).encode()
    fields = {"X-Sig": hmac.new(b"s", body, hashlib.sha256).hexdigest()}
    assert ours(scheme, "s", body, fields, NOW) is accepted
    loose = signatures.hmac(header="X-Sig", timestamp_field=path, timestamp_format=form, tolerance=None)
    assert ours(loose, "s", body, fields, NOW) is (document not in ({}, []))


def test_a_public_keys_body_may_hold_the_time() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()
    scheme = signatures.ed25519(header="X-Sig", content="{body}", timestamp_field="at")
    body = b'{"at":1700000000}'
    fields = {"X-Sig": key.sign(body).hex()}
    assert ours(scheme, public, body, fields, NOW) and not ours(scheme, public, body, fields, NOW + 301)


def test_a_timestamp_has_one_place() -> None:
    with pytest.raises(ConfigError, match="both in the body"):
        signatures.hmac(header="X-Sig", content="{timestamp}{body}", timestamp_header="X-At", timestamp_field="at")
