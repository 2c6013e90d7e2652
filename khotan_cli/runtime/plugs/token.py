"""Short-lived tokens: fetched when needed, kept for every process, renewed by one caller at a time."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qsl

import httpx

from khotan_cli.errors import AuthError
from khotan_cli.runtime.plugs.auth import PlugAuth, Text, shown, with_query_parameter
from khotan_cli.runtime.plugs.codec import Encoding, encode_body, media_type
from khotan_cli.runtime.plugs.context import CallContext, context_of
from khotan_cli.runtime.plugs.jsontext import NotJson, load_json
from khotan_cli.runtime.plugs.masking import BULLETS, Masker
from khotan_cli.runtime.plugs.paths import dig
from khotan_cli.runtime.plugs.tokens import Token
from khotan_cli.runtime.plugs.vars import HIDDEN_PREFIX

ExpiryUnit = Literal["seconds", "milliseconds", "absolute"]
_FORM = re.compile(r"[^=&\s]+=[^&\s]*(&[^=&\s]+=[^&\s]*)*\Z")
_ERROR_CODE = re.compile(r"[a-z][a-z0-9_.-]{0,60}\Z", re.IGNORECASE)
_ERROR_MEMBERS = frozenset({"error", "error_description", "error_uri", "state"})
"""Members of an error document (RFC 6749 5.2): an answer with others may hold the token that was asked for."""
_OPAQUE = re.compile(
    r"[A-Za-z0-9+/=._~-]*(?:[A-Za-z][A-Za-z0-9+/=._~-]*\d|\d[A-Za-z0-9+/=._~-]*[A-Za-z])[A-Za-z0-9+/=._~-]{6,}"
)
"""A word that may be a token or a part of one: letters and digits, of some length."""
_ABSOLUTE_MILLISECONDS = 10**11
"""An epoch above it counts milliseconds: as seconds it would lie in the year 5138."""


class RenewedAuth(PlugAuth):
    """Base of strategies whose credential is a token fetched from somewhere.

    Override `token_request` and `read_token`. Requests for tokens are yielded from the auth flow, so they travel the
    plug's own connections, and are never redirected.
    """

    clock: Callable[[], float] = staticmethod(time.time)

    async def token_request(self, ctx: CallContext, old: Token | None) -> httpx.Request:
        """The request that fetches a token; `old` is the one being replaced."""
        raise AuthError(f"{type(self).__name__} does not say how a token is requested: define token_request()")

    def read_token(self, ctx: CallContext, response: httpx.Response, old: Token | None) -> Token:
        """The token in the response. Raises AuthError, without a secret in it, where there is none."""
        raise AuthError(f"{type(self).__name__} does not say how a token is read: define read_token()")

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
        if response.status_code == httpx.codes.UNAUTHORIZED:
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

    def token_error(self, ctx: CallContext, response: httpx.Response, what: str) -> AuthError:
        """An AuthError about the token endpoint; what it quotes of the answer is masked."""
        masker = Masker([*ctx.secrets(), *self.secrets(ctx), *ctx.tokens.secrets()])
        where = response.request.url.copy_with(query=None)
        return AuthError(
            masker.text(f"The token endpoint {where} of plug {ctx.plug!r} {what}"),
            plug=ctx.plug,
            endpoint=ctx.endpoint,
            response=response,
            hint="Check the token URL and the credentials.",
            next=[f"khotan plug vars {ctx.plug}"] if ctx.plug else [],
        )

    def token_body(self, ctx: CallContext, response: httpx.Response) -> Any:
        """The JSON or form body of a successful answer, which is never quoted in an error."""
        if response.is_redirect:
            raise self.token_error(
                ctx, response, f"answers {response.status_code}, a redirect: credentials do not follow it"
            )
        if response.is_error:
            raise self.token_error(ctx, response, f"answers {response.status_code}{_oauth_reason(response)}")
        found = token_document(response)
        if found is None:
            kind, size = media_type(response) or "no content type", len(response.content)
            raise self.token_error(ctx, response, f"sends {size} bytes of {kind}, which are neither JSON nor a form")
        if isinstance(found, Mapping) and isinstance(found.get("error"), str) and found.keys() <= _ERROR_MEMBERS:
            raise self.token_error(ctx, response, f"answers {response.status_code}{_oauth_reason(response)}")
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

    url: absolute, or relative to the plug's base URL; may hold {var}. body: what is sent, values may be Vars; encoding
    "json" or "form". token / expires / refresh: dotted paths in the answer. expires_unit: "seconds" or "milliseconds" from now,
    or "absolute" (epoch seconds or milliseconds, or ISO 8601); lifetime: seconds, where the answer does not say.
    The token goes into `header` with `prefix`, or into the query as `query`. refresh_url and refresh_body (with
    `{refresh_token}`) are used instead where the last answer gave a refresh token.
    """

    def __init__(
        self,
        url: Text,
        body: Mapping[str, Text],
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
        refresh_body: Mapping[str, Text] | None = None,
        header: str = "Authorization",
        prefix: str = "Bearer ",
        query: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url, self.body, self.method = url, dict(body), method
        self.encoding: Encoding = encoding
        self.headers = dict(headers or {})
        self.token_path, self.expires_path, self.refresh_path = token, expires, refresh
        self.expires_unit: ExpiryUnit = expires_unit
        self.lifetime = lifetime
        self.refresh_url, self.refresh_body = refresh_url, refresh_body
        self.header, self.prefix, self.query = header, prefix, query
        self.clock = clock

    async def token_request(self, ctx: CallContext, old: Token | None) -> httpx.Request:
        url, fields = self.url, dict(self.body)
        extra: dict[str, str] = {}
        if old is not None and old.refresh_token and self.refresh_body is not None:
            url, fields = self.refresh_url or self.url, dict(self.refresh_body)
            extra["refresh_token"] = old.refresh_token
        values = {name: _filled(ctx.value(text), extra) for name, text in fields.items()}
        content, kind = encode_body(values, self.encoding)
        headers = {"Accept": "application/json", "Content-Type": kind or "application/json"}
        headers |= {name: ctx.template(text) for name, text in self.headers.items()}
        return httpx.Request(self.method, endpoint_url(ctx, url), headers=headers, content=content)

    def read_token(self, ctx: CallContext, response: httpx.Response, old: Token | None) -> Token:
        body = self.token_body(ctx, response)
        text = dig(body, self.token_path)
        if not isinstance(text, str) or not text:
            raise self.token_error(ctx, response, f"answers without a token at {self.token_path!r}")
        now = self.clock()
        lifetime = dig(body, self.expires_path) if self.expires_path else None
        refresh = dig(body, self.refresh_path) if self.refresh_path else None
        ends = expiry(lifetime, self.expires_unit, now)
        if ends is None and self.lifetime is not None:
            ends = now + self.lifetime
        return Token(text, ends, now, str(refresh) if refresh else (old.refresh_token if old else None))

    def place(self, request: httpx.Request, token: Token) -> None:
        if self.query:
            request.url = with_query_parameter(request.url, self.query, token.access_token)
        else:
            request.headers[self.header] = self.prefix + token.access_token

    def source(self, ctx: CallContext) -> str:
        return "\0".join([endpoint_url(ctx, self.url), *(ctx.value(text) for text in self.body.values())])

    def describe(self) -> dict[str, Any]:
        place = {"query": self.query} if self.query else {"header": self.header}
        return {"type": "token", **place, "body": {name: shown(text) for name, text in self.body.items()}}


def endpoint_url(ctx: CallContext, url: Text) -> str:
    """An absolute URL as it is; a path below the plug's base URL."""
    text = ctx.template(url)
    if "://" in text:
        return text
    return str(ctx.base_url).rstrip("/") + "/" + text.lstrip("/")


def expiry(value: Any, unit: ExpiryUnit, now: float) -> float | None:
    """Seconds since the epoch at which a token ends; None where the value says nothing usable or nothing positive."""
    if isinstance(value, str) and unit == "absolute":
        try:
            at = datetime.fromisoformat(value.replace("Z", "+00:00"))
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            pass  # not a date: it may still be a number in a string
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not 0 < number < float("inf"):
        return None
    if unit == "absolute":
        return number / 1000 if number > _ABSOLUTE_MILLISECONDS else number
    return now + (number / 1000 if unit == "milliseconds" else number)


def hidden_name(key: str) -> str:
    """Key of the hidden var that holds a credential's token."""
    return f"{HIDDEN_PREFIX}token.{key}"


def _present(token: Token | None) -> Token:
    if token is None:
        raise AuthError("No token came of the renewal")
    return token


def _filled(text: str, extra: Mapping[str, str]) -> str:
    for name, value in extra.items():
        text = text.replace("{" + name + "}", value)
    return text


def token_document(response: httpx.Response) -> Any:
    """The answer as JSON, or as a form where it is one (GitHub's default); None where it is neither.

    What the answer holds are secrets: nobody quotes it.
    """
    with suppress(NotJson):
        return load_json(response.content)
    text = response.content.decode("utf-8", "replace").strip()
    if not _FORM.match(text):
        return None
    fields = dict(parse_qsl(text))
    known = {"access_token", "refresh_token", "id_token", "error", "token_type"} & set(fields)
    return fields if known or media_type(response) == "application/x-www-form-urlencoded" else None


def _oauth_reason(response: httpx.Response) -> str:
    """`: invalid_client (…)` from an OAuth 2 error document (RFC 6749 5.2). Nothing that may be a token is quoted."""
    body = token_document(response)
    if not isinstance(body, Mapping) or not isinstance(body.get("error"), str) or "access_token" in body:
        return ""
    if not _ERROR_CODE.match(body["error"]):
        return ""
    text = _OPAQUE.sub(BULLETS, " ".join(str(body.get("error_description") or "").split()))[:200]
    return f": {body['error']}" + (f" ({text})" if text else "")
