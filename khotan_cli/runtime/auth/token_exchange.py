"""Short-lived tokens: fetched when needed, kept for every process, renewed by one caller at a time."""

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
"""Statuses that renew a token (RFC 6750 3.1: invalid_token is answered with 401)."""
_TRANSIENT = frozenset({408, 429})
"""Statuses below 500 that say nothing about the refresh token."""


class RenewedAuth(PlugAuth):
    """Base of strategies whose credential is a token fetched from somewhere.

    Override `token_request` and `read_token`. Requests for tokens are yielded from the auth flow, so they travel the
    plug's own connections, and are never redirected. renew_on: statuses that renew the token and repeat the call once.
    """

    renew_on: Collection[int] = RENEW_ON
    clock: Callable[[], float] = staticmethod(time.time)

    async def token_request(self, ctx: CallContext, old: Token | None) -> httpx.Request:
        """The request that fetches a token; `old` is the one being replaced."""
        raise AuthError(f"{type(self).__name__} does not say how a token is requested: define token_request()")

    def read_token(self, ctx: CallContext, response: httpx.Response, old: Token | None) -> Token:
        """The token in the response. Raises AuthError, without a secret in it, where there is none."""
        raise AuthError(f"{type(self).__name__} does not say how a token is read: define read_token()")

    def refresh_refused(self, response: httpx.Response, old: Token | None) -> bool:
        """Whether the answer means that the refresh token of `old` is dead. The token is then forgotten."""
        return False

    async def full_request(self, ctx: CallContext) -> httpx.Request | None:
        """The request that replaces a refused refresh; None where only a person can sign in again."""
        return None

    def place(self, request: httpx.Request, token: Token) -> None:
        """Put the token on the request."""
        request.headers["Authorization"] = f"Bearer {token.access_token}"

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        ctx = context_of(request)
        key = self.token_key(ctx)
        token = ctx.tokens.get(key) or await self.stored(ctx, key)
        if token is None or not token.fresh(self.clock()):
            renewal = self._renewal(ctx, key, token)
            async for step in _relay(renewal):
                response = yield step.request
                step.answer = response
            token = ctx.tokens.get(key)
        self.place(request, _present(token))
        response = yield request
        if response.status_code in self.renew_on:
            async for step in _relay(self._renewal(ctx, key, token)):
                answer = yield step.request
                step.answer = answer
            self.place(request, _present(ctx.tokens.get(key)))
            yield request

    async def _renewal(
        self, ctx: CallContext, key: str, refused: Token | None
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Replace the token, unless somebody did while this call waited for its turn."""
        async with ctx.store.lock(f"token:{ctx.plug}:{key}"):
            newest = await self.stored(ctx, key) or ctx.tokens.get(key)
            usable = newest is not None and newest.fresh(self.clock())
            if usable and newest != refused:
                return
            old = newest or refused
            response = yield await self.token_request(ctx, old)
            await response.aread()
            if self.refresh_refused(response, old):
                await self.forget(ctx, key, old)
                again = await self.full_request(ctx)
                if again is not None:
                    old = None
                    response = yield again
                    await response.aread()
            await self.keep(ctx, key, self.read_token(ctx, response, old))

    def token_key(self, ctx: CallContext) -> str:
        """Name of the credential's token: a keyed digest."""
        return ctx.store.fingerprint(f"{ctx.plug}\0{self.source(ctx)}")

    async def stored(self, ctx: CallContext, key: str) -> Token | None:
        """The token that the store holds, also put into memory."""
        text = (await ctx.store.load(ctx.plug)).get(hidden_name(key))
        if text is None:
            return None
        token = Token(**json.loads(text))
        ctx.tokens.put(key, token)
        return token

    async def keep(self, ctx: CallContext, key: str, token: Token) -> None:
        """Store first, then use: a refresh token that rotated must not be lost."""
        await ctx.store.save(ctx.plug, {hidden_name(key): json.dumps(asdict(token))})
        ctx.tokens.put(key, token)

    async def forget(self, ctx: CallContext, key: str, token: Token | None) -> None:
        """Remove a dead token from memory and store. A newer one that another process stored stays."""
        if await self.stored(ctx, key) in (token, None):
            await ctx.store.delete(ctx.plug, [hidden_name(key)])
            ctx.tokens.drop(key)

    def error_hint(self, response: httpx.Response) -> str:
        """The hint of an error of the token endpoint."""
        return "Check the token URL and the credentials."

    def token_error(self, ctx: CallContext, response: httpx.Response, what: str) -> AuthError:
        """An AuthError about the token endpoint; what it quotes of the answer is masked."""
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
        """The JSON or form body of a successful answer, which is never quoted in an error."""
        if response.is_redirect:
            raise self.token_error(
                ctx, response, f"answers {response.status_code}, a redirect: credentials do not follow it"
            )
        if response.is_error:
            raise self.token_error(ctx, response, f"answers {response.status_code}{refusal_of(response)}")
        found = token_document(response)
        if found is None:
            kind, size = media_type(response) or "no content type", len(response.content)
            raise self.token_error(ctx, response, f"sends {size} bytes of {kind}, which are neither JSON nor a form")
        if is_error_document(found):
            raise self.token_error(ctx, response, f"answers {response.status_code}{refusal_of(response)}")
        return found


@dataclass
class _Step:
    request: httpx.Request
    answer: httpx.Response | None = None


async def _relay(flow: AsyncGenerator[httpx.Request, httpx.Response]) -> AsyncGenerator[_Step, None]:
    """Steps of an inner flow for an outer one: the outer yields `request` and leaves its response in `answer`."""
    try:
        request = await anext(flow, None)
        while request is not None:
            step = _Step(request)
            yield step
            if step.answer is None:
                return
            try:
                request = await flow.asend(step.answer)
            except StopAsyncIteration:
                return
    finally:
        await flow.aclose()


class TokenAuth(RenewedAuth):
    """Exchange of credentials for a token at any endpoint.

    url: absolute, or relative to the plug's base URL; may hold {var}. body: any JSON value, with Vars where variables go;
    encoding "json" or "form". token / expires / refresh: dotted paths in the answer. expires_unit: "seconds" or
    "milliseconds" from now, or "absolute" (epoch seconds or milliseconds, or ISO 8601); lifetime: seconds, where the answer
    does not say. The token goes into `header` with `prefix`, or into the query as `query`. refresh_url and refresh_body
    (with `{refresh_token}`) are used instead where the last answer gave a refresh token. Where that refresh is refused, the
    token is forgotten and `body` is sent once. renew_on: statuses of the API that renew the token.
    Raises ValueError for a body that cannot be sent, an unknown expires_unit or method, and for a
    renew_on that is not made of error statuses.
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
            raise ValueError(f"method={method!r} is not a method of HTTP. Use 'POST', for example.")
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
            what = f"answers {response.status_code} without a token at {self.token_path!r}{refusal_of(response)}"
            raise self.token_error(ctx, response, what)
        now = self.clock()
        lifetime = dig(body, self.expires_path) if self.expires_path else None
        refresh = dig(body, self.refresh_path) if self.refresh_path else None
        ends = expiry(lifetime, self.expires_unit, now)
        if ends is None and self.lifetime is not None:
            ends = now + self.lifetime
        return Token(text, ends, now, str(refresh) if refresh else (old.refresh_token if old else None))

    def _text(self, document: Any) -> str:
        """The token of an answer; empty where it has none."""
        text = dig(document, self.token_path)
        return text if isinstance(text, str) else ""

    def place(self, request: httpx.Request, token: Token) -> None:
        if self.query:
            request.url = with_query_parameter(request.url, self.query, token.access_token)
        else:
            request.headers[self.header] = self.prefix + token.access_token

    def source(self, ctx: CallContext) -> str:
        # Headers too: the credential may be in them alone.
        headers = {name: ctx.template(text) for name, text in self.headers.items()}
        return "\0".join([endpoint_url(ctx, self.url), json.dumps([filled(ctx, self.body, {}), headers])])

    def describe(self) -> dict[str, Any]:
        place = {"query": self.query} if self.query else {"header": self.header}
        return {"type": "token", **place, "body": described(self.body)}

    def secrets(self, ctx: CallContext) -> list[str]:
        return [*literal_secrets(self.body), *literal_secrets(self.refresh_body or {}), *literal_secrets(self.headers)]


def endpoint_url(ctx: CallContext, url: Text) -> str:
    """An absolute URL as it is; a path below the plug's base URL."""
    text = ctx.template(url)
    if "://" in text:
        return text
    return str(ctx.base_url).rstrip("/") + "/" + text.lstrip("/")


def hidden_name(key: str) -> str:
    """Key of the hidden var that holds a credential's token."""
    return f"{HIDDEN_PREFIX}token.{key}"


def _present(token: Token | None) -> Token:
    if token is None:
        raise AuthError("The token renewal returned no token")
    return token
