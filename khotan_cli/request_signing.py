"""The command line's signature on its requests to a development server: scheme `KhotanCLI`.

`Authorization: KhotanCLI ts=<Unix seconds>, nonce=<hex>, sig=<hex HMAC-SHA256>` over time, nonce, method, path with
query, and the SHA-256 of the body, each on a line. The key comes from KHOTAN_SECRET by HKDF-SHA256 (RFC 5869).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from threading import Lock

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SCHEME = "KhotanCLI"
WINDOW = 60.0
"""Maximum clock difference in seconds."""
_FORM = re.compile(r"ts=(\d{1,12}), nonce=([0-9a-f]{32}), sig=([0-9a-f]{64})")


def sign(secret: str, method: str, target: str, body: bytes, *, now: float | None = None) -> str:
    """Value of the Authorization header. `target` is the path and query of the request line."""
    stamp, nonce = str(int(time.time() if now is None else now)), secrets.token_hex(16)
    return f"{SCHEME} ts={stamp}, nonce={nonce}, sig={_signature(secret, stamp, nonce, method, target, body)}"


class Verifier:
    """Checks signatures. A signature that is used a second time within the window is rejected."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._secret, self._clock = secret, clock
        self._seen: dict[str, float] = {}
        self._guard = Lock()

    def verify(self, header: str, method: str, target: str, body: bytes) -> bool:
        scheme, _, rest = header.partition(" ")
        match = _FORM.fullmatch(rest)
        if scheme != SCHEME or match is None:
            return False
        stamp, nonce, signature = match.groups()
        now = self._clock()
        expected = _signature(self._secret, stamp, nonce, method, target, body)
        if not hmac.compare_digest(signature, expected) or abs(now - int(stamp)) > WINDOW:
            return False
        with self._guard:
            self._seen = {seen: until for seen, until in self._seen.items() if until >= now}
            if nonce in self._seen:
                return False
            self._seen[nonce] = now + 2 * WINDOW
        return True


def _signature(secret: str, stamp: str, nonce: str, method: str, target: str, body: bytes) -> str:
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"khotan cli signature v1").derive(secret.encode())
    lines = "\n".join([stamp, nonce, method.upper(), target, hashlib.sha256(body).hexdigest()])
    return hmac.new(key, lines.encode(), hashlib.sha256).hexdigest()
