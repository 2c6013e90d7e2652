"""Removes credentials from requests to other origins (RFC 6454 4), and explains this in errors."""

from __future__ import annotations

import httpx

WITHHELD = "khotan.withheld"
"""Extension of a request and its response: why no credentials were sent. Absent if they were sent."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAFE_ELSEWHERE = frozenset(
    {"accept", "accept-encoding", "accept-language", "content-length", "content-type", "host", "user-agent"}
)
"""Headers that are sent to other origins: none of them contains a credential."""


def strip(request: httpx.Request) -> bool:
    """Remove the headers that may contain a credential. Returns whether there were any."""
    removed = [name for name in request.headers if name.lower() not in _SAFE_ELSEWHERE]
    for name in removed:
        del request.headers[name]
    return bool(removed)


def origin(url: httpx.URL) -> str:
    """`https://api.example:8443`, without a default port."""
    port = f":{url.port}" if url.port and url.port != _DEFAULT_PORTS.get(url.scheme) else ""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}{port}"


def why_withheld(url: httpx.URL, base: httpx.URL) -> str:
    """The hint that names both origins, their difference, and what to do."""
    parts = {
        "scheme": (url.scheme, base.scheme),
        "host": (url.host, base.host),
        "port": (_port(url), _port(base)),
    }
    differs = [name for name, (actual, expected) in parts.items() if actual != expected]
    if "scheme" in differs and None in (url.port, base.port):
        differs = [name for name in differs if name != "port"]  # implied by the scheme
    different = " and ".join([", ".join(differs[:-1]), differs[-1]] if len(differs) > 1 else differs)
    return (
        f"The request went to {origin(url)}, but the plug's base_url is {origin(base)} (different {different}), so "
        f"no credentials were sent. If both are the same service, set base_url to {origin(url)}."
    )


def withheld_from(message: httpx.Request | httpx.Response) -> str:
    """Why no credentials were sent with a request; empty if they were sent, or if there are none."""
    return str(message.extensions.get(WITHHELD) or "")


def _port(url: httpx.URL) -> int | None:
    return url.port or _DEFAULT_PORTS.get(url.scheme)
