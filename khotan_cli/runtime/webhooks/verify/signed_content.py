"""Signed content: a template of request parts that a signature covers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.webhooks.request import WebhookRequest

Content = Callable[[WebhookRequest, str, str], Sequence[bytes]]
"""A function of request, timestamp and id that returns the possible forms of the signed content. The first is used to sign."""

_PLACEHOLDER = re.compile(rb"\{(body|timestamp|id|url|decoded_url|method)\}")
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
    """Return the forms of a URL that a sender may sign: the listed escapes decoded, all decoded, or none."""
    listed = re.sub(r"%[0-9A-Fa-f]{2}", lambda escape: _DECODED.get(escape[0].lower(), escape[0]), url)
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
    """Return the text after the prefix, or None if the text does not start with it.

    A prefix that ends with a space is the name of an authentication scheme and is case-insensitive (RFC 9110 11.1).
    """
    head = text[: len(prefix)]
    same = head.lower() == prefix.lower() if prefix.endswith(" ") else head == prefix
    return text[len(prefix) :] if same else None


def template(text: str) -> Content:
    """Parse a template with {body}, {timestamp}, {id}, {url}, {decoded_url} and {method}.

    Raises ConfigError for any other placeholder.
    """
    raw = text.encode()
    unknown = re.sub(_PLACEHOLDER, b"", raw)
    if b"{" in unknown or b"}" in unknown:
        raise ConfigError(
            f"Invalid template of signed content {text!r}",
            hint="Use only the placeholders {body}, {timestamp}, {id}, {url}, {decoded_url} and {method}.",
        )
    parts = _PLACEHOLDER.split(raw)  # literal texts alternate with placeholder names
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
