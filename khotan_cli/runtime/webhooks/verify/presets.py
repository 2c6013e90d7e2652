"""Signature schemes of further vendors, from the vendors' documentation."""

from __future__ import annotations

from typing import Literal

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.http.variables import Var
from khotan_cli.runtime.webhooks.verify import challenges
from khotan_cli.runtime.webhooks.verify.body_signatures import BodyHmac, PlainHash
from khotan_cli.runtime.webhooks.verify.locator import Joined, Rule, joined
from khotan_cli.runtime.webhooks.verify.schemes import Hmac, PublicKey, Token
from khotan_cli.runtime.webhooks.verify.signed_content import template
from khotan_cli.runtime.webhooks.verify.timestamps import TOLERANCE


def adyen(*, secret: Var | None = None) -> BodyHmac:
    """Adyen standard webhooks (docs.adyen.com, Verify HMAC signatures): `additionalData.hmacSignature` of each item, base64
    HMAC-SHA256 of eight of its fields; the secret is the hexadecimal HMAC key.

    Each NotificationRequestItem is an event. Adyen has no event id: pspReference, eventCode and success identify an event.
    """
    fields = (
        "pspReference",
        "originalReference",
        "merchantAccountCode",
        "merchantReference",
        "amount.value",
        "amount.currency",
        "eventCode",
        "success",
    )
    rules = tuple(Rule(json=name) for name in ("pspReference", "eventCode", "success"))
    return BodyHmac(
        "adyen",
        fields,
        "additionalData.hmacSignature",
        items="notificationItems.*.NotificationRequestItem",
        secret_encoding="hex",
        secret=secret,
        event_id=Joined(rules=rules, separator=":"),
        event_type=rules[1],
    )


def discord(*, secret: Var | None = None, tolerance: float = TOLERANCE) -> PublicKey:
    """X-Signature-Ed25519 over timestamp and body (discord.com/developers/docs, Interactions overview and Webhook Events).
    The secret is the application's public key. PINGs are answered."""
    return PublicKey(
        "discord",
        "X-Signature-Ed25519",
        template("{timestamp}{body}"),
        "ed25519",
        timestamp_header="X-Signature-Timestamp",
        tolerance=tolerance,
        secret=secret,
        event_id=Rule(json="id"),
        event_type=Rule(json="event.type"),
        challenge=challenges.discord(),
    )


def hubspot(
    *, version: Literal["v1", "v2", "v3"] = "v3", secret: Var | None = None, tolerance: float = TOLERANCE
) -> Hmac | PlainHash:
    """HubSpot (developers.hubspot.com, Validating requests): v3 is X-HubSpot-Signature-v3, base64 HMAC-SHA256 of method,
    decoded URL, body and timestamp in milliseconds; v1 and v2 are X-HubSpot-Signature, a plain SHA-256 that starts with the
    client secret.

    A body is a list of notifications (developers.hubspot.com, Webhooks API), each of which is an event. eventId is not unique
    there, and attemptNumber changes with each attempt: eventId, subscriptionId, objectId and occurredAt identify an event.
    v2 and v3 sign the public URL: behind a proxy, set KHOTAN_PUBLIC_URL. Raises ConfigError for another version.
    """
    event_type = Rule(json="subscriptionType")
    event_id = joined("eventId", "subscriptionId", "objectId", "occurredAt", separator=":")
    if version == "v3":
        return Hmac(
            "hubspot",
            ("X-HubSpot-Signature-v3",),
            template("{method}{decoded_url}{body}{timestamp}"),
            encoding="base64",
            timestamp_headers=("X-HubSpot-Request-Timestamp",),
            timestamp_format="milliseconds",
            tolerance=tolerance,
            secret=secret,
            event_id=event_id,
            event_type=event_type,
            items="*",
        )
    contents = {"v1": "{secret}{body}", "v2": "{secret}{method}{url}{body}"}
    if version not in contents:
        raise ConfigError(f"Unknown HubSpot signature version {version!r}", hint="Use v1, v2 or v3.")
    header = ("X-HubSpot-Signature",)
    return PlainHash(
        f"hubspot-{version}",
        header,
        contents[version],
        secret=secret,
        event_id=event_id,
        event_type=event_type,
        items="*",
    )


def line(*, secret: Var | None = None) -> Hmac:
    """X-Line-Signature (developers.line.biz, Verify webhook signature): base64 HMAC-SHA256 of the body with the channel
    secret. Each element of `events` is an event (developers.line.biz, Receive messages: Webhook event objects)."""
    return Hmac(
        "line",
        ("X-Line-Signature",),
        template("{body}"),
        encoding="base64",
        secret=secret,
        event_id=Rule(json="webhookEventId"),
        event_type=Rule(json="type"),
        items="events",
    )


def paddle(*, secret: Var | None = None, tolerance: float = TOLERANCE) -> Hmac:
    """Paddle-Signature (developer.paddle.com, Verify webhook signatures): `ts=…;h1=…`, hex HMAC-SHA256 of `{ts}:{body}`."""
    return Hmac(
        "paddle",
        ("Paddle-Signature",),
        template("{timestamp}:{body}"),
        prefix="h1=",
        separator=";",
        timestamp_key="ts",
        tolerance=tolerance,
        secret=secret,
        event_id=Rule(json="event_id"),
        event_type=Rule(json="event_type"),
    )


def razorpay(*, secret: Var | None = None) -> Hmac:
    """X-Razorpay-Signature (razorpay.com/docs/webhooks/validate-test): hex HMAC-SHA256 of the body."""
    return Hmac(
        "razorpay",
        ("X-Razorpay-Signature",),
        template("{body}"),
        secret=secret,
        event_id=Rule(header="X-Razorpay-Event-Id"),
        event_type=Rule(json="event"),
    )


def sendgrid(*, secret: Var | None = None, tolerance: float = TOLERANCE) -> PublicKey:
    """X-Twilio-Email-Event-Webhook-Signature (twilio.com/docs/sendgrid, Event Webhook Security Features): ECDSA over timestamp
    and body. The secret is the verification key. A body is a list of events; `sg_event_id` is the id of each
    (twilio.com/docs/sendgrid, Event Webhook Reference)."""
    return PublicKey(
        "sendgrid",
        "X-Twilio-Email-Event-Webhook-Signature",
        template("{timestamp}{body}"),
        "ecdsa",
        encoding="base64",
        timestamp_header="X-Twilio-Email-Event-Webhook-Timestamp",
        tolerance=tolerance,
        secret=secret,
        event_id=Rule(json="sg_event_id"),
        event_type=Rule(json="event"),
        items="*",
    )


def square(*, secret: Var | None = None) -> Hmac:
    """X-Square-HmacSha256-Signature (developer.squareup.com/docs/webhooks/step3validate): base64 HMAC-SHA256 of the
    notification URL and the body. Behind a proxy, set KHOTAN_PUBLIC_URL."""
    return Hmac(
        "square",
        ("X-Square-HmacSha256-Signature",),
        template("{url}{body}"),
        encoding="base64",
        secret=secret,
        event_id=Rule(json="event_id"),
        event_type=Rule(json="type"),
    )


def meta(*, secret: Var | None = None) -> Hmac:
    """X-Hub-Signature-256 (developers.facebook.com/docs/graph-api/webhooks): hex HMAC-SHA256 of the body with the app secret.
    The GET challenge is answered with the variable `verify_token`. The type is `object`, or `object.field`."""
    return Hmac(
        "meta",
        ("X-Hub-Signature-256",),
        template("{body}"),
        prefix="sha256=",
        secret=secret,
        event_type=joined("object", "entry.0.changes.0.field"),
        challenge=challenges.meta(),
    )


def gitlab(*, secret: Var | None = None) -> Token:
    """X-Gitlab-Token (docs.gitlab.com, Webhooks): the secret token, repeated. For a signing token use `standard_webhooks`."""
    return Token(
        "gitlab",
        Rule(header="X-Gitlab-Token"),
        secret=secret,
        event_id=Rule(header="Idempotency-Key"),
        event_type=Rule(json="object_kind"),
    )


def linear(*, secret: Var | None = None, tolerance: float = 60.0) -> Hmac:
    """Linear-Signature (linear.app/developers/webhooks, Securing webhooks): hex HMAC-SHA256 of the body. The body's
    `webhookTimestamp`, in milliseconds, must be within a minute, as in Linear's own SDK. The type is `type.action`."""
    return Hmac(
        "linear",
        ("Linear-Signature",),
        template("{body}"),
        secret=secret,
        timestamp_field="webhookTimestamp",
        timestamp_format="milliseconds",
        tolerance=tolerance,
        event_id=Rule(header="Linear-Delivery"),
        event_type=joined("type", "action"),
    )


def intercom(*, secret: Var | None = None) -> Hmac:
    """X-Hub-Signature (developers.intercom.com/docs/webhooks): `sha1=` and hex HMAC-SHA1 of the body with the client secret."""
    return Hmac(
        "intercom",
        ("X-Hub-Signature",),
        template("{body}"),
        algorithm="sha1",
        prefix="sha1=",
        secret=secret,
        event_id=Rule(json="id"),
        event_type=Rule(json="topic"),
    )


def zoom(*, secret: Var | None = None, tolerance: float = TOLERANCE) -> Hmac:
    """X-Zm-Signature (developers.zoom.us/docs/api/webhooks): `v0=` and hex HMAC-SHA256 of `v0:{timestamp}:{body}` with the
    secret token. The URL validation is answered."""
    return Hmac(
        "zoom",
        ("X-Zm-Signature",),
        template("v0:{timestamp}:{body}"),
        prefix="v0=",
        timestamp_headers=("X-Zm-Request-Timestamp",),
        tolerance=tolerance,
        secret=secret,
        event_type=Rule(json="event"),
        challenge=challenges.zoom(),
    )
