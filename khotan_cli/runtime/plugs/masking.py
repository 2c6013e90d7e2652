"""Keeps secrets out of whatever is shown or logged."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

BULLETS = "••••"
SENSITIVE_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "api-key",
        "x-auth-token",
        "x-access-token",
    }
)
SHORTEST_REPLACED = 4
"""A secret of fewer characters is not searched for in texts: it would match everywhere."""


def mask_secret(value: str) -> str:
    """`••••1234` for a secret of twelve characters or more, `••••` for a shorter one."""
    return BULLETS + value[-4:] if len(value) >= 12 else BULLETS


class Masker:
    """Replaces known secrets, also in their percent-encoded and Base64 forms, in texts, JSON values and headers."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        replaced: dict[str, str] = {}
        for secret in secrets:
            if len(secret) < SHORTEST_REPLACED:
                continue
            shown = mask_secret(secret)
            encoded = base64.b64encode(secret.encode()).decode()
            for form in (secret, quote(secret, safe=""), quote(secret), quote_plus(secret), encoded):
                replaced[form] = shown
        # Longest first, so that a secret that contains another is replaced whole.
        self._replaced = sorted(replaced.items(), key=lambda pair: -len(pair[0]))

    def text(self, text: str) -> str:
        for form, shown in self._replaced:
            if form in text:
                text = text.replace(form, shown)
        return text

    def value(self, value: Any) -> Any:
        """A copy of a JSON value with every string masked, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Headers with those that carry credentials masked whole, known secrets masked in the rest."""
        return {
            name: mask_secret(value) if name.lower() in SENSITIVE_HEADERS else self.text(value)
            for name, value in headers.items()
        }
