"""Twilio's signature of the URL and the sorted form."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from khotan_cli.runtime.http.variables import Var
from khotan_cli.runtime.webhooks.request import WebhookRequest
from khotan_cli.runtime.webhooks.verify.locator import Rule
from khotan_cli.runtime.webhooks.verify.schemes import Hmac


def twilio(*, secret: Var | None = None) -> Hmac:
    """X-Twilio-Signature (twilio.com/docs/usage/security): base64 HMAC-SHA1 of the URL and the sorted form.

    The URL is the public URL: behind a proxy, set KHOTAN_PUBLIC_URL. There is no timestamp, so only the event's id protects
    against replayed requests.
    """
    return Hmac(
        "twilio",
        ("X-Twilio-Signature",),
        _twilio_content,
        algorithm="sha1",
        encoding="base64",
        secret=secret,
        event_id=Rule(header="I-Twilio-Idempotency-Token"),
        event_type=Rule(form="EventType"),
    )


def _twilio_content(request: WebhookRequest, timestamp: str, event_id: str) -> Sequence[bytes]:
    declared = request.query.get("bodySHA256")
    tail = ""
    if declared is not None:
        if declared.lower() != hashlib.sha256(request.body).hexdigest():
            return []
    elif request.body and not request.form:
        return []  # the signature would not cover the body
    else:
        # A repeated field counts once per distinct value.
        tail = "".join(name + value for name, value in sorted(set(request.form)))
    # Twilio signs the URL with the port or without it, depending on the product.
    return [(url + tail).encode() for url in _with_and_without_port(request.url)]


def _with_and_without_port(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return [url]  # the sender's Host header is invalid
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    forms = [url, urlunsplit(parts._replace(netloc=host)), urlunsplit(parts._replace(netloc=f"{host}:{port}"))]
    return list(dict.fromkeys(forms))
