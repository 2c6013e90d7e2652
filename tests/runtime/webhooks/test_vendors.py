"""Presets of vendors, with the examples of their documentation or libraries where there is one; schemes beside HMAC."""

# ruff: noqa: E501
from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from khotan_cli.errors import ConfigError
from khotan_cli.runtime import Plug, Retry, Wire
from khotan_cli.runtime.webhooks.handler import DEFAULT_RETRY, span_of
from khotan_cli.runtime.webhooks.inbound.identify import events_of
from khotan_cli.runtime.webhooks.request import Headers, RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify import signatures
from khotan_cli.runtime.webhooks.verify.schemes import Scheme

URL = "https://hooks.example.test/in?a=b%2Fc"
ADYEN_KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
ADYEN = {
    "pspReference": "7914073381342284",
    "merchantAccountCode": "TestMerchant",
    "merchantReference": "TestPayment-1407325143704",
    "amount": {"value": 1130, "currency": "EUR"},
    "eventCode": "AUTHORISATION",
    "success": "true",
    "additionalData": {"hmacSignature": "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="},
}
"""docs.adyen.com and Adyen's API libraries."""
HUBSPOT_SECRET = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
HUBSPOT_BODY = (
    b'[{"eventId":1,"subscriptionId":12345,"portalId":62515,"occurredAt":1564113600000,"subscriptionType":"contact.creation",'
    b'"attemptNumber":0,"objectId":123,"changeSource":"CRM","changeFlag":"NEW","appId":54321}]'
)


class Shop(Plug):
    base_url = "http://shop.invalid"


def asked(body: bytes, url: str = URL, method: str = "POST", **fields: str) -> WebhookRequest:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return WebhookRequest(method, url, Headers({"Content-Type": "application/json", **headers}), body)


def accepts(scheme: Scheme, request: WebhookRequest, secrets: list[str], now: float = 1000.0) -> bool:
    try:
        scheme.verify(request, secrets, now)
    except RequestRejected:
        return False
    return True


def adyen_body(*items: Any) -> bytes:
    return json.dumps(
        {"live": "false", "notificationItems": [{"NotificationRequestItem": one} for one in items]}
    ).encode()


def test_adyens_example() -> None:
    scheme = signatures.adyen()
    good = asked(adyen_body(ADYEN))
    assert accepts(scheme, good, [ADYEN_KEY]) and accepts(scheme, good, ["00" * 32, ADYEN_KEY])
    assert not accepts(scheme, good, ["00" * 32])
    [event] = events_of(Wire(Shop(), verify=scheme), good)
    assert (event.type, event.remote_id) == ("AUTHORISATION", "7914073381342284:AUTHORISATION:true")


@pytest.mark.parametrize(
    "items",
    [
        [],
        [ADYEN, {**ADYEN, "eventCode": "REFUND"}],
        [ADYEN, {name: value for name, value in ADYEN.items() if name != "additionalData"}],
        [{**ADYEN, "amount": {"value": 1131, "currency": "EUR"}}],
        [ADYEN, None],
        ["text"],
    ],
)
def test_every_item_has_to_be_signed(items: list[Any]) -> None:
    assert not accepts(signatures.adyen(), asked(adyen_body(*items)), [ADYEN_KEY])


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b'{"notificationItems":{}}'])
def test_a_body_without_items_is_refused(body: bytes) -> None:
    assert not accepts(signatures.adyen(), asked(body), [ADYEN_KEY])


def test_a_signature_in_any_body() -> None:
    scheme = signatures.body_hmac(
        fields=["id", "total", "paid", "none"], signature="sig", items="events.*", separator="|", encoding="hex"
    )
    digest = hmac.new(b"s", b"7|1.50|true|", "sha256").hexdigest()
    body = f'{{"events":[{{"id":7,"total":1.50,"paid":true,"none":null,"sig":"{digest}"}}]}}'.encode()
    assert accepts(scheme, asked(body), ["s"]), "numbers count as they are written"
    assert accepts(scheme, asked(body.replace(digest.encode(), digest.upper().encode())), ["s"]), "hex has no case"
    assert not accepts(scheme, asked(body.replace(b"1.50", b"1.5")), ["s"])
    whole = signatures.body_hmac(fields=["id"], signature="sig", items="events", encoding="hex")
    made = json.dumps(whole.signed({"events": [{"id": "a"}, {"id": "b"}]}, "s")).encode()
    assert accepts(whole, asked(made), ["s"]) and not accepts(whole, asked(made.replace(b'"b"', b'"c"')), ["s"])
    made = scheme.signed({"events": [{"id": "a"}, {"id": "b"}]}, "s")
    assert accepts(scheme, asked(json.dumps(made).encode()), ["s"])


@pytest.mark.parametrize(
    ("version", "request_", "signature"),
    [
        ("v1", asked(HUBSPOT_BODY), "232db2615f3d666fe21a8ec971ac7b5402d33b9a925784df3ca654d05f4817de"),
        (
            "v2",
            asked(b"", "https://www.example.com/webhook_uri", "GET"),
            "eee2dddcc73c94d699f5e395f4b9d454a069a6855fbfa152e91e88823087200e",
        ),
    ],
)
def test_hubspots_examples(version: Any, request_: WebhookRequest, signature: str) -> None:
    scheme = signatures.hubspot(version=version)
    assert scheme.sign(request_, HUBSPOT_SECRET, 0, "") == {"X-HubSpot-Signature": signature}
    signed = WebhookRequest(request_.method, request_.url, Headers({"X-HubSpot-Signature": signature}), request_.body)
    assert accepts(scheme, signed, ["other", HUBSPOT_SECRET])
    assert not accepts(scheme, signed, ["other"])
    assert not accepts(scheme, WebhookRequest("POST", URL, signed.headers, b"x"), [HUBSPOT_SECRET])


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://h.test/in?a=b%2Fc%3Ad%40e", "https://h.test/in?a=b/c:d@e"),
        ("https://h.test/in?a=%C3%A9%20x", "https://h.test/in?a=é x"),
        ("https://h.test/in?a=%C3%A9%2C", "https://h.test/in?a=%C3%A9,"),
        ("https://h.test/in?a=1", "https://h.test/in?a=1"),
    ],
)
def test_a_url_is_decoded_before_it_is_signed(url: str, signed: str) -> None:
    made = base64.b64encode(hmac.new(b"s", f"POST{signed}{{}}1000000".encode(), "sha256").digest()).decode()
    fields = {"X-HubSpot-Signature-v3": made, "X-HubSpot-Request-Timestamp": "1000000"}
    request = WebhookRequest("POST", url, Headers(fields), b"{}")
    assert accepts(signatures.hubspot(), request, ["s"])
    assert not accepts(signatures.hubspot(), request, ["s"], now=1301.0)
    assert not accepts(signatures.hubspot(), WebhookRequest("POST", url + "&x=1", request.headers, b"{}"), ["s"])


def test_a_plain_hash_of_any_form() -> None:
    scheme = signatures.plain_hash(header="X-Sig", content="{body}:{secret}", algorithm="md5", prefix="md5=")
    digest = hashlib.md5(b"{}:s").hexdigest()
    assert accepts(scheme, asked(b"{}", X_Sig=f"md5={digest}"), ["s"])
    assert not accepts(scheme, asked(b"{}", X_Sig=digest), ["s"])
    for content in ("{body}", "{secret}", "{secret}{body}{other}"):
        with pytest.raises(ConfigError):
            signatures.plain_hash(header="X-Sig", content=content)


def test_sendgrids_example() -> None:
    """From sendgrid's own library (test/eventwebhook)."""
    key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEDr2LjtURuePQzplybdC+u4CwrqDqBaWjcMMsTbhdbcwHBcepxo7yAQGhHPTnlvFYPAZFceEu/1FwCM/QmGUhA=="
    fields = {
        "X-Twilio-Email-Event-Webhook-Signature": (
            "MEUCIQCtIHJeH93Y+qpYeWrySphQgpNGNr/U+UyUlBkU6n7RAwIgJTz2C+8a8xonZGi6BpSzoQsbVRamr2nlxFDWYNH2j/0="
        ),
        "X-Twilio-Email-Event-Webhook-Timestamp": "1588788367",
    }
    body = b'{"category":"example_payload","event":"test_event","message_id":"message_id"}'
    assert accepts(signatures.sendgrid(), WebhookRequest("POST", URL, Headers(fields), body), [key], 1588788367)
    assert not accepts(
        signatures.sendgrid(), WebhookRequest("POST", URL, Headers(fields), body + b" "), [key], 1588788367
    )


def pem(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    made: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return made.decode()


@pytest.mark.parametrize(
    ("scheme", "content", "form", "document", "kind", "fields"),
    [
        (signatures.line(), b"%s", "X-Line-Signature: base64", {"events": [{"type": "message"}]}, "message", {}),
        (signatures.razorpay(), b"%s", "X-Razorpay-Signature: hex", {"event": "order.paid"}, "order.paid", {}),
        (signatures.square(), URL.encode().replace(b"%", b"%%") + b"%s", "X-Square-HmacSha256-Signature: base64", {"type": "a.b"}, "a.b", {}),
        (signatures.meta(), b"%s", "X-Hub-Signature-256: sha256=hex", {"object": "page", "entry": [{"changes": [{"field": "feed"}]}]}, "page.feed", {}),
        (signatures.linear(), b"%s", "Linear-Signature: hex", {"type": "Issue", "action": "create", "webhookTimestamp": 1000000}, "Issue.create", {}),
        (signatures.intercom(), b"%s", "X-Hub-Signature: sha1=sha1", {"topic": "user.created"}, "user.created", {}),
        (signatures.zoom(), b"v0:1000:%s", "X-Zm-Signature: v0=hex", {"event": "meeting.started"}, "meeting.started", {"X-Zm-Request-Timestamp": "1000"}),
        (signatures.paddle(), b"1000:%s", "Paddle-Signature: ts=1000;h1=hex", {"event_type": "a.b"}, "a.b", {}),
    ],
    ids=lambda one: getattr(one, "name", None),
)  # fmt: skip
def test_a_preset_takes_what_its_vendor_documents(
    scheme: Any, content: bytes, form: str, document: Any, kind: str, fields: dict[str, str]
) -> None:
    body = json.dumps(document).encode()
    digest = hmac.new(b"s", content % body, "sha1" if form.endswith("=sha1") else "sha256").digest()
    name, _, text = form.partition(": ")
    for word, value in (("base64", base64.b64encode(digest).decode()), ("hex", digest.hex())):
        if text.endswith(word):
            text = text.removesuffix(word) + value
    if text == "sha1=sha1":
        text = f"sha1={digest.hex()}"
    request = asked(body, **{name: text, **fields})
    assert accepts(scheme, request, ["s"])
    assert not accepts(scheme, request, ["t"])
    assert [event.type for event in events_of(Wire(Shop(), verify=scheme), request)] == [kind]
    made = scheme.sign(asked(body), "s", 1000.0, "e")
    assert accepts(scheme, asked(body, **made), ["s"])


def test_gitlab_repeats_its_token() -> None:
    request = asked(b'{"object_kind":"push"}', X_Gitlab_Token="s", Idempotency_Key="i")
    scheme = signatures.gitlab()
    assert accepts(scheme, request, ["s"]) and not accepts(scheme, request, ["t"])
    assert scheme.event_type is not None and scheme.event_type.find(request) == "push"


@pytest.mark.parametrize(("scheme", "key"), [(signatures.discord(), ed25519.Ed25519PrivateKey.generate()), (signatures.sendgrid(), ec.generate_private_key(ec.SECP256R1()))])  # fmt: skip
def test_public_keys_of_presets(scheme: Any, key: Any) -> None:
    fields = scheme.sign(asked(b"{}"), pem(key), 1000.0, "")
    assert accepts(scheme, asked(b"{}", **fields), [pem(key)])
    assert not accepts(scheme, asked(b"[]", **fields), [pem(key)])


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"type":1,"id":"7"}', (200, b'{"type":1}')),
        (b'{"version":1,"application_id":"1","type":0}', (204, b"")),
        (b'{"version":1,"type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}', None),
        (b'{"type":2,"data":{}}', None),
        (b"[]", None),
        (b"{", None),
    ],
)
def test_discords_ping_comes_with_its_preset(body: bytes, answer: tuple[int, bytes] | None) -> None:
    challenge = Wire(Shop(), verify=signatures.discord()).challenge
    assert challenge is not None and challenge.signed
    found = challenge.answer(asked(body), {})
    assert (None if found is None else (found.status, found.body)) == answer


def test_zooms_validation_comes_with_its_preset() -> None:
    challenge = Wire(Shop(), verify=signatures.zoom()).challenge
    body = b'{"event":"endpoint.url_validation","payload":{"plainToken":"p"}}'
    assert challenge is not None
    found = challenge.answer(asked(body), {"secret": "s\nolder"})
    assert found is not None
    assert json.loads(found.body) == {"plainToken": "p", "encryptedToken": hmac.new(b"s", b"p", "sha256").hexdigest()}
    assert challenge.answer(asked(b'{"event":"meeting.started"}'), {"secret": "s"}) is None


@pytest.mark.parametrize("written", ["Bearer s", "bearer s", "BEARER s"])
def test_the_name_of_an_authentication_scheme_has_no_case(written: str) -> None:
    scheme = signatures.token(header="Authorization", prefix="Bearer ")
    assert accepts(scheme, asked(b"{}", Authorization=written), ["s"])
    assert not accepts(scheme, asked(b"{}", Authorization=written.upper().replace(" S", " SS")), ["s"])
    keyed = signatures.hmac(header="Authorization", prefix="HMAC ")
    digest = hmac.new(b"s", b"{}", "sha256").hexdigest()
    assert accepts(keyed, asked(b"{}", Authorization=f"hmac {digest}"), ["s"])
    plain = signatures.token(header="X", prefix="Key-")
    assert not accepts(plain, asked(b"{}", X="key-s"), ["s"]), "another prefix is compared as it is"


def test_the_default_of_retries_covers_a_day() -> None:
    assert 24 * 3600 <= span_of(DEFAULT_RETRY) <= 30 * 3600
    assert span_of(Retry(attempts=1)) == 0
    assert span_of(Retry(attempts=3, backoff=4, max_backoff=6)) == 0.75 * 10
