"""The secrets that this process knows: variables that were read, tokens that were received, signing secrets of wires."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from khotan_cli.runtime.redaction.masker import SHORTEST_REPLACED, Masker

_REMEMBERED = 1000
"""Secrets that are masked. Of more, the oldest is forgotten until it is read again."""
_SHORTEST_LINE = 12
"""A line of a secret of several lines (a key in PEM) is masked by itself from this length on."""


class KnownSecrets:
    """Collects secrets where they are read, and masks them in texts. Safe to use from several threads."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}
        self._lock = threading.Lock()
        self._masker: Masker | None = Masker()

    def add(self, secrets: Iterable[str | None]) -> None:
        """Mask these texts from now on. Texts of fewer than four characters are not searched for."""
        for secret in secrets:
            if secret and secret not in self._texts and len(secret) >= SHORTEST_REPLACED:
                self._remember(secret)

    def masker(self) -> Masker:
        """A masker of everything known now."""
        found = self._masker
        if found is None:
            with self._lock:
                found = self._masker = Masker(text for secret in self._texts for text in (secret, *_long_lines(secret)))
        return found

    def _remember(self, secret: str) -> None:
        with self._lock:
            self._texts[secret] = None
            while len(self._texts) > _REMEMBERED:
                del self._texts[next(iter(self._texts))]
            self._masker = None


def _long_lines(secret: str) -> list[str]:
    """The lines of a secret of several lines. A text that is logged in pieces holds them one by one."""
    lines = [line.strip() for line in secret.splitlines()] if "\n" in secret else []
    return [line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----")]


known = KnownSecrets()
"""Of this process."""
