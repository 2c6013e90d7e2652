"""Cookies that a plug keeps: one jar per credential and origin, in memory (RFC 6265)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING

import httpx

from khotan_cli.runtime.plugs.auth import PlugAuth
from khotan_cli.runtime.plugs.context import CallContext
from khotan_cli.runtime.plugs.urls import same_origin
from khotan_cli.runtime.plugs.withheld import origin

if TYPE_CHECKING:
    from khotan_cli.runtime.plugs.plug import Plug

MOST_JARS = 1000
"""Jars that are kept; the one that was not used for the longest time goes first."""


class CookieJars:
    """The jars of one plug and its copies."""

    def __init__(self) -> None:
        self._jars: OrderedDict[Hashable, httpx.Cookies] = OrderedDict()

    def of(self, key: Hashable) -> httpx.Cookies:
        """The jar of a credential at an origin, made on first use."""
        jar = self._jars.setdefault(key, httpx.Cookies())
        self._jars.move_to_end(key)
        while len(self._jars) > MOST_JARS:
            self._jars.popitem(last=False)
        return jar


def jar_for(plug: Plug, request: httpx.Request, ctx: CallContext) -> httpx.Cookies | None:
    """The jar of a request: None where the plug keeps no cookies, and for every origin but the plug's own.

    Variables count as a part of the credential: a session may have been opened with them.
    """
    if not plug.cookies or not same_origin(request.url, ctx.base_url):
        return None
    auth = plug.auth
    source = auth.source(ctx) if isinstance(auth, PlugAuth) else ""
    digest = ctx.store.fingerprint(f"cookies\0{source}\0{sorted(ctx.vars.items())!r}")
    return plug.shared.jars.of((digest, origin(request.url), None if isinstance(auth, PlugAuth) else auth))
