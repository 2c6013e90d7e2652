"""Short-lived tokens: fetched on demand, shared by all processes, renewed by one caller at a time."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from khotan_cli.errors import AuthError
from khotan_cli.runtime.auth.schemes import PlugAuth, Text, with_query_parameter
from khotan_cli.runtime.auth.token_answer import (
    EXPIRY_UNITS,
    ExpiryUnit,
    expiry,
    is_error_document,
    refusal_of,
    token_document,
)
from khotan_cli.runtime.auth.token_body import check_body, check_statuses, described, filled, literal_secrets
from khotan_cli.runtime.content.codec import Encoding, encode_body, media_type
from khotan_cli.runtime.content.json_path import dig
from khotan_cli.runtime.http.call_context import CallContext, context_of
from khotan_cli.runtime.http.token_cache import Token
from khotan_cli.runtime.http.variables import HIDDEN_PREFIX
from khotan_cli.runtime.redaction.masker import Masker

RENEW_ON = (401,)
"""Statuses that renew a token (RFC 6750 3.1: invalid_token has status 401)."""
_TRANSIENT = frozenset({408, 429})
"""Statuses below 500 that do not mean that the refresh token is invalid."""


class RenewedAuth(PlugAuth):
    """Base of strategies whose credential is a token from a token endpoint.

    Override `token_request` and `read_token`. Token requests use the plug's own connections and are never redirected.
    renew_on: statuses that renew the token and repeat the call once.
    """

    renew_on: Collection[int] = RENEW_ON
    clock: Callable[[], float] = staticmethod(time.time)

    async def token_request(self, ctx: CallContext, old: Token | None) -> httpx.Request:
        """The request that fetches a token; `old` is the token to replace."""
        raise AuthError(f"{type(self).__name__} must define token_request()")

    def read_token(self, ctx: CallContext, response: httpx.Response, old: Token | None) -> Token:
        """The token in the response. Raises AuthError, without secrets, if there is none."""
        raise AuthError(f"{type(self).__name__} must define read_token()")

    def refresh_refused(self, response: httpx.Response, old: Token | None) -> bool:
        """Whether the response means that the refresh token of `old` is invalid. The token is then removed."""
        return False

    async def full_request(self, ctx: CallContext) -> httpx.Request | None:
        """The request that replaces a rejected refresh; None if a person must sign in again."""
        return None

    def place(self, request: httpx.Request, token: Token) -> None:
        """Add the token to the request."""
        request.headers["Authorization"] = f"Bearer {token.access_token}"

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        ctx = context_of(request)
        key = self.token_key(ctx)
        token = ctx.tokens.get(key) or await self.stored(ctx, key)
        if token is None or not token.fresh(self.clock()):
            renewal = self._renewal(ctx, key, token)
            async for step in _relay(renewal):
                response = yield step.request
                step.response = response
            token = ctx.tokens.get(key)
        self.place(request, _present(token))
        response = yield request
        if response.status_code in self.renew_on:
            async for step in _relay(self._renewal(ctx, key, token)):
                token_response = yield step.request
                step.response = token_response
            self.place(request, _present(ctx.tokens.get(key)))
            yield request

    async def _renewal(
        self, ctx: CallContext, key: str, rejected: Token | None
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Replace the token, unless another caller replaced it while this one waited for the lock."""
        async with ctx.store.lock(f"token:{ctx.plug}:{key}"):
            newest = await self.stored(ctx, key) or ctx.tokens.get(key)
            usable = newest is not None and newest.fresh(self.clock())
            if usable and newest != rejected:
                return
            old = newest or rejected
            response = yield await self.token_request(ctx, old)
            await response.aread()
            if self.refresh_refused(response, old):
                await self.forget(ctx, key, old)
                full_request = await self.full_request(ctx)
                if full_request is not None:
                    old = None
                    response = yield full_request
                    await response.aread()
            await self.keep(ctx, key, self.read_token(ctx, response, old))

    def token_key(self, ctx: CallContext) -> str:
        """Key of the credential's token: a keyed digest."""
        return ctx.store.fingerprint(f"{ctx.plug}\0{self.source(ctx)}")

    async def stored(self, ctx: CallContext, key: str) -> Token | None:
        """The token in the store, which is also put into the memory cache."""
        text = (await ctx.store.load(ctx.plug)).get(hidden_name(key))
        if text is None:
            return None
        token = Token(**json.loads(text))
        ctx.tokens.put(key, token)
        return token

    async def keep(self, ctx: CallContext, key: str, token: Token) -> None:
        """Store the token before it is used, so that a rotated refresh token is not lost."""
        await ctx.store.save(ctx.plug, {hidden_name(key): json.dumps(asdict(token))})
        ctx.tokens.put(key, token)

    async def forget(self, ctx: CallContext, key: str, token: Token | None) -> None:
        """Remove an invalid token from memory and store. A newer token from another process stays."""
        if await self.stored(ctx, key) in (token, None):
            await ctx.store.delete(ctx.plug, [hidden_name(key)])
            ctx.tokens.drop(key)

    def error_hint(self, response: httpx.Response) -> str:
        """The hint for an error of the token endpoint."""
        return "Check the token URL and the credentials."

    def token_error(self, ctx: CallContext, response: httpx.Response, what: str) -> AuthError:
        """An AuthError about the token endpoint. Quotes from the response are masked."""
        masker = Masker([*ctx.secrets(), *self.secrets(ctx), *ctx.tokens.secrets()])
        where = response.request.url.copy_with(query=None)
        return AuthError(
            masker.text(f"The token endpoint {where} of plug {ctx.plug!r} {what}"),
            plug=ctx.plug,
            endpoint=ctx.endpoint,
            response=response,
            hint=self.error_hint(response),
            next=[f"khotan plug vars {ctx.plug}"] if ctx.plug else [],
        )

    def token_body(self, ctx: CallContext, response: httpx.Response) -> Any:
        """The JSON or form body of a successful response, which must never be quoted in an error."""
        if response.is_redirect:
            raise self.token_error(
                ctx, response, f"answered {response.status_code}, a redirect, which is not followed with credentials"
            )
        if response.is_error:
            raise self.token_error(ctx, response, f"answered {response.status_code}{refusal_of(response)}")
        document = token_document(response)
        if document is None:
            kind, size = media_type(response) or "no content type", len(response.content)
            raise self.token_error(ctx, response, f"sent {size} bytes of {kind}, which are neither JSON nor a form")
        if is_error_document(document):
            raise self.token_error(ctx, response, f"answered {response.status_code}{refusal_of(response)}")
        return document


@dataclass
class _Step:
    request: httpx.Request
    response: httpx.Response | None = None


async def _relay(flow: AsyncGenerator[httpx.Request, httpx.Response]) -> AsyncGenerator[_Step, None]:
    """Steps of an inner flow for an outer one: the outer yields `request` and stores the response in `response`."""
    try:
        request = await anext(flow, None)
        while request is not None:
            step = _Step(request)
            yield step
            if step.response is None:
                return
            try:
                request = await flow.asend(step.response)
            except StopAsyncIteration:
                return
    finally:
        await flow.aclose()


class TokenAuth(RenewedAuth):
    """Exchanges credentials for a token at any endpoint.

    url: absolute, or relative to the plug's base URL; may contain {var}. body: any JSON value, with Vars for variables;
    encoding "json" or "form". token / expires / refresh: dotted paths in the response. expires_unit: "seconds" or
    "milliseconds" from now, or "absolute" (epoch seconds or milliseconds, or ISO 8601); lifetime: seconds, used if the
    response has no expiry. The token is sent in `header` with `prefix`, or in the query as `query`. refresh_url and
    refresh_body (with `{refresh_token}`) are used if the last response had a refresh token. If that refresh is rejected,
    the token is removed and `body` is sent once. renew_on: statuses of the API that renew the token.
    Raises ValueError for a body that cannot be sent, an unknown expires_unit or method, and a renew_on with values that
    are not error statuses.
    """

    def __init__(
        self,
        url: Text,
        body: Mapping[str, Any] | list[Any],
        *,
        encoding: Encoding = "json",
        method: str = "POST",
        headers: Mapping[str, Text] | None = None,
        token: str = "access_token",
        expires: str | None = "expires_in",
        expires_unit: ExpiryUnit = "seconds",
        lifetime: float | None = None,
        refresh: str | None = None,
        refresh_url: Text | None = None,
        refresh_body: Mapping[str, Any] | list[Any] | None = None,
        header: str = "Authorization",
        prefix: str = "Bearer ",
        query: str | None = None,
        renew_on: Collection[int] = RENEW_ON,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_body("body", body, encoding)
        if refresh_body is not None:
            check_body("refresh_body", refresh_body, encoding)
        if expires_unit not in EXPIRY_UNITS:
            raise ValueError(f"expires_unit={expires_unit!r} is not supported. Use {', '.join(EXPIRY_UNITS)}.")
        if not method.isascii() or not method.isalpha():
            raise ValueError(f"method={method!r} is not an HTTP method. Use 'POST', for example.")
        self.url, self.body, self.method = url, body, method.upper()
        self.encoding: Encoding = encoding
        self.headers = dict(headers or {})
        self.token_path, self.expires_path, self.refresh_path = token, expires, refresh
        self.expires_unit: ExpiryUnit = expires_unit
        self.lifetime = lifetime
        self.refresh_url, self.refresh_body = refresh_url, refresh_body
        self.header, self.prefix, self.query = header, prefix, query
        self.renew_on = check_statuses(renew_on)
        self.clock = clock

    async def token_request(self, ctx: CallContext, old: Token | None) -> httpx.Request:
        url, body, extra = self.url, self.body, dict[str, str]()
        if old is not None and old.refresh_token and self.refresh_body is not None:
            url, body = self.refresh_url or self.url, self.refresh_body
            extra["refresh_token"] = old.refresh_token
        content, kind = encode_body(filled(ctx, body, extra), self.encoding)
        headers = {"Accept": "application/json", "Content-Type": kind or "application/json"}
        headers |= {name: ctx.template(text) for name, text in self.headers.items()}
        return httpx.Request(self.method, endpoint_url(ctx, url), headers=headers, content=content)

    def refresh_refused(self, response: httpx.Response, old: Token | None) -> bool:
        refreshed = old is not None and bool(old.refresh_token) and self.refresh_body is not None
        transient = response.status_code >= 500 or response.status_code in _TRANSIENT
        return refreshed and not transient and not (response.is_success and self._text(token_document(response)))

    async def full_request(self, ctx: CallContext) -> httpx.Request:
        return await self.token_request(ctx, None)

    def read_token(self, ctx: CallContext, response: httpx.Response, old: Token | None) -> Token:
        body = self.token_body(ctx, response)
        text = self._text(body)
        if not text:
            what = f"answered {response.status_code} without a token at {self.token_path!r}{refusal_of(response)}"
            raise self.token_error(ctx, response, what)
        now = self.clock()
        lifetime = dig(body, self.expires_path) if self.expires_path else None
        refresh = dig(body, self.refresh_path) if self.refresh_path else None
        expires_at = expiry(lifetime, self.expires_unit, now)
        if expires_at is None and self.lifetime is not None:
            expires_at = now + self.lifetime
        return Token(text, expires_at, now, str(refresh) if refresh else (old.refresh_token if old else None))

    def _text(self, document: Any) -> str:
        """The token in a response; empty if it has none."""
        text = dig(document, self.token_path)
        return text if isinstance(text, str) else ""

    def place(self, request: httpx.Request, token: Token) -> None:
        if self.query:
            request.url = with_query_parameter(request.url, self.query, token.access_token)
        else:
            request.headers[self.header] = self.prefix + token.access_token

    def source(self, ctx: CallContext) -> str:
        # Includes the headers, because the credential may be only there.
        headers = {name: ctx.template(text) for name, text in self.headers.items()}
        return "\0".join([endpoint_url(ctx, self.url), json.dumps([filled(ctx, self.body, {}), headers])])

    def describe(self) -> dict[str, Any]:
        location = {"query": self.query} if self.query else {"header": self.header}
        return {"type": "token", **location, "body": described(self.body)}

    def secrets(self, ctx: CallContext) -> list[str]:
        return [*literal_secrets(self.body), *literal_secrets(self.refresh_body or {}), *literal_secrets(self.headers)]


def endpoint_url(ctx: CallContext, url: Text) -> str:
    """An absolute URL unchanged, or a path resolved below the plug's base URL."""
    text = ctx.template(url)
    if "://" in text:
        return text
    return str(ctx.base_url).rstrip("/") + "/" + text.lstrip("/")


def hidden_name(key: str) -> str:
    """Key of the hidden variable with a credential's token."""
    return f"{HIDDEN_PREFIX}token.{key}"


def _present(token: Token | None) -> Token:
    if token is None:
        raise AuthError("The token refresh returned no token")
    return token
