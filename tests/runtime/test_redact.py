"""Secrets in the log records of an application, masked by the filter."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from khotan_cli.runtime import MaskSecrets
from khotan_cli.runtime.redaction.known_secrets import KnownSecrets, known
from khotan_cli.runtime.redaction.log_filter import MaskedStream

SECRET = 'sk_"quoted"\\näive_52'
PEM = "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0BAQ\nEFAASCAUAwggE8AgEAAkEAq7\n-----END KEY-----"


class Holder:
    def __repr__(self) -> str:
        return f"Holder({SECRET!r})"


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    known.add([SECRET, PEM, "tok_8842"])
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(MaskSecrets())
    handler.setFormatter(logging.Formatter("%(message)s %(extra)s", defaults={"extra": ""}))
    logger = logging.getLogger("someones.app")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, out
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("message", "args", "extra"),
    [
        (f"got {SECRET}", (), ""),
        ("got %s in %d ms", (SECRET, 3), ""),
        ("got %(token)s", ({"token": SECRET},), ""),
        ("got %s", (json.dumps({"token": SECRET}),), ""),
        ("got %r", (Holder(),), ""),
        ("got %s", ([SECRET, 1],), ""),
        ("got", (), SECRET),
        ("got", (), [{"key": SECRET}]),
        ("got tok_%d", (8842,), ""),  # only the whole is a secret
        ("got %s", (PEM.splitlines()[1],), ""),
        ("got %s", (PEM,), ""),
    ],
)
def test_no_part_of_a_record_shows_a_secret(
    log: tuple[logging.Logger, io.StringIO], message: str, args: tuple[Any, ...], extra: Any
) -> None:
    logger, out = log
    logger.warning(message, *args, extra={"extra": extra})
    text = out.getvalue()
    for part in ("quoted", "ive_52", "tok_8842", "MIIBVgIBADANBgkqhk", "EFAASCAUAwggE8Ag"):
        assert part not in text
    assert text.startswith("got")


def test_a_formatted_exception_is_masked_and_keeps_its_place(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = log
    try:
        raise ValueError(f"refused {SECRET}")
    except ValueError:
        logger.exception("failed")
    assert "ive_52" not in out.getvalue()
    assert "test_redact.py" in out.getvalue() and "ValueError: refused ••••" in out.getvalue()


def test_records_without_secrets_stay_as_they_are(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = log
    record = logger.makeRecord(logger.name, 20, "f", 1, "%s - %d%%", ("a", 5), None, extra={"extra": {"a": 1}})
    logger.handle(record)
    assert record.args == ("a", 5) and record.__dict__["extra"] == {"a": 1}
    assert out.getvalue() == "a - 5% {'a': 1}\n"


def test_the_oldest_of_many_secrets_is_forgotten_until_it_is_read_again() -> None:
    kept = KnownSecrets()
    kept.add(["first-secret-of-all"])
    kept.add(f"secret-number-{number}" for number in range(1000))
    assert kept.masker().text("first-secret-of-all") == "first-secret-of-all"
    assert "number-999" not in kept.masker().text("secret-number-999")
    kept.add(["first-secret-of-all"])
    assert kept.masker().text("first-secret-of-all") == "••••-all"


def test_a_stream_masks_and_otherwise_is_the_stream_before_it() -> None:
    known.add([SECRET])
    raw = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream = MaskedStream(raw)
    print("a", SECRET, file=stream)
    stream.flush()
    assert raw.buffer.getvalue().decode().startswith("a ••••")
    assert stream.encoding == "utf-8" and not stream.isatty()
