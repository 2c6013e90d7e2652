"""HMAC request signing (RFC 2104): a digest over what is sent, keyed with a shared secret."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import httpx

from khotan_cli.errors import AuthError
from khotan_cli.runtime.plugs.auth import PlugAuth, Text, shown, with_query_parameter
from khotan_cli.runtime.plugs.context import CallContext

TimestampFormat = Literal["seconds", "milliseconds", "iso8601"]


@dataclass(frozen=True)
class SigningInput:
    """What a signature may cover, exactly as it goes on the wire.

    path and query are percent-encoded, the query without `?`; body is the raw bytes; timestamp is already formatted.
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

    def body_sha256(self) -> str:
        """Hex SHA-256 of the body, as several schemes sign it."""
        return hashlib.sha256(self.body).hexdigest()


class HmacAuth(PlugAuth):
    """Signs each request.

    content: what is signed, a template over {method} {url} {path} {query} {body} {body_sha256} {timestamp} {nonce} and
    the plug's variables, or a function of SigningInput that returns str or bytes. The body goes in as raw bytes.
    header / query: where the signature goes; prefix stands before it. timestamp_header and nonce_header send those along;
    headers adds more, templates over the same names (`{"X-Key": "{key_id}"}`). secret_encoding: how the secret's text
    becomes the key. clock: seconds since the epoch.
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
        secret_encoding: Literal["utf-8", "hex", "base64"] = "utf-8",
        timestamp_header: str | None = None,
        timestamp_query: str | None = None,
        timestamp_format: TimestampFormat = "seconds",
        nonce_header: str | None = None,
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if header and query:
            raise ValueError("HmacAuth takes header=… or query=…, not both")
        self.secret, self.content = secret, content
        self.algorithm, self.encoding, self.prefix = algorithm, encoding, prefix
        self.query = query
        self.header = None if query else header or "X-Signature"
        self.secret_encoding = secret_encoding
        self.timestamp_header, self.timestamp_query = timestamp_header, timestamp_query
        self.timestamp_format: TimestampFormat = timestamp_format
        self.nonce_header = nonce_header
        self.headers = dict(headers or {})
        self.clock = clock

    async def apply(self, request: httpx.Request, ctx: CallContext) -> None:
        timestamp, nonce = self._timestamp(), secrets.token_hex(16)
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
        )
        for name, value in self.headers.items():
            request.headers[name] = self._filled(value, signed).decode()
        if self.timestamp_header:
            request.headers[self.timestamp_header] = timestamp
        if self.nonce_header:
            request.headers[self.nonce_header] = nonce
        signature = self.prefix + self.sign(signed, ctx)
        if self.header:
            request.headers[self.header] = signature
        elif self.query:
            request.url = with_query_parameter(request.url, self.query, signature)

    def sign(self, signed: SigningInput, ctx: CallContext) -> str:
        """The signature of the input, encoded, without the prefix."""
        content = self._filled(self.content, signed) if isinstance(self.content, str) else self.content(signed)
        raw = content.encode() if isinstance(content, str) else content
        digest = hmac.new(self._key(ctx), raw, self.algorithm).digest()
        return digest.hex() if self.encoding == "hex" else base64.b64encode(digest).decode()

    def source(self, ctx: CallContext) -> str:
        return ctx.value(self.secret)

    def describe(self) -> dict[str, Any]:
        place = {"header": self.header} if self.header else {"query": self.query}
        return {"type": "hmac", "algorithm": self.algorithm, **place, "secret": shown(self.secret)}

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
                f"The signing secret of plug {ctx.plug!r} is not {self.secret_encoding}",
                plug=ctx.plug,
                hint="Check that it was copied whole.",
            ) from None
        return text.encode()

    def _timestamp(self) -> str:
        now = self.clock()
        if self.timestamp_format == "iso8601":
            return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return str(int(now * 1000) if self.timestamp_format == "milliseconds" else int(now))

    @staticmethod
    def _filled(template: str, signed: SigningInput) -> bytes:
        names: dict[str, bytes] = {name: value.encode() for name, value in signed.vars.items()}
        names |= {name: str(getattr(signed, name)).encode() for name in ("method", "url", "path", "query")}
        names |= {"timestamp": signed.timestamp.encode(), "nonce": signed.nonce.encode(), "body": signed.body}
        names["body_sha256"] = signed.body_sha256().encode()
        # Split first and fill then: a body that contains "{nonce}" must be signed as it is.
        pieces = template.encode().split(b"{")
        filled = [pieces[0]]
        for piece in pieces[1:]:
            name, closed, rest = piece.partition(b"}")
            value = names.get(name.decode("utf-8", "replace")) if closed else None
            filled.append(value + rest if value is not None else b"{" + piece)
        return b"".join(filled)
