"""Cookies that a plug keeps: one jar per credential and origin, in memory (RFC 6265)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import httpx

MAX_JARS = 1000
"""Maximum number of jars. The least recently used one is dropped first."""


class CookieJars:
    """The jars of one plug and its copies."""

    def __init__(self) -> None:
        self._jars: OrderedDict[Hashable, httpx.Cookies] = OrderedDict()

    def of(self, key: Hashable) -> httpx.Cookies:
        """The jar of a credential at an origin, created on first use."""
        jar = self._jars.setdefault(key, httpx.Cookies())
        self._jars.move_to_end(key)
        while len(self._jars) > MAX_JARS:
            self._jars.popitem(last=False)
        return jar
