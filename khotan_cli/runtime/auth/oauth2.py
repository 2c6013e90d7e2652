"""OAuth 2.0: client credentials, and authorization code with PKCE. Uses authlib for protocol details.

RFC 6749 (framework), RFC 7636 (PKCE), RFC 9207 (issuer in the response), RFC 9700 (current best practice).
"""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, quote_plus, urlsplit

import httpx

from khotan_cli.errors import AuthError
from khotan_cli.runtime.auth.schemes import Text, shown
from khotan_cli.runtime.auth.token_answer import expiry, refusal_of, token_document, token_type
from khotan_cli.runtime.auth.token_body import check_statuses
from khotan_cli.runtime.auth.token_exchange import RENEW_ON, RenewedAuth, endpoint_url
from khotan_cli.runtime.http.call_context import CallContext
from khotan_cli.runtime.http.token_cache import Token

ClientMethod = Literal["client_secret_basic", "client_secret_post", "none"]


def form_encoded_basic(client: Any, method: str, uri: str, headers: dict[str, str], body: str) -> Any:
    """client_secret_basic with id and secret form-encoded before they are joined, as RFC 6749 2.3.1 requires.

    authlib joins them unencoded, which fails for a secret with `:`, `%` or a space.
    """
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret or '')}"
    headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return uri, headers, body


class _OAuth2(RenewedAuth):
    """Common parts of the grants: client authentication and reading the token response."""

    def __init__(
        self,
        token_url: Text,
        client_id: Text,
        client_secret: Text | None,
        *,
        scope: str,
        auth_method: ClientMethod,
        extra: Mapping[str, Text] | None,
        token_type: str,
        prefix: str | None,
        renew_on: Collection[int],
        clock: Callable[[], float],
    ) -> None:
        if auth_method not in ("client_secret_basic", "client_secret_post", "none"):
            raise ValueError(f"auth_method={auth_method!r} must be client_secret_basic, client_secret_post or none")
        self.token_url, self.client_id, self.client_secret = token_url, client_id, client_secret
        if not token_type or not all("!" <= char <= "~" for char in token_type):
            raise ValueError(f"token_type={token_type!r} is not a valid token type. Use 'Bearer', for example.")
        self.scope, self.extra = scope, dict(extra or {})
        self.token_type = token_type
        self.prefix = f"{token_type} " if prefix is None else prefix
        self.renew_on = check_statuses(renew_on)
        self.auth_method: ClientMethod = auth_method if client_secret is not None else "none"
        self.clock = clock

    def grant(self, ctx: CallContext, fields: Mapping[str, str]) -> httpx.Request:
        """The token request of a grant, with client authentication (RFC 6749 2.3, 3.2)."""
        from authlib.common.urls import url_encode
        from authlib.oauth2.auth import ClientAuth

        url = endpoint_url(ctx, self.token_url)
        more = {name: ctx.value(text) for name, text in self.extra.items()}
        body = url_encode([(name, value) for name, value in {**fields, **more}.items() if value])
        secret = None if self.client_secret is None else ctx.value(self.client_secret)
        method: Any = form_encoded_basic if self.auth_method == "client_secret_basic" else self.auth_method
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        client = ClientAuth(ctx.value(self.client_id), secret, method)
        url, headers, body = client.prepare("POST", url, headers, body)
        return httpx.Request("POST", url, headers=headers, content=str(body).encode())

    def read_token(self, ctx: CallContext, response: httpx.Response, old: Token | None) -> Token:
        body = self.token_body(ctx, response)
        text = body.get("access_token") if isinstance(body, Mapping) else None
        if not isinstance(text, str) or not text:
            what = f"answered {response.status_code} without an access_token{refusal_of(response)}"
            raise self.token_error(ctx, response, what)
        kind = token_type(body) or self.token_type
        if kind.lower() != self.token_type.lower():
            what = f"issued a token of type {kind!r}, but token_type={self.token_type!r} is declared"
            raise self.token_error(ctx, response, what)
        now = self.clock()
        refresh = body.get("refresh_token") or (old.refresh_token if old else None)
        ctx.tokens.remember(*(body[name] for name in ("id_token",) if isinstance(body.get(name), str)))
        return Token(text, expiry(body.get("expires_in"), "seconds", now), now, refresh)

    def place(self, request: httpx.Request, token: Token) -> None:
        request.headers["Authorization"] = self.prefix + token.access_token

    def error_hint(self, response: httpx.Response) -> str:
        kind = token_type(token_document(response)) if response.is_success else ""
        if kind and kind.lower() != self.token_type.lower():
            return f"Declare token_type={kind!r} if the service expects its tokens with this type."
        code = refusal_of(response).code
        if code != "invalid_client" and (code or response.status_code != httpx.codes.UNAUTHORIZED):
            return super().error_hint(response)
        if self.client_secret is None:
            return "Check client_id. The service may also require a client_secret, which is not declared."
        alternative = "client_secret_post" if self.auth_method == "client_secret_basic" else "client_secret_basic"
        return (
            f"Check client_id and client_secret. The service may also expect another method: try "
            f"auth_method={alternative!r} instead of {self.auth_method!r}."
        )

    def source(self, ctx: CallContext) -> str:
        secret = "" if self.client_secret is None else ctx.value(self.client_secret)
        # Each audience or tenant has its own token.
        extra = [f"{name}={ctx.value(text)}" for name, text in self.extra.items()]
        return "\0".join([endpoint_url(ctx, self.token_url), ctx.value(self.client_id), secret, self.scope, *extra])

    def describe(self) -> dict[str, Any]:
        return {
            "clientId": shown(self.client_id),
            "clientSecret": None if self.client_secret is None else shown(self.client_secret),
            "scope": self.scope,
            "method": self.auth_method,
        }

    def secrets(self, ctx: CallContext) -> list[str]:
        return [self.client_secret] if isinstance(self.client_secret, str) else []


class OAuth2ClientCredentials(_OAuth2):
    """Client credentials grant (RFC 6749 4.4). token_url: absolute, or relative to the plug's base URL.

    extra: additional form fields of the token request, such as `{"audience": "…"}`. token_type: the type that the service
    issues (RFC 6749 7.1), compared case-insensitively; it is also the scheme of the Authorization header, unless `prefix`
    sets the text before the token. renew_on: statuses of the API that renew the token.
    """

    def __init__(
        self,
        token_url: Text,
        client_id: Text,
        client_secret: Text,
        *,
        scope: str = "",
        auth_method: ClientMethod = "client_secret_basic",
        extra: Mapping[str, Text] | None = None,
        token_type: str = "Bearer",
        prefix: str | None = None,
        renew_on: Collection[int] = RENEW_ON,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            token_url,
            client_id,
            client_secret,
            scope=scope,
            auth_method=auth_method,
            extra=extra,
            token_type=token_type,
            prefix=prefix,
            renew_on=renew_on,
            clock=clock,
        )

    async def token_request(self, ctx: CallContext, old: Token | None) -> httpx.Request:
        return self.grant(ctx, {"grant_type": "client_credentials", "scope": self.scope})

    def describe(self) -> dict[str, Any]:
        return {"type": "oauth2-client-credentials", **super().describe()}


@dataclass(frozen=True)
class AuthorizationRequest:
    """The URL for the user's browser, and the values to keep until the redirect arrives."""

    url: str
    state: str
    verifier: str
    redirect_uri: str

    def __repr__(self) -> str:
        return f"AuthorizationRequest(redirect_uri={self.redirect_uri!r})"


class OAuth2AuthorizationCode(_OAuth2):
    """Authorization code grant with PKCE (S256 always), refresh included; refresh tokens may rotate.

    A person signs in once: `khotan plug NAME --login`, or `authorization_request` and `exchange_request` in your
    application. client_secret=None: a public client. issuer: if set, the `iss` of the response must equal it (RFC 9207).
    token_type, prefix, renew_on: as in OAuth2ClientCredentials.
    """

    def __init__(
        self,
        authorize_url: Text,
        token_url: Text,
        client_id: Text,
        client_secret: Text | None = None,
        *,
        scope: str = "",
        auth_method: ClientMethod = "client_secret_basic",
        authorize_params: Mapping[str, str] | None = None,
        issuer: str | None = None,
        extra: Mapping[str, Text] | None = None,
        token_type: str = "Bearer",
        prefix: str | None = None,
        renew_on: Collection[int] = RENEW_ON,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            token_url,
            client_id,
            client_secret,
            scope=scope,
            auth_method=auth_method,
            extra=extra,
            token_type=token_type,
            prefix=prefix,
            renew_on=renew_on,
            clock=clock,
        )
        self.authorize_url = authorize_url
        self.authorize_params = dict(authorize_params or {})
        self.issuer = issuer

    def authorization_request(self, ctx: CallContext, redirect_uri: str) -> AuthorizationRequest:
        """A new request with random state and PKCE verifier (RFC 7636 4.1)."""
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        url = prepare_grant_uri(
            endpoint_url(ctx, self.authorize_url),
            client_id=ctx.value(self.client_id),
            response_type="code",
            redirect_uri=redirect_uri,
            scope=self.scope or None,
            state=state,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
            **self.authorize_params,
        )
        return AuthorizationRequest(str(url), state, verifier, redirect_uri)

    def exchange_request(self, ctx: CallContext, asked: AuthorizationRequest, callback_url: str) -> httpx.Request:
        """The token request for the code in the callback URL.

        Raises AuthError if the user or the server denied access, or if the state or the issuer does not match.
        """
        answer = {name: values[0] for name, values in parse_qs(urlsplit(callback_url).query).items()}
        if not hmac.compare_digest(answer.get("state", "").encode(), asked.state.encode()):
            raise self._login_error(ctx, "the response has a different state: it does not belong to this login")
        if self.issuer and answer.get("iss", self.issuer) != self.issuer:
            raise self._login_error(ctx, "the response comes from another issuer")
        if "error" in answer:
            text = answer.get("error_description", "")
            raise self._login_error(ctx, answer["error"] + (f" ({text})" if text else ""))
        if not answer.get("code"):
            raise self._login_error(ctx, "the response has no code")
        return self.grant(
            ctx,
            {
                "grant_type": "authorization_code",
                "code": answer["code"],
                "redirect_uri": asked.redirect_uri,
                "code_verifier": asked.verifier,
            },
        )

    async def accept(self, ctx: CallContext, response: httpx.Response) -> None:
        """Store the token of an exchange's response."""
        token = self.read_token(ctx, response, None)
        await self.keep(ctx, self.token_key(ctx), token)

    async def token_request(self, ctx: CallContext, old: Token | None) -> httpx.Request:
        if old is None or not old.refresh_token:
            raise AuthError(
                f"Plug {ctx.plug!r} is not signed in"
                if old is None
                else f"The sign-in of plug {ctx.plug!r} has expired",
                plug=ctx.plug,
                endpoint=ctx.endpoint,
                hint="Sign in once in a browser. The token is then stored and renewed automatically.",
                next=[f"khotan plug {ctx.plug} --login"],
            )
        return self.grant(ctx, {"grant_type": "refresh_token", "refresh_token": old.refresh_token})

    def refresh_refused(self, response: httpx.Response, old: Token | None) -> bool:
        return old is not None and refusal_of(response).code == "invalid_grant"

    def read_token(self, ctx: CallContext, response: httpx.Response, old: Token | None) -> Token:
        if self.refresh_refused(response, old):
            raise AuthError(
                f"The sign-in of plug {ctx.plug!r} was revoked or has expired (invalid_grant)",
                plug=ctx.plug,
                endpoint=ctx.endpoint,
                response=response,
                hint="Sign in again.",
                next=[f"khotan plug {ctx.plug} --login"],
            )
        return super().read_token(ctx, response, old)

    def describe(self) -> dict[str, Any]:
        return {"type": "oauth2-authorization-code", **super().describe()}

    def _login_error(self, ctx: CallContext, what: str) -> AuthError:
        return AuthError(
            f"The login of plug {ctx.plug!r} failed: {what}",
            plug=ctx.plug,
            hint="Start the login again.",
            next=[f"khotan plug {ctx.plug} --login"],
        )
