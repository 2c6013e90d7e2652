"""Who may read what: the five ways into the sandbox, and its token endpoint. The credentials are published test values."""

from __future__ import annotations

import hmac
import secrets
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

BEARER_TOKEN = "sandbox-bearer-2f6b91c4"
USERNAME, PASSWORD = "sandbox", "sandbox-password"
API_KEY = "sandbox-key-8d03e57a"
API_KEY_HEADER, API_KEY_PARAM = "X-API-Key", "api_key"
CLIENT_ID, CLIENT_SECRET = "sandbox-client", "s3cr3t+/=: x%"
TOKEN_SECONDS = 3600
_MAX_TOKENS = 1000

AREAS: Mapping[str, str] = {
    "bearer": f"Authorization: Bearer {BEARER_TOKEN}",
    "basic": f"HTTP Basic, user {USERNAME}, password {PASSWORD}",
    "api-key-header": f"{API_KEY_HEADER}: {API_KEY}",
    "api-key-query": f"?{API_KEY_PARAM}={API_KEY}",
    "oauth2": f"OAuth 2.0 client credentials, client id {CLIENT_ID}, client secret {CLIENT_SECRET}",
}
"""First path segment → how a client gets in."""


class Tokens:
    """Access tokens issued by this sandbox. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def issue(self) -> str:
        now = self._clock()
        if len(self._until) >= _MAX_TOKENS:
            self._until = {token: until for token, until in self._until.items() if until > now}
        token = secrets.token_urlsafe(24)
        self._until[token] = now + TOKEN_SECONDS
        return token

    def valid(self, token: str) -> bool:
        return self._until.get(token, 0.0) > self._clock()


def challenge(area: str, request: Request, tokens: Tokens) -> str | None:
    """The `WWW-Authenticate` challenge (RFC 9110 11.6.1) that refuses a request, or None for one that may pass."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if area == "basic":
        user, _, password = _basic(request)
        return None if _same(user, USERNAME) & _same(password, PASSWORD) else 'Basic realm="sandbox", charset="UTF-8"'
    if area == "api-key-header":
        return None if _same(request.headers.get(API_KEY_HEADER, ""), API_KEY) else f'ApiKey header="{API_KEY_HEADER}"'
    if area == "api-key-query":
        return (
            None if _same(request.query_params.get(API_KEY_PARAM, ""), API_KEY) else f'ApiKey query="{API_KEY_PARAM}"'
        )
    is_bearer = scheme.lower() == "bearer"
    known = tokens.valid(given) if area == "oauth2" else _same(given, BEARER_TOKEN)
    if is_bearer and known:
        return None
    # RFC 6750 3.1: the reason is named only where a token was given.
    return 'Bearer realm="sandbox"' + (', error="invalid_token"' if is_bearer else "")


async def token(request: Request, tokens: Tokens) -> Response:
    """Client credentials grant (RFC 6749 4.4), the client authenticated by Basic or by form fields (2.3.1)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return _refused(400, "invalid_request", "Send the fields as application/x-www-form-urlencoded.")
    try:
        fields = {name: values[0] for name, values in parse_qs((await request.body()).decode("utf-8")).items()}
    except UnicodeDecodeError:
        return _refused(400, "invalid_request", "The body is not UTF-8.")
    user, separator, password = _basic(request)
    if separator:
        client_id, client_secret = unquote_plus(user), unquote_plus(password)
    else:
        client_id, client_secret = fields.get("client_id", ""), fields.get("client_secret", "")
    if not (_same(client_id, CLIENT_ID) & _same(client_secret, CLIENT_SECRET)):
        return _refused(401, "invalid_client", "Unknown client, or wrong secret.")
    if fields.get("grant_type") != "client_credentials":
        return _refused(400, "unsupported_grant_type", "Only client_credentials is supported.")
    body = {"access_token": tokens.issue(), "token_type": "Bearer", "expires_in": TOKEN_SECONDS}
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


def _basic(request: Request) -> tuple[str, str, str]:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", "", ""
    try:
        return b64decode(given, validate=True).decode("utf-8").partition(":")
    except (Base64Error, UnicodeDecodeError):
        return "", "", ""


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _refused(status: int, error: str, description: str) -> Response:
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="sandbox"'
    return JSONResponse({"error": error, "error_description": description}, status, headers)
