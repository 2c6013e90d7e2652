"""The state that the copies of a plug share."""

from __future__ import annotations

import time
from collections.abc import Mapping

from khotan_cli.runtime.http.cookies import CookieJars
from khotan_cli.runtime.http.rate_limit import ProcessRateStore, RateStore
from khotan_cli.runtime.http.token_cache import TokenCache
from khotan_cli.runtime.http.transport import ClientPool
from khotan_cli.runtime.http.variables import EnvVarStore, VarStore


class Shared:
    """Connections, tokens, cookies, rate-limit buckets, and the store of variables.

    `ttl`: seconds for which values from the store are cached.
    """

    def __init__(self) -> None:
        self.pool = ClientPool()
        self.vars: VarStore = EnvVarStore()
        self.rates: RateStore = ProcessRateStore()
        self.tokens = TokenCache()
        self.jars = CookieJars()
        self.ttl = 0.0
        self._digest: tuple[VarStore | None, str, str] = (None, "", "")
        self._stored: tuple[float, Mapping[str, str]] | None = None

    async def stored(self, plug: str) -> Mapping[str, str]:
        now = time.monotonic()
        if self._stored is None or now >= self._stored[0]:
            self._stored = (now + self.ttl, await self.vars.load(plug))
        return self._stored[1]

    def fingerprint(self, source: str) -> str:
        """The store's digest of a credential. The last one is cached, since most plugs have one credential."""
        store, last_source, digest = self._digest
        if store is not self.vars or last_source != source:
            digest = self.vars.fingerprint(source)
            self._digest = (self.vars, source, digest)
        return digest

    def forget(self) -> None:
        """Clear the caches, so that the next call reads values and tokens again."""
        self._stored = None
        self.tokens.forget()
