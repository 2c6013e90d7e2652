"""Signatures other than an HMAC header: HMACs inside the body, one per item, and plain hashes of secret and request."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets as random_secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.content.json_path import dig
from khotan_cli.runtime.http.variables import Var
from khotan_cli.runtime.webhooks.items import EACH, check_items
from khotan_cli.runtime.webhooks.request import RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify.challenges import Challenge
from khotan_cli.runtime.webhooks.verify.checks import Encoding, SecretEncoding, decoded_secret, required, usable
from khotan_cli.runtime.webhooks.verify.locator import Rule
from khotan_cli.runtime.webhooks.verify.signed_content import Content, after_prefix, template


@dataclass(frozen=True)
class BodyHmac:
    """A keyed hash inside the JSON body, over some of its fields. See `signatures.body_hmac` for the options."""

    name: str
    fields: tuple[str, ...]
    signature: str
    items: str = ""
    separator: str = ":"
    algorithm: str = "sha256"
    encoding: Encoding = "base64"
    secret_encoding: SecretEncoding = "utf-8"
    secret_prefix: str = ""
    secret: Var | None = None
    event_id: Rule | None = None
    event_type: Rule | None = None
    envelope: str | None = None
    challenge: Challenge | None = None

    def __post_init__(self) -> None:
        check_algorithm(self.algorithm)
        check_items(self.items)
        if not self.fields or not self.signature:
            raise ConfigError(
                f"{self.name} needs fields=… and signature=…", hint="Both are dotted paths in the JSON body."
            )

    def verify(self, request: WebhookRequest, secrets: Sequence[str], now: float) -> None:
        try:
            document = json.loads(request.content, parse_int=str, parse_float=str)  # numbers as written
        except (ValueError, RecursionError):
            raise RequestRejected("the body is not JSON and has no signature") from None
        items = self._items(document)
        if not items:
            raise RequestRejected(f"the body has no items at {self.items}")
        keys = usable(
            self.name, secrets, lambda secret: decoded_secret(secret, self.secret_encoding, self.secret_prefix)
        )
        for number, item in enumerate(items, 1):
            signature = dig(item, self.signature)
            if not isinstance(signature, str) or not signature:
                raise RequestRejected(f"item {number} has no signature at {self.signature}")
            if self.encoding == "hex":
                signature = signature.lower()
            matched = False
            for key in keys:
                matched |= hmac.compare_digest(self._signature(key, item), signature.encode("utf-8", "replace"))
            if not matched:
                raise RequestRejected(f"the signature of item {number} does not match with any of the wire's secrets")

    def sign(self, request: WebhookRequest, secret: str, now: float, event_id: str) -> Mapping[str, str]:
        """Return no header fields: the signature is in the body (see `signed`)."""
        return {}

    def signed(self, document: Any, secret: str) -> Any:
        """Return a copy of the document with a signature in each item. Raises RequestRejected if it has no items."""
        copy = json.loads(json.dumps(document))
        items = self._items(copy)
        if not items or not all(isinstance(item, dict) for item in items):
            raise RequestRejected(f"the body needs items at {self.items or 'the top level'} to be signed")
        key = decoded_secret(secret, self.secret_encoding, self.secret_prefix)
        for item in items:
            node, *path = [item, *self.signature.split(".")]
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = self._signature(key, item).decode()
        return copy

    def make_secret(self) -> str:
        raw = random_secrets.token_bytes(32)
        text = base64.b64encode(raw).decode() if self.secret_encoding == "base64" else raw.hex()
        return self.secret_prefix + text

    def _items(self, document: Any) -> list[Any]:
        """Return the signed items.

        `a.*.b` is the field b of each element of the list a; `a` is each element of a; an empty path is the whole document.
        """
        nodes = [document]
        for part in self.items.split(".") if self.items else []:
            if part == "*":
                nodes = [element for node in nodes if isinstance(node, list) for element in node]
            else:
                nodes = [dig(node, part) for node in nodes]
        if any(node is None for node in nodes):
            return []
        if not self.items or self.items.split(".")[-1] == EACH:
            return nodes
        return [item for node in nodes for item in (node if isinstance(node, list) else [node])]

    def _signature(self, key: bytes, item: Any) -> bytes:
        content = self.separator.join(_text(dig(item, path)) for path in self.fields)
        digest = hmac.new(key, content.encode(errors="surrogatepass"), self.algorithm).digest()
        return digest.hex().encode() if self.encoding == "hex" else base64.b64encode(digest)


@dataclass(frozen=True)
class PlainHash:
    """An unkeyed hash of a text that contains the secret. See `signatures.plain_hash` for the options."""

    name: str
    headers: tuple[str, ...]
    text: str
    algorithm: str = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    secret: Var | None = None
    event_id: Rule | None = None
    event_type: Rule | None = None
    envelope: str | None = None
    challenge: Challenge | None = None
    items: str = ""
    _parts: tuple[Content, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_algorithm(self.algorithm)
        if "{secret}" not in self.text or "{body}" not in self.text:
            raise ConfigError(
                f"The hashed content {self.text!r} must contain {{secret}} and {{body}}",
                hint='Use content such as "{secret}{method}{url}{body}".',
            )
        object.__setattr__(self, "_parts", tuple(template(part) for part in self.text.split("{secret}")))

    def verify(self, request: WebhookRequest, secrets: Sequence[str], now: float) -> None:
        signature = after_prefix(required(request.headers, *self.headers), self.prefix)
        if not signature:
            raise RequestRejected(f"the header {self.headers[0]} has no signature of this scheme")
        if self.encoding == "hex":
            signature = signature.lower()
        matched = False
        for key in usable(self.name, secrets, lambda secret: decoded_secret(secret, "utf-8", "")):
            matched |= hmac.compare_digest(self._signature(request, key), signature.encode("utf-8", "replace"))
        if not matched:
            raise RequestRejected("the signature does not match the request with any of the wire's secrets")

    def sign(self, request: WebhookRequest, secret: str, now: float, event_id: str) -> Mapping[str, str]:
        signature = self._signature(request, decoded_secret(secret, "utf-8", "")).decode()
        return {self.headers[0]: f"{self.prefix}{signature}"}

    def make_secret(self) -> str:
        return random_secrets.token_hex(32)

    def _signature(self, request: WebhookRequest, secret: bytes) -> bytes:
        content = secret.join(part(request, "", "")[0] for part in self._parts)
        digest = hashlib.new(self.algorithm, content).digest()
        return digest.hex().encode() if self.encoding == "hex" else base64.b64encode(digest)


def check_algorithm(algorithm: str) -> None:
    """Raises ConfigError if HMAC cannot use the hash algorithm."""
    try:
        hmac.new(b"key", b"", algorithm).digest()
    except (ValueError, TypeError):
        raise ConfigError(
            f"Invalid hash algorithm {algorithm!r} for HMAC", hint="Use sha256, sha512, sha1, …"
        ) from None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
