"""Signature schemes: vendors' and generic ones. `Wire(shop, verify=signatures.stripe())`.

The secret is the wire's variable `secret` (several, one per line, during a rotation), or a variable of the plug, given as
`secret=Shop.api_secret`. The raw bytes are verified. Timestamps are accepted within the tolerance in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.http.variables import Var
from khotan_cli.runtime.webhooks.verify.body_signatures import BodyHmac, PlainHash
from khotan_cli.runtime.webhooks.verify.checks import Encoding, SecretEncoding
from khotan_cli.runtime.webhooks.verify.locator import Rule
from khotan_cli.runtime.webhooks.verify.presets import (
    adyen,
    discord,
    gitlab,
    hubspot,
    intercom,
    line,
    linear,
    meta,
    paddle,
    razorpay,
    sendgrid,
    square,
    zoom,
)
from khotan_cli.runtime.webhooks.verify.schemes import Hmac, PublicKey, Token, Unsigned
from khotan_cli.runtime.webhooks.verify.signed_content import template
from khotan_cli.runtime.webhooks.verify.standard import BrandedHeader, standard_webhooks, svix
from khotan_cli.runtime.webhooks.verify.timestamps import TOLERANCE, TimestampFormat
from khotan_cli.runtime.webhooks.verify.twilio import twilio


def stripe(*, secret: Var | None = None, tolerance: float = TOLERANCE) -> Hmac:
    """Stripe-Signature (docs.stripe.com/webhooks/signature): `t=…,v1=…`, hex HMAC-SHA256 of `{t}.{body}`."""
    return Hmac(
        "stripe",
        ("Stripe-Signature",),
        template("{timestamp}.{body}"),
        prefix="v1=",
        separator=",",
        timestamp_key="t",
        tolerance=tolerance,
        secret_prefix="",
        secret=secret,
        event_id=Rule(json="id"),
        event_type=Rule(json="type"),
    )


def github(*, secret: Var | None = None) -> Hmac:
    """X-Hub-Signature-256 (docs.github.com, Validating webhook handler_runs); X-Hub-Signature with SHA-1 is not accepted.
    A form's field `payload` holds the document (Content type `application/x-www-form-urlencoded`, GitHub's default)."""
    return Hmac(
        "github",
        ("X-Hub-Signature-256",),
        template("{body}"),
        prefix="sha256=",
        secret=secret,
        event_id=Rule(header="X-GitHub-Delivery"),
        event_type=Rule(header="X-GitHub-Event"),
        envelope="payload",
    )


def shopify(*, secret: Var | None = None) -> Hmac:
    """X-Shopify-Hmac-Sha256 (shopify.dev, Verify webhooks): base64 HMAC-SHA256 of the body with the app's client secret."""
    return Hmac(
        "shopify",
        ("X-Shopify-Hmac-Sha256",),
        template("{body}"),
        encoding="base64",
        secret=secret,
        event_id=Rule(header="X-Shopify-Webhook-Id"),
        event_type=Rule(header="X-Shopify-Topic"),
    )


def slack(*, secret: Var | None = None, tolerance: float = TOLERANCE) -> Hmac:
    """X-Slack-Signature (docs.slack.dev, Verifying requests from Slack): `v0=` and hex HMAC-SHA256 of `v0:{t}:{body}`.
    A form's field `payload` holds the document of an interaction (docs.slack.dev, Handling user interaction)."""
    return Hmac(
        "slack",
        ("X-Slack-Signature",),
        template("v0:{timestamp}:{body}"),
        prefix="v0=",
        timestamp_headers=("X-Slack-Request-Timestamp",),
        tolerance=tolerance,
        secret=secret,
        event_id=Rule(json="event_id"),
        event_type=Rule(json="event.type"),
        envelope="payload",
    )


def hmac(
    *,
    header: str,
    algorithm: str = "sha256",
    encoding: Encoding = "hex",
    prefix: str = "",
    content: str = "{body}",
    separator: str | None = None,
    timestamp_header: str | None = None,
    timestamp_key: str | None = None,
    timestamp_field: str | None = None,
    timestamp_format: TimestampFormat = "seconds",
    id_header: str | None = None,
    tolerance: float | None = TOLERANCE,
    secret_encoding: SecretEncoding = "utf-8",
    secret_prefix: str = "",
    secret: Var | None = None,
) -> Hmac:
    """An HMAC in a header.

    prefix: text before the signature (`sha256=`), required. content: template of the signed content, with {body},
    {timestamp}, {id}, {url}, {decoded_url} and {method}. separator: separates several signatures in one header; any of them
    may match, and blanks around them are ignored. The timestamp is in timestamp_header; or, with timestamp_key, in the
    signature's header (`ts=…;h1=…`: timestamp_key="ts", prefix="h1=", separator=";"); or, with timestamp_field, at a dotted
    path in the signed JSON body. timestamp_format: Unix time in seconds or milliseconds, or iso (RFC 3339). tolerance: maximum
    age and lead in seconds; None: unlimited. secret_encoding: encoding of the secret after `secret_prefix` is removed. Raises
    ConfigError for invalid options.
    """
    if timestamp_key and (timestamp_header or not separator or not prefix):
        raise ConfigError(
            "signatures.hmac: timestamp_key needs prefix and separator, and no timestamp_header",
            hint='Use for example timestamp_key="t", prefix="v1=", separator=",".',
        )
    _check_content(content, timestamp=timestamp_header or timestamp_key, id=id_header)
    _check_field(timestamp_field, timestamp_header or timestamp_key)
    return Hmac(
        "hmac",
        (header,),
        template(content),
        algorithm=algorithm,
        encoding=encoding,
        prefix=prefix,
        separator=separator,
        timestamp_key=timestamp_key or "",
        timestamp_headers=(timestamp_header,) if timestamp_header else (),
        timestamp_field=timestamp_field or "",
        timestamp_format=timestamp_format,
        id_headers=(id_header,) if id_header else (),
        tolerance=tolerance,
        secret_encoding=secret_encoding,
        secret_prefix=secret_prefix,
        lenient=True,
        secret=secret,
        event_id=Rule(header=id_header) if id_header else None,
    )


def body_hmac(
    *,
    fields: Sequence[str],
    signature: str,
    items: str = "",
    separator: str = ":",
    algorithm: str = "sha256",
    encoding: Encoding = "base64",
    secret_encoding: SecretEncoding = "utf-8",
    secret_prefix: str = "",
    secret: Var | None = None,
) -> BodyHmac:
    """An HMAC of joined fields, inside the JSON body, like Adyen's.

    items: path of the signed items: `events.*` is each element of the list `events`, `events.*.item` the field `item` of
    each; empty: the whole body is one item. Every item must be signed. fields and signature: dotted paths in an item; an
    absent field counts as an empty string. Raises ConfigError for invalid options.
    """
    return BodyHmac(
        "body_hmac",
        tuple(fields),
        signature,
        items=items,
        separator=separator,
        algorithm=algorithm,
        encoding=encoding,
        secret_encoding=secret_encoding,
        secret_prefix=secret_prefix,
        secret=secret,
    )


def plain_hash(
    *,
    header: str,
    content: str = "{secret}{body}",
    algorithm: str = "sha256",
    encoding: Encoding = "hex",
    prefix: str = "",
    secret: Var | None = None,
) -> PlainHash:
    """An unkeyed hash of a text that contains the secret, like HubSpot's v1 and v2.

    content: template of the hashed text, with {secret}, {body}, {url} and {method}. Raises ConfigError if {secret} or {body}
    is missing.
    """
    return PlainHash("plain_hash", (header,), content, algorithm, encoding, prefix, secret)


def ed25519(
    *,
    header: str,
    encoding: Encoding = "hex",
    prefix: str = "",
    content: str = "{timestamp}{body}",
    timestamp_header: str | None = None,
    timestamp_field: str | None = None,
    timestamp_format: TimestampFormat = "seconds",
    tolerance: float | None = TOLERANCE,
    secret: Var | None = None,
) -> PublicKey:
    """An Ed25519 signature (RFC 8032), like Discord's. The secret is the public key in PEM, hex or base64. See `hmac`."""
    _check_content(content, timestamp=timestamp_header)
    _check_field(timestamp_field, timestamp_header)
    return PublicKey(
        "ed25519",
        header,
        template(content),
        "ed25519",
        encoding=encoding,
        prefix=prefix,
        timestamp_header=timestamp_header,
        timestamp_format=timestamp_format,
        timestamp_field=timestamp_field or "",
        tolerance=tolerance,
        secret=secret,
    )


def ecdsa(
    *,
    header: str,
    encoding: Encoding = "base64",
    prefix: str = "",
    content: str = "{timestamp}{body}",
    timestamp_header: str | None = None,
    timestamp_field: str | None = None,
    timestamp_format: TimestampFormat = "seconds",
    tolerance: float | None = TOLERANCE,
    algorithm: Literal["sha256", "sha384", "sha512"] = "sha256",
    raw_signature: bool = False,
    secret: Var | None = None,
) -> PublicKey:
    """An ECDSA signature, like SendGrid's. The secret is the public key in PEM or base64 DER. See `hmac`.

    raw_signature: r and s concatenated (IEEE P1363) instead of DER.
    """
    _check_content(content, timestamp=timestamp_header)
    _check_field(timestamp_field, timestamp_header)
    return PublicKey(
        "ecdsa",
        header,
        template(content),
        "ecdsa",
        encoding=encoding,
        prefix=prefix,
        timestamp_header=timestamp_header,
        timestamp_format=timestamp_format,
        timestamp_field=timestamp_field or "",
        tolerance=tolerance,
        algorithm=algorithm,
        raw_signature=raw_signature,
        secret=secret,
    )


def _check_field(timestamp_field: str | None, elsewhere: str | None) -> None:
    """Raises ConfigError if the timestamp is declared both in the body and in a header."""
    if timestamp_field and elsewhere:
        raise ConfigError(
            f"The timestamp is declared both in the body, at {timestamp_field!r}, and in a header",
            hint="Declare only one of them.",
        )


def _check_content(content: str, *, timestamp: str | None, id: str | None = None) -> None:
    """Raises ConfigError if the content has a placeholder without a header, or does not cover the body or the timestamp."""
    for name, header in (("timestamp", timestamp), ("id", id)):
        if f"{{{name}}}" in content and not header:
            raise ConfigError(
                f"The signed content {content!r} contains {{{name}}}, but no header is declared for it",
                hint=f'Add {name}_header="X-…", or remove {{{name}}} from content=….',
            )
    required = ["body", *(["timestamp"] if timestamp else [])]
    for name in required:
        if f"{{{name}}}" not in content:
            raise ConfigError(
                f"The signed content {content!r} does not contain {{{name}}}",
                hint=f"Add {{{name}}} to content=… where the service signs it; otherwise anyone could change it.",
            )


def token(
    *,
    header: str | None = None,
    query: str | None = None,
    json: str | None = None,
    prefix: str = "",
    secret: Var | None = None,
) -> Token:
    """A shared secret in the request: GitLab's `X-Gitlab-Token`, Microsoft Graph's `value.0.clientState`."""
    return Token("token", Rule(header=header, query=query, json=json), prefix=prefix, secret=secret)


def unsigned() -> Unsigned:
    """Accept every request without verification."""
    return Unsigned()


__all__ = [
    "BrandedHeader",
    "adyen",
    "body_hmac",
    "discord",
    "ecdsa",
    "ed25519",
    "github",
    "gitlab",
    "hmac",
    "hubspot",
    "intercom",
    "line",
    "linear",
    "meta",
    "paddle",
    "plain_hash",
    "razorpay",
    "sendgrid",
    "shopify",
    "slack",
    "square",
    "standard_webhooks",
    "stripe",
    "svix",
    "token",
    "twilio",
    "unsigned",
    "zoom",
]
