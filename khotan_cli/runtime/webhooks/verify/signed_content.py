"""What a signature covers, as a template over the parts of a request."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.webhooks.request import WebhookRequest

Content = Callable[[WebhookRequest, str, str], Sequence[bytes]]
"""What is signed: a function of request, timestamp and id that gives the forms it may have; the first is used to sign."""

_PLACE = re.compile(rb"\{(body|timestamp|id|url|decoded_url|method)\}")
_DECODED = {
    "%3a": ":",
    "%2f": "/",
    "%3f": "?",
    "%40": "@",
    "%21": "!",
    "%24": "$",
    "%27": "'",
    "%28": "(",
    "%29": ")",
    "%2a": "*",
    "%2c": ",",
    "%3b": ";",
}
"""The escapes that HubSpot decodes (developers.hubspot.com, Validating requests, v3)."""


def decoded_urls(url: str) -> list[str]:
    """The forms of a URL that a sender may have decoded before it signed: the listed escapes, every escape, or none."""
    listed = re.sub(r"%[0-9A-Fa-f]{2}", lambda found: _DECODED.get(found[0].lower(), found[0]), url)
    return list(dict.fromkeys([listed, unquote(url), url]))


def _value(name: str, request: WebhookRequest, timestamp: str, event_id: str, decoded_url: str) -> bytes:
    if name == "body":
        return request.body
    if name == "timestamp":
        return timestamp.encode()
    if name == "id":
        return event_id.encode()
    if name == "method":
        return request.method.encode()
    return (decoded_url if name == "decoded_url" else request.url).encode()


def after_prefix(text: str, prefix: str) -> str | None:
    """The text after the prefix, None where it starts with another one. The name of an authentication scheme, a prefix that
    ends with a space, is compared without regard to case (RFC 9110 11.1)."""
    head = text[: len(prefix)]
    same = head.lower() == prefix.lower() if prefix.endswith(" ") else head == prefix
    return text[len(prefix) :] if same else None


def template(text: str) -> Content:
    """What is signed, as a text with {body}, {timestamp}, {id}, {url}, {decoded_url} and {method}. Raises ConfigError for
    another placeholder."""
    raw = text.encode()
    unknown = re.sub(_PLACE, b"", raw)
    if b"{" in unknown or b"}" in unknown:
        raise ConfigError(
            f"{text!r} is not a valid template of signed content",
            hint="Placeholders: {body}, {timestamp}, {id}, {url}, {decoded_url} and {method}.",
        )
    parts = _PLACE.split(raw)  # texts, with the names of the places between them
    texts, names = parts[::2], [name.decode() for name in parts[1::2]]
    decodes = "decoded_url" in names

    def content(request: WebhookRequest, timestamp: str, event_id: str) -> Sequence[bytes]:
        forms: list[bytes] = []
        for url in decoded_urls(request.url) if decodes else [request.url]:
            pieces = [texts[0]]
            for name, after in zip(names, texts[1:], strict=True):
                pieces += (_value(name, request, timestamp, event_id, url), after)
            forms.append(b"".join(pieces))
        return forms

    return content
