"""The general schemes, and what holds for every scheme."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from khotan_cli.errors import ConfigError
from khotan_cli.runtime import Plug, Wire
from khotan_cli.runtime.webhooks.request import Headers, RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify import signatures
from khotan_cli.runtime.webhooks.verify.schemes import Scheme
from tests.support.vectors import VECTORS

SCHEMES: dict[str, Scheme] = {name: getattr(signatures, name)() for name in VECTORS}


class Shop(Plug):
    base_url = "http://shop.invalid"


def verdict(scheme: Scheme, request: WebhookRequest, secrets: list[str], now: float) -> bool:
    try:
        scheme.verify(request, secrets, now)
    except RequestRejected:
        return False
    return True


def request(body: bytes = b'{"id":1}', **headers: str) -> WebhookRequest:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return WebhookRequest("POST", "https://hooks.example.test/in", Headers(fields), body)


def _with(fields: Mapping[str, str]) -> WebhookRequest:
    return WebhookRequest("POST", request().url, Headers(fields), request().body)


def pem(key: Any, *, private: bool = False) -> str:
    if private:
        form = serialization.PrivateFormat.PKCS8
        made: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    else:
        made = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    return made.decode()


@pytest.mark.parametrize("name", ["stripe", "github", "shopify", "slack", "twilio", "standard_webhooks", "svix"])
def test_what_a_scheme_signs_it_verifies(name: str) -> None:
    scheme: Scheme = getattr(signatures, name)()
    secret = scheme.make_secret()
    plain = request(Content_Type="application/json")
    if name == "twilio":  # vouches for the fields of forms, and of other bodies only for their hash in the URL
        plain = request(b"From=%2B1", Content_Type="application/x-www-form-urlencoded")
        assert not verdict(scheme, request(Content_Type="application/json"), [secret], 1001.0)
        with pytest.raises(RequestRejected):
            scheme.sign(request(Content_Type="application/json"), secret, 1000.0, "evt_1")
    fields = scheme.sign(plain, secret, 1000.0, "evt_1")
    signed = WebhookRequest("POST", plain.url, Headers({**plain.headers, **fields}), plain.body)
    assert verdict(scheme, signed, [secret], 1001.0)
    assert verdict(scheme, signed, [scheme.make_secret(), secret], 1001.0), "any secret may be the one, while rotating"
    assert not verdict(scheme, signed, [scheme.make_secret()], 1001.0)
    tampered = WebhookRequest("POST", plain.url, signed.headers, plain.body + b" ")
    assert not verdict(scheme, tampered, [secret], 1001.0)
    for header in fields:
        without = {field: value for field, value in signed.headers.items() if field != header.lower()}
        assert not verdict(scheme, WebhookRequest("POST", plain.url, Headers(without), plain.body), [secret], 1001.0)


@pytest.mark.parametrize("signature", ["", "v1=", "v1=00", "sha256=" + "a" * 10_000, "é", "v1,\x00"])
@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_signature_of_the_wrong_length_or_form_is_refused(name: str, signature: str) -> None:
    scheme = SCHEMES[name]
    plain = request(b"", Content_Type="application/x-www-form-urlencoded")
    fields = dict(scheme.sign(plain, scheme.make_secret(), 1000.0, "e"))
    fields[next(iter(fields))] = signature
    assert not verdict(scheme, WebhookRequest("POST", "https://h.test", Headers(fields), b"{}"), ["s"], 1000.0)


def test_hmac_with_everything() -> None:
    scheme = signatures.hmac(
        header="X-Sig",
        algorithm="sha512",
        encoding="base64",
        prefix="v2:",
        content="{id}|{timestamp}|{url}|{body}",
        separator=";",
        timestamp_header="X-Time",
        id_header="X-Id",
        tolerance=60,
        secret_encoding="hex",
        secret_prefix="key_",
    )
    secret = scheme.make_secret()
    assert secret.startswith("key_")
    fields = dict(scheme.sign(request(), secret, 5000.0, "e1"))
    fields["X-Sig"] = f"v1:no;{fields['X-Sig']}"
    signed = WebhookRequest("POST", request().url, Headers(fields), request().body)
    assert verdict(scheme, signed, [secret], 5060.0)
    assert not verdict(scheme, signed, [secret], 5061.0)
    assert not verdict(scheme, signed, [secret], 4939.0)
    assert not verdict(scheme, WebhookRequest("POST", "https://else.test", signed.headers, signed.body), [secret], 5000)
    assert not verdict(scheme, signed, ["key_zz"], 5000.0), "a secret that is not hex"


def test_hmac_with_the_time_in_the_signatures_own_header() -> None:
    scheme = signatures.hmac(
        header="Paddle-Signature", timestamp_key="ts", prefix="h1=", separator=";", content="{timestamp}:{body}"
    )
    fields = scheme.sign(request(), "s", 1000.0, "")
    made = hmac.new(b"s", b'1000:{"id":1}', "sha256").hexdigest()
    assert fields == {"Paddle-Signature": f"ts=1000;h1={made}"}
    for header, good in {
        f"ts=1000;h1={made}": True,
        f"ts=1000;h1={'0' * 64};h1={made}": True,
        f"h1={made};ts=1000": True,
        f"ts=1001;h1={made}": False,
        f"h1={made}": False,
        f"t=1000;h1={made}": False,
    }.items():
        assert verdict(scheme, request(Paddle_Signature=header), ["s"], 1010.0) == good, header
    assert not verdict(scheme, request(Paddle_Signature=f"ts=1000;h1={made}"), ["s"], 1301.0)


@pytest.mark.parametrize(
    ("form", "written", "odd"),
    [
        ("milliseconds", "1000000", ["1000", "1e6", "-1000000", "9" * 400]),
        ("iso", "1970-01-01T00:16:40Z", ["1970-01-01T00:16:40", "1000", "1970-13-01T00:16:40Z", "0" * 400]),
        ("iso", "1970-01-01T02:16:40.5+02:00", []),
    ],
)
def test_moments_in_every_form(form: Any, written: str, odd: list[str]) -> None:
    scheme = signatures.hmac(
        header="X-Sig", content="{timestamp}{body}", timestamp_header="X-Time", timestamp_format=form
    )

    def signed(timestamp: str) -> WebhookRequest:
        made = hmac.new(b"s", timestamp.encode() + request().body, "sha256").hexdigest()
        return request(X_Sig=made, X_Time=timestamp)

    assert verdict(scheme, signed(written), ["s"], 1300.0) and not verdict(scheme, signed(written), ["s"], 1302.0)
    assert not verdict(scheme, signed(written), ["s"], 699.0)
    assert not any(verdict(scheme, signed(other), ["s"], 1000.0) for other in odd)
    assert verdict(scheme, _with(scheme.sign(request(), "s", 1000.0, "")), ["s"], 1000.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"content": "{other}"},
        {"algorithm": "sha3000"},
        {"algorithm": "shake_128"},
        {"content": "{timestamp}.{body}"},
        {"content": "{id}.{body}"},
        {"timestamp_key": "t", "content": "{timestamp}{body}"},
        {"timestamp_key": "t", "prefix": "v1=", "separator": ",", "timestamp_header": "X-Time"},
        {"content": "{method} {url}"},
        {"timestamp_header": "X-Time"},
        {"timestamp_key": "t", "prefix": "v1=", "separator": ","},
        {"tolerance": -1},
        {"tolerance": float("nan")},
    ],
)
def test_options_that_cannot_hold_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        signatures.hmac(header="X-Sig", **bad)
    if "algorithm" not in bad and "timestamp_key" not in bad:
        content = {"content": "{body}", **bad}
        with pytest.raises(ConfigError):
            signatures.ecdsa(header="X-Sig", **content)
        with pytest.raises(ConfigError):
            signatures.ed25519(header="X-Sig", **content)


@pytest.mark.parametrize("methods", [[], "POST"])
def test_a_wire_that_events_cannot_come_to_is_refused(methods: Any) -> None:
    with pytest.raises(ConfigError):
        Wire(Shop(), verify=signatures.unsigned(), methods=methods)


@pytest.mark.parametrize("brand", ["svix", "webhook"])
def test_the_id_of_an_event_is_found_under_either_brand(brand: str) -> None:
    scheme = signatures.svix()
    assert scheme.event_id is not None and str(scheme.event_id) == "the header svix-id or webhook-id"
    assert scheme.event_id.find(_with({f"{brand}-id": "msg_1"})) == "msg_1"
    assert scheme.event_id.find(_with({})) is None
    # The one that is signed, where somebody sends both.
    assert scheme.event_id.find(_with({"svix-id": "msg_1", "webhook-id": "msg_2"})) == "msg_1"


def test_a_general_signature_may_have_blanks_around_it_and_capitals() -> None:
    scheme = signatures.hmac(header="X-Sig", prefix="sha256=", separator=",")
    made = hmac.new(b"s", request().body, "sha256").hexdigest()
    for header in (f"sha256={'0' * 64}, sha256={made}", f" sha256={made} ,x", f"sha256={made.upper()}"):
        assert verdict(scheme, request(X_Sig=header), ["s"], 0.0), header
    assert not verdict(scheme, request(X_Sig=f"sha256= {made}"), ["s"], 0.0)
    timed = signatures.hmac(
        header="X-Sig", timestamp_key="t", prefix="v1=", separator=",", content="{timestamp}.{body}"
    )
    made = hmac.new(b"s", b"1000." + request().body, "sha256").hexdigest()
    assert verdict(timed, request(X_Sig=f"t=1000, v1={made.upper()}"), ["s"], 1000.0)
    assert not verdict(signatures.stripe(), request(Stripe_Signature=f"t=1000, v1={made}"), ["s"], 1000.0)
    assert not verdict(signatures.stripe(), request(Stripe_Signature=f"t=1000,v1={made.upper()}"), ["s"], 1000.0)


def test_a_secret_that_cannot_be_read_leaves_the_other_one_standing(caplog: pytest.LogCaptureFixture) -> None:
    scheme = signatures.standard_webhooks()
    secret = scheme.make_secret()
    signed = _with(scheme.sign(request(), secret, 1000.0, "e1"))
    for secrets in (["whsec_!!!notbase64", secret], [secret, "whsec_!!!notbase64"], ["whsec_", secret]):
        assert verdict(scheme, signed, secrets, 1000.0)
    assert "secret 1 of 2 is skipped: the wire's secret is not valid base64" in caplog.text
    assert "notbase64" not in caplog.text
    with pytest.raises(RequestRejected, match="not valid base64"):
        scheme.verify(signed, ["whsec_!!!notbase64", "whsec_???"], 1000.0)


def test_a_public_key_that_cannot_be_read_leaves_the_other_one_standing() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    scheme = signatures.ed25519(header="X-Sig", content="{body}")
    signed = request(X_Sig=key.sign(request().body).hex())
    assert verdict(scheme, signed, ["not a key", pem(ec.generate_private_key(ec.SECP256R1())), pem(key)], 0.0)
    with pytest.raises(RequestRejected, match="not a public key"):
        scheme.verify(signed, ["not a key"], 0.0)


def test_a_secret_that_is_only_its_prefix_lets_nobody_in() -> None:
    made = base64.b64encode(hmac.new(b"", b"e1.1000.{}", "sha256").digest()).decode()
    fields = {"webhook-id": "e1", "webhook-timestamp": "1000", "webhook-signature": f"v1,{made}"}
    forged = WebhookRequest("POST", "https://h.test/in", Headers(fields), b"{}")
    assert not verdict(signatures.standard_webhooks(), forged, ["whsec_"], 1000.0)


def test_ed25519_as_discord_signs() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    scheme = signatures.ed25519(header="X-Signature-Ed25519", timestamp_header="X-Signature-Timestamp")
    body, moment = b'{"type":1}', "1000"
    signed = request(body, X_Signature_Ed25519=key.sign(moment.encode() + body).hex(), X_Signature_Timestamp=moment)
    raw = key.public_key().public_bytes_raw().hex()
    other = ed25519.Ed25519PrivateKey.generate()
    for form in (raw, pem(key), base64.b64encode(bytes.fromhex(raw)).decode()):
        assert verdict(scheme, signed, [form], 1000.0)
    assert not verdict(scheme, signed, [pem(other)], 1000.0)
    assert not verdict(scheme, signed, [raw], 2000.0)
    assert not verdict(scheme, signed, ["not a key"], 1000.0)
    assert not verdict(scheme, request(body, X_Signature_Ed25519="zz", X_Signature_Timestamp=moment), [raw], 1000.0)


@pytest.mark.parametrize("raw", [True, False])
def test_ecdsa_in_both_forms(raw: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    scheme = signatures.ecdsa(header="X-Sig", timestamp_header="X-Time", raw_signature=raw)
    fields = scheme.sign(request(), pem(key, private=True), 1000.0, "")
    signed = WebhookRequest("POST", request().url, Headers(fields), request().body)
    assert verdict(scheme, signed, [pem(key)], 1000.0)
    assert not verdict(scheme, WebhookRequest("POST", signed.url, signed.headers, b"{}"), [pem(key)], 1000.0)
    assert not verdict(scheme, signed, [pem(ec.generate_private_key(ec.SECP256R1()))], 1000.0)
    with pytest.raises(RequestRejected):
        scheme.sign(request(), pem(key), 1000.0, "")


def test_a_token_in_header_query_or_body() -> None:
    url = "https://h.test/in?key=s3cret"
    body = b'{"value":[{"clientState":"s3cret"}]}'
    whole = WebhookRequest("POST", url, Headers({"X-Gitlab-Token": "s3cret"}), body)
    bare = WebhookRequest("POST", "https://h.test/in", Headers({}), b"not json")
    for scheme in (
        signatures.token(header="X-Gitlab-Token"),
        signatures.token(query="key"),
        signatures.token(json="value.0.clientState"),
    ):
        assert verdict(scheme, whole, ["s3cret"], 0.0)
        assert not verdict(scheme, whole, ["other"], 0.0)
        assert not verdict(scheme, bare, ["s3cret"], 0.0)
