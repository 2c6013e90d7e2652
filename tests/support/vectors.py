"""Signed webhook requests, made by the vendors' own libraries when the tests run.

Stripe, Svix, Standard Webhooks, Slack and Twilio publish Python libraries that sign and verify. GitHub publishes an example
(docs.github.com, Validating webhook deliveries: Testing the webhook payload validation); Shopify a description
(shopify.dev, Verify webhook deliveries): base64 HMAC-SHA256 of the raw body. Those two are signed with the standard library.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qs, urlencode

import slack_sdk.signature
import standardwebhooks
import stripe
import svix.webhooks
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

URL = "https://hooks.example.test/in"
BODIES = {
    "json": b'{"id":"evt_1","type":"invoice.paid","data":{"object":{"amount":1999,"currency":"eur"}}}',
    "unicode": '{ "id" : "evt_2",\n  "name": "Kāšgar — 和田 🐳", "esc": "\\u00e9", "big": 1e400 }'.encode(),
    "crlf": b'{"id":"evt_3",\r\n"note":"two\\nlines"}\r\n',
}
Fields = dict[str, str]


@dataclass(frozen=True)
class Vector:
    """A request and its verdict. `vendor`: the vendor's own verdict on it; None where its library has another rule.

    `now`: Unix seconds at which the request is judged.
    """

    id: str
    secret: str
    body: bytes
    headers: Fields
    valid: bool
    now: float
    url: str = URL
    vendor: Callable[[], bool] | None = None


class _Signer(Protocol):
    def __call__(self, secret: str, moment: int, body: bytes, message: str = "msg_1") -> Fields: ...


_Judge = Callable[[str, bytes, Fields], bool]


def stripe_fields(secret: str, moment: int, body: bytes, message: str = "") -> Fields:
    made = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=moment)
    return {"Stripe-Signature": made}


def stripe_accepts(secret: str, body: bytes, fields: Fields) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(body, fields["Stripe-Signature"], secret, 300))
    except stripe.SignatureVerificationError:
        return False


def slack_fields(secret: str, moment: int, body: bytes, message: str = "") -> Fields:
    made = slack_sdk.signature.SignatureVerifier(secret).generate_signature(timestamp=str(moment), body=body)
    return {"X-Slack-Signature": made or "", "X-Slack-Request-Timestamp": str(moment)}


def slack_accepts(secret: str, body: bytes, fields: Fields) -> bool:
    return slack_sdk.signature.SignatureVerifier(secret).is_valid_request(body, fields)


def standard_fields(secret: str, moment: int, body: bytes, message: str = "msg_1") -> Fields:
    made = standardwebhooks.Webhook(secret).sign(message, datetime.fromtimestamp(moment, UTC), body.decode())
    return {"webhook-signature": made, "webhook-id": message, "webhook-timestamp": str(moment)}


def standard_accepts(secret: str, body: bytes, fields: Fields) -> bool:
    try:
        standardwebhooks.Webhook(secret).verify(body, fields, json_parse=False)
    except standardwebhooks.WebhookVerificationError:
        return False
    return True


def svix_fields(secret: str, moment: int, body: bytes, message: str = "msg_1") -> Fields:
    made = svix.webhooks.Webhook(secret).sign(message, datetime.fromtimestamp(moment, UTC), body.decode())
    return {"svix-signature": made, "svix-id": message, "svix-timestamp": str(moment)}


def svix_accepts(secret: str, body: bytes, fields: Fields) -> bool:
    try:
        svix.webhooks.Webhook(secret).verify(body, fields)
    except svix.webhooks.WebhookVerificationError:
        return False
    return True


def timed(sign: _Signer, accepts: _Judge, secret: str, now: int, *, prefix: str, old: str) -> Iterator[Vector]:
    """What a scheme with a timestamp accepts and refuses. prefix: that of a signature. old: the same in another version."""

    def vector(name: str, body: bytes, fields: Fields, valid: bool, *, judged: bool = True) -> Vector:
        vendor = (lambda: accepts(secret, body, fields)) if judged else None
        return Vector(name, secret, body, fields, valid, now, vendor=vendor)

    body = BODIES["json"]
    good = sign(secret, now, body)
    header, signature = next(iter(good.items()))
    for name, content in BODIES.items():
        yield vector(f"ok-{name}", content, sign(secret, now, content), True)
    yield vector("tampered", body.replace(b"1999", b"1"), good, False)
    yield vector("whitespace", body + b" ", good, False)
    yield vector("wrong-secret", body, sign(secret[:-4] + "AAAA", now, body), False)
    yield vector("other-moment", body, good | {k: v.replace(str(now), str(now - 1)) for k, v in good.items()}, False)
    yield vector("stale", body, sign(secret, now - 3600, body), False)
    # Stripe's library accepts any moment in the future; its documentation asks for a tolerance, and ours has it both ways.
    yield vector("future", body, sign(secret, now + 3600, body), False, judged=accepts is not stripe_accepts)
    yield vector("edge-past", body, sign(secret, now - 300, body), True, judged=False)
    yield vector("past-the-edge", body, sign(secret, now - 301, body), False)
    yield vector("old-version", body, good | {header: signature.replace(prefix, old)}, False)
    yield vector("empty", body, good | {header: ""}, False)


def stripe_vectors(now: int) -> Iterator[Vector]:
    secret, body = "whsec_test_9f3a1c0000", BODIES["json"]
    yield from timed(stripe_fields, stripe_accepts, secret, now, prefix=",v1=", old=",v0=")
    good = stripe_fields(secret, now, body)["Stripe-Signature"]
    moment, _, signature = good.partition(",v1=")
    other = stripe_fields("whsec_other", now, body)["Stripe-Signature"].partition(",v1=")[2]
    for name, header, valid in (
        ("rotation", f"{moment},v1={other},v1={signature}", True),
        ("v0-first", f"{moment},v0={other},v1={signature}", True),
        ("no-t", f"v1={signature}", False),
        ("upper-hex", f"{moment},v1={signature.upper()}", False),
        ("blank", f"{moment}, v1={signature}", False),
        ("garbage", "nonsense", False),
    ):
        fields = {"Stripe-Signature": header}
        vendor = lambda fields=fields: stripe_accepts(secret, body, fields)  # noqa: E731 - bound in a loop
        yield Vector(name, secret, body, fields, valid, now, vendor=vendor)


def slack_vectors(now: int) -> Iterator[Vector]:
    yield from timed(slack_fields, slack_accepts, "8f742231b10e8888abcd99yyyzzz85a5", now, prefix="v0=", old="v1=")
    secret, form = "8f742231b10e8888abcd99yyyzzz85a5", b"token=x&team_id=T1&text=a%20b+c"
    fields = slack_fields(secret, now, form)
    lower = {name.lower(): value for name, value in fields.items()}
    for name, sent in (("ok-form", fields), ("lower-case-names", lower)):
        vendor = lambda sent=sent: slack_accepts(secret, form, sent)  # noqa: E731 - bound in a loop
        yield Vector(name, secret, form, sent, True, now, vendor=vendor)


def standard_vectors(now: int, *, branded: bool) -> Iterator[Vector]:
    sign, accepts = (svix_fields, svix_accepts) if branded else (standard_fields, standard_accepts)
    secret = "whsec_" + base64.b64encode(b"only for this test, 24 b").decode()
    body, brand = BODIES["json"], "svix" if branded else "webhook"
    yield from timed(sign, accepts, secret, now, prefix="v1,", old="v1a,")
    good = sign(secret, now, body)
    signature = good[f"{brand}-signature"]
    other = sign(secret[:-4] + "AAAA", now, body)[f"{brand}-signature"]
    cases = {
        "rotation": ({f"{brand}-signature": f"{other} {signature}"}, True),
        "v1a-plus-v1": ({f"{brand}-signature": f"v1a,AAAA {signature}"}, True),
        "other-id": ({f"{brand}-id": "msg_2"}, False),
    }
    for name, (change, valid) in cases.items():
        vendor = lambda fields=good | change: accepts(secret, body, fields)  # noqa: E731 - bound in a loop
        yield Vector(name, secret, body, good | change, valid, now, vendor=vendor)
    if branded:
        plain = standard_fields(secret, now, body)
        yield Vector("unbranded", secret, body, plain, True, now, vendor=lambda: accepts(secret, body, plain))


def github_vectors(now: int) -> Iterator[Vector]:
    secret = "It's a Secret to Everybody"
    published = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    yield Vector("published", secret, b"Hello, World!", {"X-Hub-Signature-256": f"sha256={published}"}, True, now)
    yield Vector("no-prefix", secret, b"Hello, World!", {"X-Hub-Signature-256": published}, False, now)
    yield Vector("tampered", secret, b"Hello, World.", {"X-Hub-Signature-256": f"sha256={published}"}, False, now)
    yield Vector(
        "wrong-secret", "another", b"Hello, World!", {"X-Hub-Signature-256": f"sha256={published}"}, False, now
    )
    weak = hmac.new(secret.encode(), b"Hello, World!", hashlib.sha1).hexdigest()
    yield Vector("sha1-only", secret, b"Hello, World!", {"X-Hub-Signature": f"sha1={weak}"}, False, now)
    for name, body in {**BODIES, "form": b"payload=%7B%22id%22%3A1%7D"}.items():
        made = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        yield Vector(f"ok-{name}", secret, body, {"X-Hub-Signature-256": f"sha256={made}"}, True, now)


def shopify_vectors(now: int) -> Iterator[Vector]:
    secret, header = "shpss_test_0123456789", "X-Shopify-Hmac-Sha256"
    for name, body in BODIES.items():
        digest = hmac.new(secret.encode(), body, hashlib.sha256).digest()
        made = base64.b64encode(digest).decode()
        yield Vector(f"ok-{name}", secret, body, {header: made}, True, now)
        yield Vector(f"tampered-{name}", secret, body + b" ", {header: made}, False, now)
        yield Vector(f"wrong-secret-{name}", "another", body, {header: made}, False, now)
        yield Vector(f"hex-{name}", secret, body, {header: digest.hex()}, False, now)


class _Form(dict[str, list[str]]):
    """A form as Twilio's library takes it where a key may be repeated."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def twilio_vectors(now: int) -> Iterator[Vector]:
    token, url = "12345testauthtoken", "https://hooks.example.test/twilio?foo=1&bar=2"
    validator = RequestValidator(token)
    form = urlencode({"From": "+14158675310", "Body": "olá 你好", "Digits": "1234"}).encode()
    repeated = b"a=2&a=1&b=x&a=2"
    document = b'{"property": "value", "boolean": true}'
    hashed = f"{URL}?bodySHA256={validator.compute_hash(document.decode())}"

    def vector(name: str, signed: str, body: bytes, judged: str, sent: bytes, valid: bool) -> Vector:
        fields = {"X-Twilio-Signature": validator.compute_signature(signed, _twilio_params(body))}
        kind = "json" if body is document else "x-www-form-urlencoded"

        def vendor() -> bool:
            params = sent.decode() if body is document else _twilio_params(sent)
            return bool(validator.validate(judged, params, fields["X-Twilio-Signature"]))

        return Vector(
            name, token, sent, fields | {"Content-Type": f"application/{kind}"}, valid, now, judged, vendor=vendor
        )

    yield vector("ok-form", url, form, url, form, True)
    yield vector("ok-port", url.replace(".test/", ".test:443/"), form, url, form, True)
    yield vector("ok-repeated", url, repeated, url, repeated, True)
    yield vector("ok-json", hashed, document, hashed, document, True)
    yield vector("tampered-form", url, form, url, form.replace(b"1234", b"1235"), False)
    yield vector("tampered-json", hashed, document, hashed, document + b" ", False)
    yield vector("other-url", url, form, url + "x", form, False)


def _twilio_params(body: bytes) -> Any:
    return {} if body.startswith(b"{") else _Form(parse_qs(body.decode(), keep_blank_values=True))


VECTORS: dict[str, Callable[[int], Iterator[Vector]]] = {
    "stripe": stripe_vectors,
    "slack": slack_vectors,
    "standard_webhooks": partial(standard_vectors, branded=False),
    "svix": partial(standard_vectors, branded=True),
    "twilio": twilio_vectors,
    "github": github_vectors,
    "shopify": shopify_vectors,
}
"""By the name of the scheme in `signatures`. The argument is the present, in Unix seconds: the vendors' libraries judge by the
clock."""
