"""The secrets known to this process: values of variables, tokens, and signing secrets of wires."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from khotan_cli.runtime.redaction.masker import SHORTEST_REPLACED, Masker

_REMEMBERED = 1000
"""Maximum number of masked secrets. Beyond it, the oldest is dropped until it is read again."""
_SHORTEST_LINE = 12
"""Minimum length at which a line of a multi-line secret (a PEM key) is masked by itself."""


class KnownSecrets:
    """Collects secrets as they are read, and masks them in texts. Thread-safe."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}
        self._lock = threading.Lock()
        self._masker: Masker | None = Masker()

    def add(self, secrets: Iterable[str | None]) -> None:
        """Mask these texts from now on. Texts shorter than four characters are ignored."""
        for secret in secrets:
            if secret and secret not in self._texts and len(secret) >= SHORTEST_REPLACED:
                self._remember(secret)

    def masker(self) -> Masker:
        """A masker of all secrets known now."""
        masker = self._masker
        if masker is None:
            with self._lock:
                masker = self._masker = Masker(
                    text for secret in self._texts for text in (secret, *_long_lines(secret))
                )
        return masker

    def _remember(self, secret: str) -> None:
        with self._lock:
            self._texts[secret] = None
            while len(self._texts) > _REMEMBERED:
                del self._texts[next(iter(self._texts))]
            self._masker = None


def _long_lines(secret: str) -> list[str]:
    """The lines of a multi-line secret, which a log may contain one by one."""
    lines = [line.strip() for line in secret.splitlines()] if "\n" in secret else []
    return [line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----")]


known = KnownSecrets()
"""The secrets of this process."""
