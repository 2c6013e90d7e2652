"""Public keys and their signatures (RFC 8032, FIPS 186-5)."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from khotan_cli.runtime.webhooks.request import RequestRejected

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
_RAW_ED25519 = 32


def public_key(key: str, kind: Literal["ed25519", "ecdsa"]) -> PublicKey:
    """Load a key: PEM, base64 DER, or for Ed25519 its 32 bytes in hex or base64. Raises RequestRejected if invalid."""
    public = _public(key)
    if kind == "ed25519" and not isinstance(public, ed25519.Ed25519PublicKey):
        raise RequestRejected("the wire's key is not an Ed25519 public key")
    if kind == "ecdsa" and not isinstance(public, ec.EllipticCurvePublicKey):
        raise RequestRejected("the wire's key is not an ECDSA public key")
    loaded: PublicKey = public
    return loaded


def matches(key: PublicKey, signature: bytes, content: bytes, algorithm: str, *, raw: bool) -> bool:
    """Whether the signature of the content is valid.

    algorithm: the hash for ECDSA. raw: the ECDSA signature is r and s concatenated (IEEE P1363), not DER.
    """
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, content)
            return True
        if raw:
            half = (key.curve.key_size + 7) // 8
            if len(signature) != 2 * half:
                return False
            signature = encode_dss_signature(
                int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            )
        key.verify(signature, content, ec.ECDSA(_hash(algorithm)))
    except (InvalidSignature, ValueError):
        return False
    return True


def signature_of(key: str, content: bytes, algorithm: str, *, raw: bool) -> bytes:
    """Sign with a private key in PEM. Raises RequestRejected if the key is a public key."""
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RequestRejected("only the service can sign: the wire has a public key, not the private key") from None
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(content)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise RequestRejected("the wire's key is neither Ed25519 nor ECDSA")
    signature = private.sign(content, ec.ECDSA(_hash(algorithm)))
    if not raw:
        return signature
    half = (private.curve.key_size + 7) // 8
    return b"".join(number.to_bytes(half, "big") for number in decode_dss_signature(signature))


def _hash(algorithm: str) -> hashes.HashAlgorithm:
    instance: hashes.HashAlgorithm = getattr(hashes, algorithm.upper())()
    return instance


def _public(key: str) -> Any:
    text = key.strip()
    try:
        if text.startswith("-----BEGIN"):
            if "PRIVATE KEY" in text.partition("\n")[0]:
                return serialization.load_pem_private_key(text.encode(), password=None).public_key()
            return serialization.load_pem_public_key(text.encode())
        raw = bytes.fromhex(text) if len(text) == 2 * _RAW_ED25519 else base64.b64decode(text, validate=True)
        if len(raw) == _RAW_ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(raw)
        return serialization.load_der_public_key(raw)
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        raise RequestRejected("the wire's key is not a public key in PEM, DER, hex or base64") from None
