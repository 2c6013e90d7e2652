"""The command line's signature: what it covers, how long it is good, and that it is good once."""

from __future__ import annotations

import threading

import pytest

from khotan_cli.request_signing import WINDOW, Verifier, sign
from tests.support.project import SECRET

NOW = 1_000_000.0
TARGET = "/api/khotan/plugs?limit=5"


def verifier(secret: str = SECRET, now: float = NOW) -> Verifier:
    return Verifier(secret, clock=lambda: now)


def test_it_names_no_secret_and_differs_each_time() -> None:
    one, two = (sign(SECRET, "GET", TARGET, b"", now=NOW) for _ in range(2))
    assert one != two and one.startswith("KhotanCLI ts=1000000, nonce=")
    assert SECRET not in one


@pytest.mark.parametrize(("age", "good"), [(0, True), (WINDOW, True), (-WINDOW, True), (61, False), (-61, False)])
def test_it_expires(age: float, good: bool) -> None:
    header = sign(SECRET, "GET", TARGET, b"", now=NOW - age)
    assert verifier().verify(header, "GET", TARGET, b"") is good


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", TARGET, b""),
        ("GET", "/api/khotan/plugs?limit=6", b""),
        ("GET", "/api/khotan/plugs", b""),
        ("GET", TARGET, b"x"),
    ],
)
def test_it_covers_method_target_and_body(method: str, target: str, body: bytes) -> None:
    assert not verifier().verify(sign(SECRET, "GET", TARGET, b"", now=NOW), method, target, body)


def test_its_own_parts_cannot_be_changed() -> None:
    header = sign(SECRET, "GET", TARGET, b"", now=NOW)
    last = "0" if header[-1] != "0" else "1"
    for altered in (
        header.replace("ts=1000000", "ts=1000001"),
        header.replace("nonce=", "nonce=0")[:-1],
        header[:-1] + last,
        header[:-1],
        header + "0",
        header.replace("KhotanCLI", "khotancli"),
        header.replace("ts=1000000", "ts=٣"),
        header.split("sig=")[0],
        "KhotanCLI ts=1, nonce=2, sig=3",
        "KhotanCLI",
        "Bearer x",
        "",
    ):
        assert not verifier().verify(altered, "GET", TARGET, b""), altered
    assert verifier().verify(header, "GET", TARGET, b"")


def test_another_secret_is_refused() -> None:
    header = sign(SECRET, "GET", TARGET, b"", now=NOW)
    assert not verifier("another-" + SECRET).verify(header, "GET", TARGET, b"")


def test_it_is_good_once_for_as_long_as_it_could_be_replayed() -> None:
    now = NOW
    checker = Verifier(SECRET, clock=lambda: now)
    header = sign(SECRET, "GET", TARGET, b"", now=NOW + WINDOW)  # a clock that is ahead: good until NOW + 2 windows
    assert checker.verify(header, "GET", TARGET, b"")
    for later in (0, 1, WINDOW, 2 * WINDOW, 2 * WINDOW + 1):
        now = NOW + later
        assert not checker.verify(header, "GET", TARGET, b""), later


def test_of_many_threads_with_one_signature_one_gets_in() -> None:
    checker, header = verifier(), sign(SECRET, "GET", TARGET, b"", now=NOW)
    together = threading.Barrier(8)
    answers: list[bool] = []

    def attempt() -> None:
        together.wait()
        answers.append(checker.verify(header, "GET", TARGET, b""))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
