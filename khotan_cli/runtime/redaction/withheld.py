"""What khotan keeps from other origins (RFC 6454 4), and how errors say so."""

from __future__ import annotations

import httpx

WITHHELD = "khotan.withheld"
"""Extension of a request and of its response: why no credentials were sent with it. Absent where they were."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SAFE_ELSEWHERE = frozenset(
    {"accept", "accept-encoding", "accept-language", "content-length", "content-type", "host", "user-agent"}
)
"""Headers that another origin may see: none of them carries a credential."""


def strip(request: httpx.Request) -> bool:
    """Remove the headers that may carry a credential; says whether there were any."""
    found = [name for name in request.headers if name.lower() not in _SAFE_ELSEWHERE]
    for name in found:
        del request.headers[name]
    return bool(found)


def origin(url: httpx.URL) -> str:
    """`https://api.example:8443`, without a default port."""
    port = f":{url.port}" if url.port and url.port != _DEFAULT_PORTS.get(url.scheme) else ""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}{port}"


def why_withheld(url: httpx.URL, base: httpx.URL) -> str:
    """The sentences that name both origins, the difference between them, and what to do."""
    parts = {
        "scheme": (url.scheme, base.scheme),
        "host": (url.host, base.host),
        "port": (_port(url), _port(base)),
    }
    differs = [name for name, (one, other) in parts.items() if one != other]
    if "scheme" in differs and None in (url.port, base.port):
        differs = [name for name in differs if name != "port"]  # it follows from the scheme
    different = " and ".join([", ".join(differs[:-1]), differs[-1]] if len(differs) > 1 else differs)
    return (
        f"The request went to {origin(url)}, but the plug's base_url is at {origin(base)} (different {different}), so that "
        f"no credentials were sent. If both are the same service, set base_url to {origin(url)}."
    )


def withheld_from(message: httpx.Request | httpx.Response) -> str:
    """Why no credentials were sent with a request; empty where they were, or where there were none."""
    return str(message.extensions.get(WITHHELD) or "")


def _port(url: httpx.URL) -> int | None:
    return url.port or _DEFAULT_PORTS.get(url.scheme)
