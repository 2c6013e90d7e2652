"""Encryption of stored values: AES-256-GCM, bound to their row.

A stored value reads `k1.<key id>.<base64(nonce + ciphertext + tag)>`. The key comes from KHOTAN_SECRET by HKDF-SHA256
(RFC 5869), the nonce is 96 random bits (NIST SP 800-38D 8.2.2), the associated data is plug and key: a ciphertext
that was moved to another row does not decrypt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from khotan_cli.errors import CiphertextInvalid, ConfigError, SecretMismatch, UsageError

_VERSION = "k1"
_NONCE_BYTES = 12
SHORTEST_SECRET = 32
MAKE_SECRET = 'python -c "import secrets; print(secrets.token_urlsafe(48))"'
_FEWEST_DIFFERENT = 8
_PLACEHOLDERS = ("change", "secret", "example", "placeholder", "replace", "insert", "your-", "your_", "xxxx", "<")


def check_secret(secret: str) -> None:
    """Raises ConfigError if the secret is too short or is a placeholder."""
    few = len(set(secret)) < _FEWEST_DIFFERENT
    if len(secret) < SHORTEST_SECRET or few or secret.lower().startswith(_PLACEHOLDERS):
        what = f"is shorter than {SHORTEST_SECRET} characters" if len(secret) < SHORTEST_SECRET else "is a placeholder"
        raise ConfigError(f"KHOTAN_SECRET {what}", hint=f"Create one: {MAKE_SECRET}")


@dataclass(frozen=True, repr=False)
class _Key:
    id: str
    aead: AESGCM


class Cipher:
    """Encrypts under `secret`, decrypts under it and under the previous ones."""

    def __init__(self, secret: str, previous: Sequence[str] = ()) -> None:
        check_secret(secret)
        self._current = _key(secret)
        self._keys = {key.id: key for key in (*map(_key, previous), self._current)}
        self._fingerprint_key = _derived(secret, b"khotan fingerprint v1")

    def __repr__(self) -> str:
        return f"Cipher(key {self._current.id})"

    @property
    def key_id(self) -> str:
        """The id of the key in stored values. It does not reveal the key."""
        return self._current.id

    def encrypt(self, plug: str, name: str, value: str) -> str:
        """Encrypt a value for storage. Raises UsageError for text that is not valid Unicode (a lone surrogate)."""
        nonce = os.urandom(_NONCE_BYTES)
        try:
            plain = value.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"The value of {plug}.{name} is not valid Unicode text", hint="Remove the half surrogate pair from it."
            ) from None
        sealed = self._current.aead.encrypt(nonce, plain, _bound(plug, name))
        return f"{_VERSION}.{self._current.id}.{base64.b64encode(nonce + sealed).decode()}"

    def decrypt(self, plug: str, name: str, stored: str) -> str:
        """Decrypt a stored value.

        Raises SecretMismatch if it was encrypted with another secret, CiphertextInvalid if it was altered or moved.
        """
        version, _, rest = stored.partition(".")
        key_id, _, encoded = rest.partition(".")
        try:
            sealed = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            sealed = b""
        if version != _VERSION or len(sealed) <= _NONCE_BYTES:
            raise self._invalid(plug, name)
        key = self._keys.get(key_id)
        if key is None:
            raise SecretMismatch(
                f"The stored value of {plug}.{name} was encrypted with another KHOTAN_SECRET",
                hint="Add the secret it was encrypted with to KHOTAN_SECRET_PREVIOUS, or set the value again.",
                next=[f"khotan plug vars {plug} set {name} --stdin"],
            )
        try:
            return key.aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound(plug, name)).decode()
        except InvalidTag:
            raise self._invalid(plug, name) from None

    def current(self, stored: str) -> bool:
        """Whether a stored value is encrypted with the current secret."""
        return stored.startswith(f"{_VERSION}.{self._current.id}.")

    def fingerprint(self, text: str) -> str:
        """Return a keyed digest of 32 hex digits."""
        return hmac.new(self._fingerprint_key, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:32]

    @staticmethod
    def _invalid(plug: str, name: str) -> CiphertextInvalid:
        return CiphertextInvalid(
            f"The stored value of {plug}.{name} was altered or moved from another row",
            hint="Set the value again.",
            next=[f"khotan plug vars {plug} set {name} --stdin"],
        )


def _bound(plug: str, name: str) -> bytes:
    return f"{len(plug)}:{plug}:{name}".encode()


def _key(secret: str) -> _Key:
    return _Key(_derived(secret, b"khotan key id v1").hex()[:8], AESGCM(_derived(secret, b"khotan vars v1")))


def _derived(secret: str, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret.encode())
