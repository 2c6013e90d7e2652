"""`Plug`: the client of one external HTTP API."""

from __future__ import annotations

import copy
import keyword
import re
import ssl
import sys
from collections.abc import Awaitable, Collection, Hashable, Mapping
from typing import Any, ClassVar, Self

import httpx
from pydantic import BaseModel

from khotan_cli import __version__
from khotan_cli.errors import ConfigError, UnknownName
from khotan_cli.runtime.auth.schemes import PlugAuth
from khotan_cli.runtime.content.codec import Encoding, decode_error, decode_untyped
from khotan_cli.runtime.content.decompression import accept_encoding
from khotan_cli.runtime.content.error_body import ErrorBody
from khotan_cli.runtime.content.parsers import Parser
from khotan_cli.runtime.content.present import jsonable
from khotan_cli.runtime.content.query import QueryArrays
from khotan_cli.runtime.http.base_url import BaseUrl
from khotan_cli.runtime.http.call_context import CallContext
from khotan_cli.runtime.http.dry_run import MissingResponse, suppress
from khotan_cli.runtime.http.errors import service_error, status_error
from khotan_cli.runtime.http.outgoing import outgoing, params_text, query_text, shown_body, with_query
from khotan_cli.runtime.http.pipeline import send
from khotan_cli.runtime.http.quota import Quota
from khotan_cli.runtime.http.rate_limit import RateLimit, RateStore
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.http.state import Shared
from khotan_cli.runtime.http.transport import TransportKind, TransportOptions
from khotan_cli.runtime.http.variables import ResolvedVars, Var, VarStore, resolve
from khotan_cli.runtime.paging.base import Paginator
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint, Endpoint
from khotan_cli.runtime.plugs.names import check_names
from khotan_cli.runtime.plugs.paginator_check import check_paginators
from khotan_cli.runtime.redaction.masker import Masker

_OPTIONS = frozenset(
    {
        "base_url", "auth", "retry", "paginator", "error_body", "rate_limit", "timeout", "headers", "encoding", "query_arrays",
        "query_json", "quota", "transport", "http2", "verify", "proxy", "parsers", "max_response_bytes", "follow_redirects",
        "cookies",
    }
)  # fmt: skip


class Plug:
    """Client of one API. Subclass it, declare endpoints and variables as class attributes, and create an instance.

    base_url: http(s) URL, may contain {var}. timeout: seconds for one attempt, first to last byte, or an httpx.Timeout.
    headers: sent with each request to the plug's own origin, values may contain {var}. encoding: format of bodies.
    query_arrays: `a=1&a=2` ("repeat"), `a[]=1&a[]=2` ("brackets") or `a=1,2` ("comma"). query_json: parameters that are sent as
    JSON text. quota: the service's rate-limit headers. error_body: which successful responses are errors. transport:
    "aiohttp", or "httpx" for httpx's own; http2 implies the latter. verify: False, a CA file, or an SSLContext. proxy: a URL,
    None for the environment's, "" for none. parsers: content type → function(response); CSV and XML have defaults.
    max_response_bytes: after decompression.
    cookies: True keeps the cookies of the plug's own origin between calls, in memory and separately for each credential.
    Override before_request / after_response (sync or async) to read or change every request and response.
    """

    name: str = ""
    base_url: str = ""
    auth: httpx.Auth | None = None
    retry: Retry = Retry()
    paginator: Paginator | None = None
    error_body: ErrorBody | None = None
    rate_limit: RateLimit | None = None
    quota: Quota | None = None
    timeout: float | httpx.Timeout = 30.0
    headers: Mapping[str, str] = {}
    encoding: Encoding = "json"
    query_arrays: QueryArrays = "repeat"
    query_json: Collection[str] = ()
    transport: TransportKind | httpx.AsyncBaseTransport = "aiohttp"
    http2: bool = False
    verify: bool | str | ssl.SSLContext = True
    proxy: str | None = None
    parsers: Mapping[str, Parser] = {}
    max_response_bytes: int = 32 * 1024 * 1024
    follow_redirects: bool = True
    cookies: bool = False

    _endpoints: ClassVar[Mapping[str, Endpoint[Any]]] = {}
    _vars: ClassVar[Mapping[str, Var]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        members = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
        cls._endpoints = {name: value for name, value in members.items() if isinstance(value, Endpoint)}
        cls._vars = {name: value for name, value in members.items() if isinstance(value, Var)}
        check_names(cls.__name__, (*cls._endpoints, *cls._vars), reserved=Plug)
        check_paginators(cls.__name__, cls.paginator, cls._endpoints)
        cls._base = BaseUrl(cls.__name__, cls.base_url, cls._vars) if cls.base_url else None

    _base: ClassVar[BaseUrl | None] = None

    def __init__(self, *, name: str = "") -> None:
        if self._base is None:
            raise ConfigError(f"{type(self).__name__} has no base_url", hint="Set base_url = 'https://…' on the class.")
        self.name = name or self.name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()
        self.named = bool(name or type(self).name)
        if not self.name.isidentifier() or keyword.iskeyword(self.name):
            raise ConfigError(f"Invalid plug name {self.name!r}", hint="Use letters, digits and underscores.")
        self.module = sys._getframe(1).f_globals.get("__name__", "")
        self.shared = Shared()
        self.has_before_request = type(self).before_request is not Plug.before_request
        self.has_after_response = type(self).after_response is not Plug.after_response
        self._overrides: dict[str, str] = {}
        self.refresh_options()

    def refresh_options(self) -> None:
        """Compute the values that depend on the options, once per instance."""
        custom = self.transport if isinstance(self.transport, httpx.AsyncBaseTransport) else None
        kind: TransportKind = "httpx" if self.transport == "httpx" else "aiohttp"
        self.transport_options = TransportOptions(kind, self.http2, self.verify, self.proxy, custom)
        self._instance_base = (
            self._base if self.base_url == type(self).base_url else BaseUrl(self.name, self.base_url, self._vars)
        )
        self._own_headers = {
            "Accept": "application/json, */*;q=0.5",
            "Accept-Encoding": accept_encoding(),
            "User-Agent": f"khotan/{__version__}",
            **self.headers,
        }
        self._templated = any("{" in str(value) for value in self._own_headers.values())

    # -- what the plug declares --------------------------------------------------------------------------------------

    @classmethod
    def endpoints(cls) -> Mapping[str, Endpoint[Any]]:
        """The declared endpoints by name."""
        return cls._endpoints

    @classmethod
    def declared_vars(cls) -> Mapping[str, Var]:
        """The declared variables by name."""
        return cls._vars

    def endpoint(self, name: str) -> BoundEndpoint[Any]:
        """The endpoint of that name. Raises UnknownName, which suggests the most similar name."""
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise UnknownName("endpoint", name, self._endpoints, where=f"plug {self.name!r}")
        return BoundEndpoint(endpoint, self)

    # -- hooks -------------------------------------------------------------------------------------------------------

    def before_request(self, request: httpx.Request) -> Awaitable[None] | None:
        """Called with each request before authentication; may change it."""

    def after_response(self, response: httpx.Response) -> Awaitable[None] | None:
        """Called with each complete response; may raise."""

    # -- untyped calls -----------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | BaseModel | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call any path, or an absolute URL (other origins get no credentials); returns the decoded body.

        Raises PlugError for an error status, with the decoded body as `.body`.
        """
        response = await self.raw(method, path, params=params, body=body, headers=headers)
        if isinstance(response, MissingResponse):
            return response
        data = decode_untyped(response, self.parsers) if response.is_success else None
        if response.is_success:
            reported = None if self.error_body is None else self.error_body.find(data)
            if reported is not None:
                raise service_error(self.name, "", response, data, reported)
            return data
        raise status_error(self.name, "", response, decode_error(response, self.parsers))

    async def raw(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | BaseModel | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Like `request`, but returns the response whatever its status."""
        query, body = params_text(self, params), jsonable(body)
        suppressed: httpx.Response | None = suppress(
            self.name, "", method.upper(), with_query(path, query), lambda: shown_body(self, body)
        )
        if suppressed is not None:
            return suppressed
        resolved = await self.resolve()
        url = with_query(self._absolute(path, resolved.values), query)
        ctx = self.context("", resolved)
        return await send(self, outgoing(self, ctx, method.upper(), url, body, headers), ctx)

    async def get(self, path: str, **options: Any) -> Any:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Any:
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> Any:
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Any) -> Any:
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> Any:
        return await self.request("DELETE", path, **options)

    # -- typed calls -------------------------------------------------------------------------------------------------

    async def exchange(
        self,
        endpoint: Endpoint[Any],
        path: Mapping[str, str],
        query: Mapping[str, Any],
        body: Any,
        *,
        url: str | None = None,
    ) -> httpx.Response:
        """Send a bound call of an endpoint; `url` replaces path and query (the link to a next page)."""
        resolved = await self.resolve()
        ctx = self.context(endpoint.name, resolved)
        values = {**resolved.values, **path} if endpoint.path.names else {}
        missing = [name for name in endpoint.path.names if name not in values and url is None]
        if missing:
            ctx.value(self._vars[missing[0]])  # raises an error that names the variable
        target = url or with_query(endpoint.path.fill(values), query_text(self, query, endpoint))
        suppressed: httpx.Response | None = suppress(
            self.name, endpoint.name, endpoint.method, target, lambda: shown_body(self, body, endpoint)
        )
        if suppressed is not None:
            return suppressed
        absolute = url or self._absolute(target, resolved.values)
        return await send(self, outgoing(self, ctx, endpoint.method, absolute, body, endpoint.headers, endpoint), ctx)

    def own_headers(self, ctx: CallContext) -> dict[str, str]:
        """The plug's headers, with variables filled in."""
        if not self._templated:
            return dict(self._own_headers)
        return {
            key: ctx.template(value) if isinstance(value, str) else value for key, value in self._own_headers.items()
        }

    def _absolute(self, path: str, values: Mapping[str, str]) -> str:
        if "://" in path.partition("?")[0]:
            return path
        return self._instance_url(values) + (path if path.startswith(("/", "?")) or not path else f"/{path}")

    def _instance_url(self, values: Mapping[str, str]) -> str:
        assert self._instance_base is not None
        return self._instance_base.fill(values)

    # -- variables ---------------------------------------------------------------------------------------------------

    async def resolve(self) -> ResolvedVars:
        """The values of the variables: override, database, environment, default."""
        return resolve(self.name, self._vars, await self.shared.stored(self.name), self._overrides)

    def context(self, endpoint: str, resolved: ResolvedVars) -> CallContext:
        """The context of one call."""

        async def reload() -> Mapping[str, str]:
            self.shared.forget()
            ctx.vars = (await self.resolve()).values
            return ctx.vars

        base = self._instance_base.parsed(resolved.values) if self._instance_base else httpx.URL()
        shared = self.shared
        ctx = CallContext(
            self.name, endpoint, resolved.values, base, shared.vars, shared.tokens, reload, resolved.secret_names
        )
        return ctx

    def bucket_key(self, ctx: CallContext) -> str:
        """Key of the account that this call uses: the plug and a keyed digest of its credential."""
        credential = self.credential(ctx)
        text = credential if isinstance(credential, str) else ""
        return f"{self.name}:{self.shared.fingerprint(text)}" if text else self.name

    def credential(self, ctx: CallContext) -> Hashable:
        """The text that identifies the credential, or the strategy itself if it is not one of khotan's."""
        if isinstance(self.auth, PlugAuth):
            return self.auth.source(ctx)
        return "" if self.auth is None else self.auth

    def masker(self, ctx: CallContext) -> Masker:
        """A masker of every secret that a call of this plug can contain."""
        own = self.auth.secrets(ctx) if isinstance(self.auth, PlugAuth) else []
        return Masker([*ctx.secrets(), *own, *self.shared.tokens.secrets()])

    def bind(self, store: VarStore, rates: RateStore | None = None, *, ttl: float = 5.0) -> None:
        """Use stores of variables and rates that other processes share. The app calls this at start-up."""
        self.shared.vars = store
        self.shared.rates = rates or self.shared.rates
        self.shared.ttl = ttl
        self.shared.forget()

    # -- copies ------------------------------------------------------------------------------------------------------

    def with_vars(self, **values: str) -> Self:
        """A copy with these values of variables. Raises UnknownName for an undeclared variable."""
        for name in values:
            if name not in self._vars:
                raise UnknownName("var", name, self._vars, where=f"plug {self.name!r}")
        clone = copy.copy(self)
        clone._overrides = {**self._overrides, **values}
        return clone

    def with_auth(self, auth: httpx.Auth | None) -> Self:
        """A copy with another authentication."""
        return self.with_options(auth=auth)

    def with_options(self, **options: Any) -> Self:
        """A copy with other options: class attributes that configure a plug (timeout, retry, headers, transport, …)."""
        for name in options:
            if name not in _OPTIONS:
                raise UnknownName("option", name, _OPTIONS, code="invalid_parameters", where="a plug")
        clone = copy.copy(self)
        for name, value in options.items():
            setattr(clone, name, {**self.headers, **value} if name == "headers" else value)
        clone.refresh_options()
        return clone

    async def aclose(self) -> None:
        """Close the connections of the running event loop. Not needed at the end of asyncio.run()."""
        await self.shared.pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.base_url}>"
