"""Authentication strategies: `httpx.Auth` classes that read a call's variables from its context.

With plain strings, each also works with a plain httpx client. They only change requests; the sender does the I/O.
"""

from __future__ import annotations

import inspect
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx

from khotan_cli.errors import AuthError
from khotan_cli.runtime.http.call_context import CallContext, context_of
from khotan_cli.runtime.http.variables import Var

Text = str | Var
TokenSource = Text | Callable[[], str | Awaitable[str]]


class PlugAuth(httpx.Auth):
    """Base of khotan's strategies. Override `apply`, `source` and `describe`."""

    async def apply(self, request: httpx.Request, ctx: CallContext) -> None:
        """Add the credential to the request."""

    def source(self, ctx: CallContext) -> str:
        """The text that identifies the credential. Only its keyed digest is stored, to name rate buckets and tokens."""
        return ""

    def describe(self) -> dict[str, Any]:
        """A description without secrets: type, locations and names of variables, never values."""
        return {"type": type(self).__name__}

    def secrets(self, ctx: CallContext) -> list[str]:
        """Values to mask, besides those of secret variables."""
        return []

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        ctx = context_of(request)
        used = self.source(ctx)
        await self.apply(request, ctx)
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            # The credential in the store may have changed since it was read.
            await ctx.reload()
            if self.source(ctx) != used:
                await self.apply(request, ctx)
                yield request

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.describe().items() if k != 'type')})"


def shown(text: Any) -> str:
    """Describe an argument without its value: the name of its variable, or its kind."""
    if isinstance(text, Var):
        return f"var:{text.name}"
    return "callable" if callable(text) else "literal"


class BearerAuth(PlugAuth):
    """`Authorization: Bearer <token>` (RFC 6750 2.1). The token is a string, a Var, or a sync or async callable."""

    def __init__(self, token: TokenSource) -> None:
        self.token = token

    async def apply(self, request: httpx.Request, ctx: CallContext) -> None:
        request.headers["Authorization"] = f"Bearer {await self._value(ctx)}"

    async def _value(self, ctx: CallContext) -> str:
        if isinstance(self.token, (str, Var)):
            return ctx.value(self.token)
        returned = self.token()
        text: Any = await returned if inspect.isawaitable(returned) else returned
        if not isinstance(text, str) or not text:
            actual = "an empty text" if text == "" else f"a value of type {type(text).__name__}"
            raise AuthError(
                f"The token function of plug {ctx.plug!r} returned {actual}, not a token",
                plug=ctx.plug,
                endpoint=ctx.endpoint,
                hint="Return the token as text, or raise an error with the reason.",
            )
        ctx.tokens.remember(text)
        return text

    def source(self, ctx: CallContext) -> str:
        return ctx.value(self.token) if isinstance(self.token, (str, Var)) else f"callable:{id(self.token)}"

    def describe(self) -> dict[str, Any]:
        return {"type": "bearer", "token": shown(self.token)}

    def secrets(self, ctx: CallContext) -> list[str]:
        return [self.token] if isinstance(self.token, str) else []


class BasicAuth(PlugAuth):
    """HTTP Basic (RFC 7617), user name and password as UTF-8."""

    def __init__(self, username: Text, password: Text = "") -> None:
        self.username, self.password = username, password

    async def apply(self, request: httpx.Request, ctx: CallContext) -> None:
        request.headers["Authorization"] = f"Basic {b64encode(self.source(ctx).encode()).decode()}"

    def source(self, ctx: CallContext) -> str:
        return f"{ctx.value(self.username)}:{ctx.value(self.password)}"

    def describe(self) -> dict[str, Any]:
        return {"type": "basic", "username": shown(self.username), "password": shown(self.password)}

    def secrets(self, ctx: CallContext) -> list[str]:
        literal = [self.password] if isinstance(self.password, str) else []
        return [*literal, self.source(ctx)]


class ApiKeyAuth(PlugAuth):
    """An API key in a header (`header="X-API-Key"`, optionally with a prefix) or in the query (`query="api_key"`)."""

    def __init__(self, key: Text, *, header: str | None = None, query: str | None = None, prefix: str = "") -> None:
        if header and query:
            raise ValueError("ApiKeyAuth takes header=… or query=…, not both")
        self.key, self.query, self.prefix = key, query, prefix
        self.header = None if query else header or "X-API-Key"

    async def apply(self, request: httpx.Request, ctx: CallContext) -> None:
        value = self.prefix + ctx.value(self.key)
        if self.header:
            request.headers[self.header] = value
        elif self.query:
            request.url = with_query_parameter(request.url, self.query, value)

    def source(self, ctx: CallContext) -> str:
        return ctx.value(self.key)

    def describe(self) -> dict[str, Any]:
        location = {"header": self.header} if self.header else {"query": self.query}
        return {"type": "api-key", **location, "key": shown(self.key)}

    def secrets(self, ctx: CallContext) -> list[str]:
        return [self.key] if isinstance(self.key, str) else []


class CustomAuth(PlugAuth):
    """Custom authentication: `function(request, ctx)`, sync or async, adds the credential to the request.

    `ctx.vars` contains the plug's variables by name.
    """

    def __init__(self, function: Callable[[httpx.Request, CallContext], Awaitable[None] | None]) -> None:
        self.function = function

    async def apply(self, request: httpx.Request, ctx: CallContext) -> None:
        awaitable = self.function(request, ctx)
        if inspect.isawaitable(awaitable):
            await awaitable

    def source(self, ctx: CallContext) -> str:
        return repr(sorted(ctx.vars.items()))

    def describe(self) -> dict[str, Any]:
        return {"type": "custom", "function": getattr(self.function, "__name__", "callable")}


def with_query_parameter(url: httpx.URL, name: str, value: str) -> httpx.URL:
    """The URL with the parameter set. The encoding of other parameters is unchanged."""
    encoded = f"{quote(name, safe='')}="
    kept = [part for part in url.query.decode().split("&") if part and not part.startswith(encoded)]
    return url.copy_with(query="&".join([*kept, encoded + quote(value, safe="")]).encode())
