"""Signature schemes: how signatures are created and compared. No I/O; comparisons take constant time."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.http.variables import Var
from khotan_cli.runtime.webhooks.request import RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify.challenges import Challenge
from khotan_cli.runtime.webhooks.verify.checks import (
    Encoding,
    SecretEncoding,
    check_body_time,
    check_time,
    decoded_secret,
    required,
    usable,
)
from khotan_cli.runtime.webhooks.verify.locator import Rule
from khotan_cli.runtime.webhooks.verify.signed_content import Content, after_prefix
from khotan_cli.runtime.webhooks.verify.timestamps import (
    TOLERANCE,
    TimestampFormat,
    check_tolerance,
    timestamp_of,
)


class Scheme(Protocol):
    """A way to sign requests. `event_id`: location of an id that is the same for every attempt.

    A scheme may also have `envelope`, the form field that holds the vendor's JSON document; `items`, the path of the list in
    the body whose elements are the events; and `challenge`, the vendor's endpoint validation.
    """

    @property
    def name(self) -> str: ...
    @property
    def secret(self) -> Var | None: ...
    @property
    def event_id(self) -> Rule | None: ...
    @property
    def event_type(self) -> Rule | None: ...

    def verify(self, request: WebhookRequest, secrets: Sequence[str], now: float) -> None:
        """Raises RequestRejected unless one of the secrets signed this request at about this time (Unix seconds)."""
        ...

    def sign(self, request: WebhookRequest, secret: str, now: float, event_id: str) -> Mapping[str, str]:
        """Return the header fields that sign the request."""
        ...

    def make_secret(self) -> str:
        """Return a new secret, for services that accept one."""
        ...


@dataclass(frozen=True)
class Hmac:
    """An HMAC of the request. See `signatures.hmac` for the options.

    lenient: accept blanks around each of several signatures, and upper-case hexadecimal digits.
    """

    name: str
    headers: tuple[str, ...]
    content: Content
    algorithm: str = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    separator: str | None = None
    timestamp_key: str = ""
    timestamp_headers: tuple[str, ...] = ()
    timestamp_format: TimestampFormat = "seconds"
    id_headers: tuple[str, ...] = ()
    tolerance: float | None = TOLERANCE
    secret_encoding: SecretEncoding = "utf-8"
    secret_prefix: str = ""
    lenient: bool = False
    secret: Var | None = None
    event_id: Rule | None = None
    event_type: Rule | None = None
    envelope: str | None = None
    challenge: Challenge | None = None
    items: str = ""
    timestamp_field: str = ""
    timed: bool = field(init=False)

    def __post_init__(self) -> None:
        try:
            hmac.new(b"key", b"", self.algorithm).digest()
        except (ValueError, TypeError):
            message = f"Invalid hash algorithm {self.algorithm!r} for HMAC"
            raise ConfigError(message, hint="Use sha256, sha512, sha1, …") from None
        check_tolerance(self.name, self.tolerance)
        object.__setattr__(self, "timed", bool(self.timestamp_headers) or bool(self.timestamp_key))

    def verify(self, request: WebhookRequest, secrets: Sequence[str], now: float) -> None:
        signatures, timestamp = self._signatures(required(request.headers, *self.headers))
        if self.timestamp_headers:
            timestamp = required(request.headers, *self.timestamp_headers)
        event_id = required(request.headers, *self.id_headers) if self.id_headers else ""
        if not signatures:
            raise RequestRejected(f"the header {self.headers[0]} has no signature of this scheme")
        if self.timed:
            check_time(timestamp, now, self.tolerance, self.timestamp_format)
        matched = False
        for key in usable(
            self.name, secrets, lambda secret: decoded_secret(secret, self.secret_encoding, self.secret_prefix)
        ):
            for content in self.content(request, timestamp, event_id):
                expected = self._digest(key, content)
                for signature in signatures:  # compare all, so that the duration reveals nothing
                    matched |= hmac.compare_digest(expected, signature.encode("utf-8", "replace"))
        if not matched:
            raise RequestRejected("the signature does not match the body with any of the wire's secrets")
        if self.timestamp_field:
            check_body_time(request, self.timestamp_field, now, self.tolerance, self.timestamp_format)

    def _signatures(self, header: str) -> tuple[list[str], str]:
        """Return the header's signatures of this scheme, and its timestamp, or an empty string."""
        parts = [header] if self.separator is None else header.split(self.separator)
        if self.lenient:
            parts = [part.strip() for part in parts]
        if not self.timestamp_key:
            values = [after_prefix(part, self.prefix) for part in parts]
            return [self._normalized(value) for value in values if value is not None], ""
        fields = [part.partition("=")[::2] for part in parts]
        key = self.prefix.removesuffix("=")
        stamp = next((value for name, value in fields if name == self.timestamp_key), "")
        return [self._normalized(value) for name, value in fields if name == key], stamp

    def _normalized(self, signature: str) -> str:
        return signature.lower() if self.lenient and self.encoding == "hex" else signature

    def _digest(self, key: bytes, content: bytes) -> bytes:
        digest = hmac.new(key, content, self.algorithm).digest()
        return digest.hex().encode() if self.encoding == "hex" else base64.b64encode(digest)

    def sign(self, request: WebhookRequest, secret: str, now: float, event_id: str) -> Mapping[str, str]:
        timestamp, fields = timestamp_of(now, self.timestamp_format), dict[str, str]()
        key = decoded_secret(secret, self.secret_encoding, self.secret_prefix)
        contents = self.content(request, timestamp, event_id)
        if not contents:
            raise RequestRejected(f"{self.name} cannot sign this request")
        signature = self._digest(key, contents[0]).decode()
        stamp = f"{self.timestamp_key}={timestamp}{self.separator}" if self.timestamp_key else ""
        fields[self.headers[0]] = f"{stamp}{self.prefix}{signature}"
        if self.timestamp_headers:
            fields[self.timestamp_headers[0]] = timestamp
        if self.id_headers:
            fields[self.id_headers[0]] = event_id
        return fields

    def make_secret(self) -> str:
        raw = secrets.token_bytes(32)
        if self.secret_encoding == "base64":
            return self.secret_prefix + base64.b64encode(raw).decode()
        return self.secret_prefix + raw.hex()


@dataclass(frozen=True)
class PublicKey:
    """A public-key signature. The wire's secret is the public key, in PEM, hex or base64."""

    name: str
    header: str
    content: Content
    kind: Literal["ed25519", "ecdsa"]
    encoding: Encoding = "hex"
    prefix: str = ""
    timestamp_header: str | None = None
    timestamp_format: TimestampFormat = "seconds"
    tolerance: float | None = TOLERANCE
    algorithm: str = "sha256"
    raw_signature: bool = False
    secret: Var | None = None
    event_id: Rule | None = None
    event_type: Rule | None = None
    challenge: Challenge | None = None
    items: str = ""
    timestamp_field: str = ""

    def __post_init__(self) -> None:
        check_tolerance(self.name, self.tolerance)

    def verify(self, request: WebhookRequest, secrets: Sequence[str], now: float) -> None:
        from khotan_cli.runtime.webhooks.verify.public_keys import matches, public_key

        header = required(request.headers, self.header)
        timestamp = ""
        if self.timestamp_header:
            timestamp = required(request.headers, self.timestamp_header)
            check_time(timestamp, now, self.tolerance, self.timestamp_format)
        text = after_prefix(header, self.prefix)
        if text is None:
            raise RequestRejected(f"the header {self.header} has no signature of this scheme")
        try:
            signature = bytes.fromhex(text) if self.encoding == "hex" else base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            raise RequestRejected(f"the signature is not valid {self.encoding}") from None
        keys = usable(self.name, secrets, lambda secret: public_key(secret, self.kind))
        for content in self.content(request, timestamp, ""):
            if any(matches(key, signature, content, self.algorithm, raw=self.raw_signature) for key in keys):
                if self.timestamp_field:
                    check_body_time(request, self.timestamp_field, now, self.tolerance, self.timestamp_format)
                return
        raise RequestRejected("the signature does not match the body with any of the wire's keys")

    def sign(self, request: WebhookRequest, secret: str, now: float, event_id: str) -> Mapping[str, str]:
        """Sign with a private key in PEM as the wire's secret, for tests. Raises RequestRejected for a public key."""
        from khotan_cli.runtime.webhooks.verify.public_keys import signature_of

        timestamp = timestamp_of(now, self.timestamp_format)
        content = self.content(request, timestamp, "")[0]
        signature = signature_of(secret, content, self.algorithm, raw=self.raw_signature)
        text = signature.hex() if self.encoding == "hex" else base64.b64encode(signature).decode()
        fields = {self.header: f"{self.prefix}{text}"}
        return {**fields, self.timestamp_header: timestamp} if self.timestamp_header else fields

    def make_secret(self) -> str:
        raise ConfigError(f"{self.name} uses the service's public key: khotan cannot generate it")


@dataclass(frozen=True)
class Token:
    """A shared secret that the sender includes in a header, the query or the JSON body."""

    name: str
    rule: Rule
    prefix: str = ""
    secret: Var | None = None
    event_id: Rule | None = None
    event_type: Rule | None = None

    def verify(self, request: WebhookRequest, secrets: Sequence[str], now: float) -> None:
        try:
            value = self.rule.find(request)
        except ValueError:
            raise RequestRejected("the body is not JSON and has no token") from None
        text = after_prefix(value or "", self.prefix)
        if not text:
            raise RequestRejected(f"{self.rule} has no token")
        matched = False
        for secret in secrets:
            matched |= hmac.compare_digest(secret.encode(), text.encode("utf-8", "replace"))
        if not matched:
            raise RequestRejected("the token does not match any of the wire's secrets")

    def sign(self, request: WebhookRequest, secret: str, now: float, event_id: str) -> Mapping[str, str]:
        """Return the token's header field; empty if the token is in the query or the body."""
        return {} if self.rule.header is None else {self.rule.header: f"{self.prefix}{secret}"}

    def make_secret(self) -> str:
        return secrets.token_hex(32)


@dataclass(frozen=True)
class Unsigned:
    """No signature: anyone who knows the URL can send events."""

    name: str = "unsigned"
    secret: Var | None = None
    event_id: Rule | None = None
    event_type: Rule | None = None

    def verify(self, request: WebhookRequest, secrets: Sequence[str], now: float) -> None:
        """Accept every request."""

    def sign(self, request: WebhookRequest, secret: str, now: float, event_id: str) -> Mapping[str, str]:
        return {}

    def make_secret(self) -> str:
        return ""
