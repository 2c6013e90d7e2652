"""Values at rest: what decrypts, and what must not."""

from __future__ import annotations

import base64

import pytest

from khotan_cli.errors import CiphertextInvalid, ConfigError, SecretMismatch, UsageError
from khotan_cli.runtime.database.crypto import Cipher, check_secret

SECRET = "kV3p0q9Zt1xYw7Rr5Lm2Nn8Bb4Cc6Dd0"
OTHER = "aA1bB2cC3dD4eE5fF6gG7hH8iI9jJ0kK"


@pytest.mark.parametrize("value", ["x", "sk_live_1234", "ключ 🔑", "a\nb\0c", "v" * 100_000])
def test_what_is_encrypted_decrypts(value: str) -> None:
    cipher = Cipher(SECRET)
    stored = cipher.encrypt("shop", "api_key", value)
    assert len(value) < 4 or value not in stored
    assert Cipher(SECRET).decrypt("shop", "api_key", stored) == value


def test_the_same_value_never_looks_the_same() -> None:
    cipher = Cipher(SECRET)
    assert len({cipher.encrypt("shop", "api_key", "same") for _ in range(100)}) == 100


@pytest.mark.parametrize(("plug", "key"), [("shop", "other"), ("other", "api_key"), ("shopapi", "_key"), ("", "shop")])
def test_a_moved_ciphertext_does_not_decrypt(plug: str, key: str) -> None:
    stored = Cipher(SECRET).encrypt("shop", "api_key", "sk_live_1234")
    with pytest.raises(CiphertextInvalid, match=f"{plug}.{key}") as caught:
        Cipher(SECRET).decrypt(plug, key, stored)
    assert caught.value.next == (f"khotan plug vars {plug} set {key} --stdin",)


def test_owner_and_key_do_not_run_into_each_other() -> None:
    stored = Cipher(SECRET).encrypt("a:b", "c", "value")
    with pytest.raises(CiphertextInvalid):
        Cipher(SECRET).decrypt("a", "b:c", stored)


def test_every_altered_byte_is_noticed() -> None:
    version, key_id, encoded = Cipher(SECRET).encrypt("shop", "api_key", "sk_live_1234").split(".")
    sealed = base64.b64decode(encoded)
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(CiphertextInvalid):
            Cipher(SECRET).decrypt("shop", "api_key", f"{version}.{key_id}.{base64.b64encode(altered).decode()}")


@pytest.mark.parametrize(
    "stored", ["", "plain text", "k1", "k1..", "k1.00000000.", "k2.00000000.AAAA", "k1.00000000.!"]
)
def test_what_was_never_a_ciphertext_is_told_apart(stored: str) -> None:
    with pytest.raises(CiphertextInvalid):
        Cipher(SECRET).decrypt("shop", "api_key", stored)


def test_another_secret_is_named_as_the_cause() -> None:
    stored = Cipher(OTHER).encrypt("shop", "api_key", "sk_live_1234")
    with pytest.raises(SecretMismatch) as caught:
        Cipher(SECRET).decrypt("shop", "api_key", stored)
    assert "shop.api_key" in caught.value.message
    assert "KHOTAN_SECRET_PREVIOUS" in caught.value.hint
    assert "sk_live" not in str(caught.value.to_json())


def test_a_forged_key_id_does_not_help() -> None:
    mine, theirs = Cipher(SECRET), Cipher(OTHER)
    stored = theirs.encrypt("shop", "api_key", "x").replace(theirs.key_id, mine.key_id)
    with pytest.raises(CiphertextInvalid):
        mine.decrypt("shop", "api_key", stored)


def test_previous_secrets_still_decrypt_but_do_not_encrypt() -> None:
    stored = Cipher(OTHER).encrypt("shop", "api_key", "sk_live_1234")
    both = Cipher(SECRET, [OTHER])
    assert both.decrypt("shop", "api_key", stored) == "sk_live_1234"
    assert not both.current(stored)
    renewed = both.encrypt("shop", "api_key", "sk_live_1234")
    assert both.current(renewed)
    assert Cipher(SECRET).decrypt("shop", "api_key", renewed) == "sk_live_1234"


def test_a_secret_that_is_also_a_previous_one_is_the_present_one() -> None:
    cipher = Cipher(SECRET, [SECRET])
    assert cipher.current(cipher.encrypt("shop", "api_key", "x"))


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "tiny",
        "x" * 64,
        "abab" * 16,
        "change-me-please-0123456789-abcdefghij",
        "<your secret 0123456789 abcdefghij>",
    ],
)
def test_weak_secrets_are_refused_with_a_way_to_make_one(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_secret(secret)
    assert "secrets.token_urlsafe(48)" in caught.value.hint
    assert not secret or secret not in caught.value.message


def test_a_lone_surrogate_is_refused_before_anything_is_stored() -> None:
    with pytest.raises(UsageError, match=r"shop\.api_key"):
        Cipher(SECRET).encrypt("shop", "api_key", "a\ud800b")


def test_nothing_shows_the_secret_or_a_derived_key() -> None:
    cipher = Cipher(SECRET)
    assert SECRET not in repr(cipher)
    assert repr(cipher) == f"Cipher(key {cipher.key_id})"


def test_fingerprints_depend_on_text_and_secret() -> None:
    cipher = Cipher(SECRET)
    assert cipher.fingerprint("a") == Cipher(SECRET).fingerprint("a")
    assert len({cipher.fingerprint("a"), cipher.fingerprint("b"), Cipher(OTHER).fingerprint("a")}) == 3
    assert len(cipher.fingerprint("a")) == 32
