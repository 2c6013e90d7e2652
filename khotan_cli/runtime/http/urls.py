"""Parses and checks request URLs, compares their origins, and builds redirected requests."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

import httpx

from khotan_cli.runtime.http.errors import RedirectError


def redirected(request: httpx.Request, response: httpx.Response) -> httpx.Request:
    """Build the request of a redirect: 303, and 301/302 after POST, become GET; 307/308 keep method and body.

    RFC 9110 15.4. Raises RedirectError for a Location that is not an http(s) URL.
    """
    location = response.headers["location"]
    try:
        parts = urlsplit(location)
        if (parts.scheme in ("http", "https") or location.startswith("//")) and not parts.netloc:
            raise ValueError
        url = request.url.join(location)
        check_url(url)
    except (httpx.InvalidURL, ValueError):
        raise RedirectError("the redirect's Location is not a valid URL", request=request) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise RedirectError(f"the redirect's Location is a {url.scheme or 'relative'}: URL", request=request)
    if not url.fragment and request.url.fragment:
        url = url.copy_with(fragment=request.url.fragment)
    method, content = request.method, request.content
    status = response.status_code
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, content = "GET", b""
    dropped = {"host", "content-length", "transfer-encoding"} | (set() if content else {"content-type"})
    headers = [(n, v) for n, v in request.headers.multi_items() if n.lower() not in dropped]
    return httpx.Request(method, url, headers=headers, content=content or None, extensions=request.extensions)


def same_origin(url: httpx.URL, base: httpx.URL) -> bool:
    """Whether scheme, host and port are equal (RFC 6454 5), default ports filled in."""
    return (url.scheme, url.host, _port(url)) == (base.scheme, base.host, _port(base))


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


@lru_cache(maxsize=512)
def check_url(url: httpx.URL) -> None:
    """Raises ValueError for an invalid host or port, some of which httpx accepts (RFC 3986 3.2.2, 3.2.3)."""
    if url.scheme in ("http", "https") and not url.host:
        raise ValueError("it has no host")
    if "%" in url.host and ":" not in url.host:  # httpx encodes characters that are invalid in a host
        raise ValueError("its host is invalid")
    port = urlsplit(str(url)).port  # raises for an unclosed bracket and for a port above 65535
    if port == 0:
        raise ValueError("port 0 is invalid")


@lru_cache(maxsize=512)
def parsed_url(text: str) -> httpx.URL:
    """Parse a URL. Cached, because parsing takes most of the time of building a request."""
    return httpx.URL(text)
