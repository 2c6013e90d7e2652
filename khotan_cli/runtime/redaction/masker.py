"""Masks secrets in everything that is shown or logged."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

import httpx

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
_SCHEMES = frozenset({"basic", "bearer", "digest", "token", "negotiate", "hmac", "apikey", "aws4-hmac-sha256"})
_SHOWN_FROM = 12
"""Secrets shorter than this are masked completely."""
SHORTEST_REPLACED = 4
"""Secrets shorter than this are not searched in texts, because they would match everywhere."""


def mask_secret(value: str) -> str:
    """`••••1234` for a secret of twelve characters or more, `••••` for a shorter one."""
    return BULLETS + value[-4:] if len(value) >= _SHOWN_FROM else BULLETS


def mask_header(value: str) -> str:
    """`Bearer ••••`: only the scheme of a credential. Even the end of a Base64 text would reveal the end of a secret."""
    scheme, space, _ = value.partition(" ")
    return f"{scheme} {BULLETS}" if space and scheme.lower() in _SCHEMES else BULLETS


class Masker:
    """Replaces known secrets in texts, JSON values and headers.

    Also replaces their percent-encoded, JSON, repr, HTML and Base64 forms, in Base64 also as part of a longer text.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= SHORTEST_REPLACED}
        replaced: dict[str, str] = {}
        self._encoded: list[str] = []
        short = [secret for secret in known if len(secret) < _SHOWN_FROM]
        for secret in known:
            shown = mask_secret(secret)
            # The last characters of `user:pass` may be the whole password.
            if ":" in secret or any(other != secret and other in secret for other in short):
                shown = BULLETS
            for form in _forms(secret):
                replaced.setdefault(form, shown)
            self._encoded += _base64_cores(secret)
        # Longest first, so that a secret that contains another is replaced whole.
        self._replaced = sorted(replaced.items(), key=lambda pair: -len(pair[0]))

    def text(self, text: str) -> str:
        for form, shown in self._replaced:
            if form in text:
                text = text.replace(form, shown)
        for core in self._encoded:
            if core in text:
                text = _around(core).sub(BULLETS, text)
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
        """Headers with credentials masked completely, and known secrets masked in the other headers."""
        return {
            name: mask_header(value) if name.lower() in SENSITIVE_HEADERS else self.text(value)
            for name, value in headers.items()
        }


@lru_cache(maxsize=2048)
def _forms(secret: str) -> frozenset[str]:
    """The forms of a secret in texts: plain, in URLs, forms, JSON (also nested JSON), repr and HTML."""
    data = secret.encode("utf-8", "surrogatepass")
    percent = {quote(data, safe=safe) for safe in ("", "/", "~", ":@!$&'()*+,;=/?")} | {quote_plus(data)}
    percent |= {quote(text, safe="") for text in percent}  # a URL inside a URL
    markup = html.escape(secret)
    forms = {secret, markup, html.escape(secret, quote=False), *percent}
    forms |= {markup.replace("&#x27;", "&#39;").replace("&quot;", mark) for mark in ("&quot;", "&#34;")}
    forms |= {markup.replace("&#x27;", "&apos;")}
    forms |= {re.sub("%..", lambda found: found.group().lower(), text) for text in percent}
    for plain in (True, False):
        inside = json.dumps(secret, ensure_ascii=plain)[1:-1]
        slashes = inside.replace("/", "\\/")  # as PHP writes it
        forms |= {inside, slashes, json.dumps(inside, ensure_ascii=plain)[1:-1]}
        # HTML-safe JSON: Go escapes some characters, .NET more and with capital digits; and JSON as repr shows it.
        forms |= {_escaped(inside, "&<>", "04x"), _escaped(inside.replace('\\"', '"'), "&<>+`'\"", "04X")}
        forms |= {
            repr(f"'{inside}\"")[3:-2].removesuffix("\\"),
            repr(inside)[1:-1],
            repr(f"'{inside}\"".encode())[4:-2],
        }
    forms |= {repr(secret)[1:-1], ascii(secret)[1:-1], repr(data)[2:-1], repr([secret, "'\""])[2:].split(", ")[0][:-1]}
    forms |= {secret.replace("'", "\\'"), secret.replace('"', '\\"'), _unicode_escapes(secret)}
    return frozenset(form for form in forms if len(form) >= SHORTEST_REPLACED)


def _escaped(inside: str, characters: str, digits: str) -> str:
    """JSON text with the characters written as `\\u0026`."""
    return "".join(f"\\u{ord(char):{digits}}" if char in characters else char for char in inside)


def _unicode_escapes(secret: str) -> str:
    """JSON with capital hexadecimal digits, as some services write it."""
    escaped = json.dumps(secret)[1:-1]
    return re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found.group()[2:].upper(), escaped)


@lru_cache(maxsize=2048)
def _base64_cores(secret: str) -> frozenset[str]:
    """The Base64 characters of a secret, for each offset at which it can begin in the encoded bytes (RFC 4648 4, 5)."""
    data = secret.encode("utf-8", "surrogatepass")
    cores: set[str] = set()
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + data).decode()
        core = encoded[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]
        cores |= {core, core.replace("+", "-").replace("/", "_")}
    return frozenset(core for core in cores if len(core) >= SHORTEST_REPLACED)


def _around(core: str) -> re.Pattern[str]:
    """A pattern for the whole Base64 text around a core, whose edges decode to parts of the secret."""
    return re.compile(rf"[A-Za-z0-9+/_-]*{re.escape(core)}[A-Za-z0-9+/_-]*={{0,2}}")


def masker_of(response: httpx.Response) -> Masker:
    """The masker of a response's call; one without secrets for a response that khotan did not receive."""
    make: Callable[[], Masker] = response.extensions.get(EXTENSION, Masker)
    return make()


EXTENSION = "khotan.masker"
"""Extension of a response: a function that creates the masker of its call. Tokens may be renewed after the response."""
