"""HTTP transports: httpx requests and responses, carried by aiohttp's connections or by httpx's own.

httpx's own pool checks every connection for every request and slows down with concurrency; aiohttp's does not. The
API stays httpx's. `AiohttpTransport` guarantees what existing adapters do not: percent-encoding is sent unchanged, a
dropped connection is distinguished from one that was never made (the retry rules need this), and no cookie jar
outlives a request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import httpx

from khotan_cli.errors import ConfigError

if TYPE_CHECKING:
    import aiohttp

TransportKind = Literal["aiohttp", "httpx"]
MAX_CONNECTIONS = 100
KEEPALIVE = 15.0
"""Seconds that an idle connection stays open."""
_MAX_HEADER = 65536
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True)
class TransportOptions:
    """Options that calls must share to use the same connections.

    proxy: URL, None for the environment's (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), "" for none.
    custom: a transport that is used unchanged and never closed here.
    """

    kind: TransportKind = "aiohttp"
    http2: bool = False
    verify: bool | str | ssl.SSLContext = True
    proxy: str | None = None
    custom: httpx.AsyncBaseTransport | None = field(default=None, compare=True)


class HttpClient:
    """The connections of one event loop and one set of options."""

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        self._transports: dict[str | None, httpx.AsyncBaseTransport] = {}
        self._proxies: dict[tuple[str, str], str | None] = {}
        # A queueing pool checks every connection, so no more requests are admitted than there are connections.
        self._gate = asyncio.Semaphore(MAX_CONNECTIONS)
        self._context: ssl.SSLContext | None = None

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send one request. The body of the response is still unread; its connection slot is freed when it is closed."""
        transport = self._transport_for(request.url)
        await self._gate.acquire()
        try:
            response = await transport.handle_async_request(request)
        except BaseException:
            self._gate.release()
            raise
        response.request = request
        response.stream = _Gated(response.stream, self._gate)
        return response

    async def aclose(self) -> None:
        transports, self._transports = self._transports, {}
        for transport in transports.values():
            await transport.aclose()

    def _transport_for(self, url: httpx.URL) -> httpx.AsyncBaseTransport:
        if self._options.custom is not None:
            return self._options.custom
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx.UnsupportedProtocol(f"{url.scheme or 'no scheme'}: a URL must start with http:// or https://")
        origin = (url.scheme, url.netloc.decode())
        if origin not in self._proxies:
            self._proxies[origin] = self._proxy_for(url)
        proxy = self._proxies[origin]
        if proxy not in self._transports:
            self._transports[proxy] = self._create(proxy)
        return self._transports[proxy]

    def _proxy_for(self, url: httpx.URL) -> str | None:
        if self._options.proxy is not None:
            return self._options.proxy or None
        proxies = getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(url.netloc.decode()) or proxy_bypass(url.host):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _create(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        options = self._options
        if proxy is not None:
            _check_proxy(proxy)
        # aiohttp supports neither HTTP/2 nor SOCKS.
        if options.kind == "httpx" or options.http2 or (proxy or "").startswith("socks"):
            return httpx.AsyncHTTPTransport(
                verify=self._ssl_context(),
                http2=options.http2,
                proxy=proxy,
                trust_env=False,
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE),
            )
        return AiohttpTransport(self._ssl_context, proxy)

    def _ssl_context(self) -> ssl.SSLContext:
        if self._context is None:
            verify = self._options.verify
            if isinstance(verify, str):
                self._context = _trusting(verify)
            else:
                self._context = httpx.create_ssl_context(verify=verify)
        return self._context


def _check_proxy(proxy: str) -> None:
    """Raises ConfigError for an unusable proxy. The message omits the URL, which may contain a password."""
    try:
        url = httpx.URL(proxy)
        scheme, host = url.scheme, url.host
    except (httpx.InvalidURL, ValueError):
        scheme = host = ""
    if scheme not in _PROXY_SCHEMES or not host:
        problem = f"has the scheme {scheme!r}, which is not supported" if host and scheme else "is not a URL"
        raise ConfigError(
            f"the proxy {problem}",
            hint=f"Use a URL with one of {', '.join(_PROXY_SCHEMES)}, such as http://proxy.example.com:3128, in proxy= or in "
            "the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY).",
        )
    if scheme.startswith("socks") and find_spec("socksio") is None:
        raise ConfigError(
            "a SOCKS proxy needs the package socksio, which is not installed", hint="pip install 'httpx[socks]'"
        )


def _trusting(path: str) -> ssl.SSLContext:
    """A context that trusts the authorities in a file. Raises ConfigError for an unreadable file or one without any."""
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as exc:  # ssl.SSLError, raised for a file without a certificate, is an OSError
        reason = (
            "it contains no certificate in PEM form"
            if isinstance(exc, ssl.SSLError)
            else getattr(exc, "strerror", None)
        )
        raise ConfigError(
            f"invalid CA file {path!r} in verify=: {reason or 'its path is invalid'}",
            hint="Correct the path. A relative path starts at the working directory of the process.",
        ) from None


class ClientPool:
    """One HttpClient per event loop and options, closed when the loop ends."""

    def __init__(self) -> None:
        self._clients: WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[TransportOptions, tuple[HttpClient, AsyncGenerator[None, None]]]
        ] = WeakKeyDictionary()

    async def get(self, options: TransportOptions) -> HttpClient:
        clients = self._clients.setdefault(asyncio.get_running_loop(), {})
        entry = clients.get(options)
        if entry is None:
            client = HttpClient(options)
            # asyncio.run() closes the loop's open async generators before the loop: this one closes the connections.
            closer = self._close_with_loop(options, client)
            clients[options] = entry = (client, closer)
            await anext(closer)
        return entry[0]

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        for _, closer in list(self._clients.get(asyncio.get_running_loop(), {}).values()):
            await closer.aclose()

    async def _close_with_loop(self, options: TransportOptions, client: HttpClient) -> AsyncGenerator[None, None]:
        loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            clients = self._clients.get(loop, {})
            clients.pop(options, None)
            if not clients:
                self._clients.pop(loop, None)
            await client.aclose()


class _Gated(httpx.AsyncByteStream):
    """A body that frees its connection slot when it is closed."""

    def __init__(self, stream: Any, gate: asyncio.Semaphore) -> None:
        self._stream = stream
        self._gate: asyncio.Semaphore | None = gate

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.release()
            await self._stream.aclose()


class AiohttpTransport(httpx.AsyncBaseTransport):
    """httpx's transport interface over an aiohttp session. HTTP/1.1."""

    def __init__(self, ssl_context: Any, proxy: str | None) -> None:
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        import aiohttp
        from yarl import URL

        session = self._session or self._open()
        url = request.url
        timeout = request.extensions.get("timeout", {})
        with _mapped(request):
            response = await session.request(
                request.method,
                URL(str(url), encoded=True),
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                data=(await request.aread()) or None,
                allow_redirects=False,
                ssl=self._ssl_context() if url.scheme == "https" else True,
                proxy=self._proxy,
                server_hostname=request.extensions.get("sni_hostname"),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=timeout.get("connect"), sock_read=timeout.get("read")
                ),
            )
        if not response.content.is_eof():
            _end_with_connection(response)
        version = response.version
        return httpx.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=_AiohttpStream(request, response),
            request=request,
            extensions={
                "http_version": b"HTTP/1.0" if version and version.minor == 0 else b"HTTP/1.1",
                "reason_phrase": (response.reason or "").encode("latin-1", "replace"),
            },
        )

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )
        return self._session

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _end_with_connection(response: aiohttp.ClientResponse) -> None:
    """Make a body fail when its connection is lost. aiohttp 3.14 never wakes the reader of a body with invalid chunks."""
    import aiohttp

    def fail(_: object = None) -> None:
        if not response.content.is_eof() and response.content.exception() is None:
            response.content.set_exception(aiohttp.ClientPayloadError("the body was cut short or is not valid chunks"))

    protocol = response.connection.protocol if response.connection is not None else None
    closed = protocol.closed if protocol is not None else None
    if closed is None:
        fail()
    else:
        closed.add_done_callback(fail)


class _AiohttpStream(httpx.AsyncByteStream):
    def __init__(self, request: httpx.Request, response: aiohttp.ClientResponse) -> None:
        self._request, self._response = request, response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _mapped(self._request):
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        self._response.release()


@contextmanager
def _mapped(request: httpx.Request) -> Iterator[None]:
    """Convert aiohttp's exceptions to httpx's, which distinguish whether the request may have reached the service."""
    import aiohttp

    try:
        yield
    except (aiohttp.ConnectionTimeoutError, aiohttp.ServerConnectionError, TimeoutError) as exc:
        raise _timeout_or_drop(exc, request) from exc
    except (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError) as exc:
        raise httpx.ProxyError(f"the proxy rejected the connection or is unreachable: {exc}", request=request) from exc
    except aiohttp.ClientConnectorError as exc:
        raise httpx.ConnectError(str(exc), request=request) from exc
    except ValueError as exc:  # an invalid URL: aiohttp.InvalidURL, or an error of yarl
        raise httpx.UnsupportedProtocol("the URL cannot be requested", request=request) from exc
    except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as exc:
        raise httpx.RemoteProtocolError(_protocol_text(exc), request=request) from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise httpx.ReadError(str(exc) or type(exc).__name__, request=request) from exc


def _timeout_or_drop(exc: Exception, request: httpx.Request) -> httpx.TransportError:
    import aiohttp

    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout("no connection in time", request=request)
    if isinstance(exc, TimeoutError):
        return httpx.ReadTimeout("no data in time", request=request)
    return httpx.RemoteProtocolError("the server closed the connection without a response", request=request)


def _protocol_text(exc: Exception) -> str:
    message = str(getattr(exc, "message", "") or exc)
    return " ".join(message.split())[:200] or type(exc).__name__
