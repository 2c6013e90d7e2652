"""HMAC request signing (RFC 2104): a digest of the request, keyed with a shared secret."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal, get_args

import httpx

from khotan_cli.errors import AuthError
from khotan_cli.runtime.auth import canonical_request as canonical
from khotan_cli.runtime.auth.schemes import PlugAuth, Text, shown, with_query_parameter
from khotan_cli.runtime.http.call_context import CallContext

TimestampFormat = Literal["seconds", "milliseconds", "iso8601", "iso8601-basic", "http-date"]
_FORMATS = get_args(TimestampFormat)
_COMPUTED = frozenset(
    {
        "body_sha256", "body_sha256_base64", "body_md5_base64", "date", "canonical_path", "canonical_query",
        "canonical_headers", "signed_headers",
    }
)  # fmt: skip
_PLACEHOLDER = re.compile(rb"\{(header:)?([^{}:]*)\}")


@dataclass(frozen=True)
class SigningInput:
    """The parts of a request that a signature may cover, exactly as they are sent.

    path and query are percent-encoded, the query without `?`; body is the raw bytes; timestamp is already formatted.
    headers are those of the request, including those that HmacAuth adds but not the signature; names ignore case.
    day is the UTC date of the timestamp, `20231114`. signed_names are the names of HmacAuth's signed_headers.
    """

    method: str
    url: str
    path: str
    query: str
    body: bytes
    timestamp: str
    nonce: str
    vars: Mapping[str, str]
    headers: Mapping[str, str]
    day: str = ""
    signed_names: tuple[str, ...] = ()

    def body_sha256(self) -> str:
        """Hex SHA-256 of the body, as several schemes sign it."""
        return hashlib.sha256(self.body).hexdigest()

    def body_sha256_base64(self) -> str:
        """Base64 SHA-256 of the body, as Azure's `x-ms-content-sha256` holds it."""
        return base64.b64encode(hashlib.sha256(self.body).digest()).decode()

    def body_md5_base64(self) -> str:
        """Base64 MD5 of the body, the value of a `Content-MD5` header (RFC 1864)."""
        return base64.b64encode(hashlib.md5(self.body, usedforsecurity=False).digest()).decode()

    def header(self, name: str) -> str:
        """The trimmed value of a request header; empty if the request does not have it."""
        return self.headers.get(name, "").strip()

    def date(self) -> str:
        """The UTC date of the timestamp, `20231114`."""
        return self.day

    def canonical_path(self) -> str:
        """The path with each segment percent-encoded again, as AWS signs it for every service except S3."""
        return canonical.path(self.path)

    def canonical_query(self) -> str:
        """The parameters re-encoded (RFC 3986 2.3) and sorted by name and value, `a=` for one without a value."""
        return canonical.query(self.query)

    def canonical_headers(self) -> str:
        """A line `name:value` for each of the signed headers, names in lower case and sorted, each with a line end."""
        return canonical.fields(self._signed())

    def signed_headers(self) -> str:
        """The names of the signed headers in lower case, sorted: `host;x-amz-date`."""
        return ";".join(name for name, _ in self._signed())

    def _signed(self) -> list[tuple[str, str]]:
        return canonical.select_headers(self.headers, self.signed_names)


class HmacAuth(PlugAuth):
    """Signs each request.

    content: the signed text, a template or a function of SigningInput that returns str or bytes. A template may contain
    {method} {url} {path} {query} {target} (path and query) {body} {body_sha256} {body_sha256_base64} {body_md5_base64}
    {timestamp} {nonce}, {header:Name} for the value of a request header (empty if absent), and the plug's
    variables by name. The body is inserted as raw bytes.
    header / query: where the signature is sent. prefix and suffix are templates around it, such as
    `SharedKey {account}:` or `HMAC-SHA256 Credential={key_id}&Signature=`. timestamp_header and nonce_header send the
    timestamp and nonce; headers adds more headers from templates (`{"X-Key": "{key_id}"}`), which are filled in order.
    timestamp_format: "seconds" or "milliseconds" since 1970, "iso8601" (`2023-11-14T22:13:20Z`),
    "iso8601-basic" (`20231114T221320Z`), or "http-date" (RFC 9110 5.6.7).
    secret_encoding: how the secret's text becomes the key.
    clock: seconds since the epoch.
    For schemes that sign a canonical form of the request, as AWS Signature Version 4 does: signed_headers are the names of
    the signed headers, where `name*` matches a prefix; headers that a request does not have are skipped.
    Templates may contain {date} (`20231114`, UTC), {canonical_path} {canonical_query} {canonical_headers} {signed_headers},
    and {canonical_sha256}, the hex SHA-256 of the template `canonical`. secret_prefix precedes the secret in the
    key. derive: each template is signed with the current key, and its digest is the next key.
    Raises ValueError for an option with an unknown value, and for {canonical_sha256} without canonical.
    """

    def __init__(
        self,
        secret: Text,
        *,
        content: str | Callable[[SigningInput], str | bytes] = "{method}{path}{body}",
        algorithm: Literal["sha256", "sha512", "sha384", "sha1"] = "sha256",
        encoding: Literal["hex", "base64"] = "hex",
        header: str | None = None,
        query: str | None = None,
        prefix: str = "",
        suffix: str = "",
        secret_encoding: Literal["utf-8", "hex", "base64"] = "utf-8",
        timestamp_header: str | None = None,
        timestamp_query: str | None = None,
        timestamp_format: TimestampFormat = "seconds",
        nonce_header: str | None = None,
        headers: Mapping[str, str] | None = None,
        canonical: str = "",
        signed_headers: Sequence[str] = (),
        secret_prefix: str = "",
        derive: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        if header and query:
            raise ValueError("HmacAuth takes header=… or query=…, not both")
        if timestamp_format not in _FORMATS:
            raise ValueError(f"timestamp_format={timestamp_format!r} is not supported. Use {', '.join(_FORMATS)}.")
        if isinstance(signed_headers, str) or isinstance(derive, str):
            raise ValueError("HmacAuth takes signed_headers and derive as sequences of texts, such as ('host',)")
        if secret_prefix and secret_encoding != "utf-8":
            raise ValueError(f"secret_prefix={secret_prefix!r} needs secret_encoding='utf-8', not {secret_encoding!r}")
        templates = [content if isinstance(content, str) else "", prefix, suffix, *(headers or {}).values()]
        if not canonical and any("{canonical_sha256}" in text for text in templates):
            raise ValueError("{canonical_sha256} needs the option canonical, the template that it is the digest of")
        self.secret, self.content = secret, content
        self.canonical, self.signed_headers = canonical, tuple(name.lower() for name in signed_headers)
        self.secret_prefix, self.derive = secret_prefix, tuple(derive)
        self.algorithm, self.encoding = algorithm, encoding
        self.prefix, self.suffix = prefix, suffix
        self.query = query
        self.header = None if query else header or "X-Signature"
        self.secret_encoding = secret_encoding
        self.timestamp_header, self.timestamp_query = timestamp_header, timestamp_query
        self.timestamp_format: TimestampFormat = timestamp_format
        self.nonce_header = nonce_header
        self.headers = dict(headers or {})
        self.clock = clock

    async def apply(self, request: httpx.Request, ctx: CallContext) -> None:
        now = self.clock()
        timestamp, nonce = self._timestamp(now), secrets.token_hex(16)
        if self.timestamp_query:
            request.url = with_query_parameter(request.url, self.timestamp_query, timestamp)
        path, _, query = request.url.raw_path.decode().partition("?")
        signed = SigningInput(
            method=request.method,
            url=str(request.url),
            path=path,
            query=query,
            body=await request.aread(),
            timestamp=timestamp,
            nonce=nonce,
            vars=ctx.vars,
            headers=request.headers,
            day=datetime.fromtimestamp(now, UTC).strftime("%Y%m%d"),
            signed_names=self.signed_headers,
        )
        # Set before the templates are filled, which may contain {header:…} of these.
        if self.timestamp_header:
            request.headers[self.timestamp_header] = timestamp
        if self.nonce_header:
            request.headers[self.nonce_header] = nonce
        for name, value in self.headers.items():
            request.headers[name] = self._filled(value, signed).decode()
        prefix, suffix = (self._filled(text, signed).decode() for text in (self.prefix, self.suffix))
        signature = prefix + self.sign(signed, ctx) + suffix
        if self.header:
            request.headers[self.header] = signature
        elif self.query:
            request.url = with_query_parameter(request.url, self.query, signature)

    def sign(self, signed: SigningInput, ctx: CallContext) -> str:
        """The signature of the input, encoded, without prefix and suffix."""
        content = self._filled(self.content, signed) if isinstance(self.content, str) else self.content(signed)
        raw = content.encode() if isinstance(content, str) else content
        key = self._key(ctx)
        for part in self.derive:
            key = hmac.new(key, self._filled(part, signed), self.algorithm).digest()
        digest = hmac.new(key, raw, self.algorithm).digest()
        return digest.hex() if self.encoding == "hex" else base64.b64encode(digest).decode()

    def source(self, ctx: CallContext) -> str:
        return ctx.value(self.secret)

    def describe(self) -> dict[str, Any]:
        location = {"header": self.header} if self.header else {"query": self.query}
        return {"type": "hmac", "algorithm": self.algorithm, **location, "secret": shown(self.secret)}

    def secrets(self, ctx: CallContext) -> list[str]:
        return [self.secret] if isinstance(self.secret, str) else []

    def _key(self, ctx: CallContext) -> bytes:
        text = ctx.value(self.secret)
        try:
            if self.secret_encoding == "hex":
                return bytes.fromhex(text)
            if self.secret_encoding == "base64":
                return base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            raise AuthError(
                f"The signing secret of plug {ctx.plug!r} is not valid {self.secret_encoding}",
                plug=ctx.plug,
                hint="Check that the secret was copied completely.",
            ) from None
        return (self.secret_prefix + text).encode()

    def _timestamp(self, now: float) -> str:
        at = datetime.fromtimestamp(now, UTC)
        if self.timestamp_format == "http-date":
            return format_datetime(at, usegmt=True)
        if self.timestamp_format == "iso8601":
            return at.strftime("%Y-%m-%dT%H:%M:%SZ")
        if self.timestamp_format == "iso8601-basic":
            return at.strftime("%Y%m%dT%H%M%SZ")
        return str(int(now * 1000) if self.timestamp_format == "milliseconds" else int(now))

    def _filled(self, template: str, signed: SigningInput) -> bytes:
        names: dict[str, bytes] = {name: value.encode() for name, value in signed.vars.items()}
        names |= {name: str(getattr(signed, name)).encode() for name in ("method", "url", "path", "query")}
        names |= {"timestamp": signed.timestamp.encode(), "nonce": signed.nonce.encode(), "body": signed.body}
        names |= {"target": f"{signed.path}?{signed.query}".encode() if signed.query else signed.path.encode()}

        def value(placeholder: re.Match[bytes]) -> bytes:
            name = placeholder.group(2).decode("utf-8", "replace")
            if placeholder.group(1):
                return signed.header(name).encode()
            if name in _COMPUTED and name not in signed.vars:
                return str(getattr(signed, name)()).encode()
            if name == "canonical_sha256" and self.canonical:
                return hashlib.sha256(self._filled(self.canonical, signed)).hexdigest().encode()
            return names.get(name, placeholder.group())

        # In one pass: a body that contains "{nonce}" must be signed unchanged.
        return _PLACEHOLDER.sub(value, template.encode())
