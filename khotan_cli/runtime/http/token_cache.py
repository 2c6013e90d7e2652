"""Access tokens, and a plug's in-memory cache of them."""

from __future__ import annotations

from dataclasses import dataclass

from khotan_cli.runtime.redaction.known_secrets import known

_LEEWAY = 30.0
"""Seconds before its expiry at which a token is renewed, or a tenth of its lifetime if that is shorter."""

_REMEMBERED = 200
"""Number of replaced tokens that are still masked: a service may still show them."""


@dataclass(frozen=True)
class Token:
    """An access token. Times are seconds since the epoch; expires_at None means that it is used until the service rejects it."""

    access_token: str
    expires_at: float | None = None
    issued_at: float = 0.0
    refresh_token: str | None = None

    def fresh(self, now: float) -> bool:
        """Whether a request that starts now can use the token."""
        if self.expires_at is None:
            return True
        leeway = min(_LEEWAY, max(0.0, self.expires_at - self.issued_at) / 10)
        return now < self.expires_at - leeway

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at!r})"


class TokenCache:
    """In-memory tokens of one plug, in front of the store that processes share."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._seen: dict[str, None] = {}

    def get(self, key: str) -> Token | None:
        return self._tokens.get(key)

    def put(self, key: str, token: Token) -> None:
        self._tokens[key] = token
        self.remember(token.access_token, token.refresh_token)

    def drop(self, key: str) -> None:
        """Remove one token from the cache. It stays masked."""
        self._tokens.pop(key, None)

    def forget(self) -> None:
        """Remove all tokens from the cache. They stay masked."""
        self._tokens.clear()

    def remember(self, *secrets: str | None) -> None:
        """Mask these texts from now on. Only the newest 200 are remembered."""
        known.add(secrets)
        for text in filter(None, secrets):
            self._seen.pop(text, None)
            self._seen[text] = None
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def secrets(self) -> list[str]:
        """The texts to mask: all current tokens, and those replaced recently."""
        current = [text for t in self._tokens.values() for text in (t.access_token, t.refresh_token) if text]
        return list(dict.fromkeys([*current, *self._seen]))
