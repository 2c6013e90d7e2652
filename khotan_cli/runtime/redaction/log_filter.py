"""Masks known secrets in the logs and output of this process.

`MaskSecrets` is a logging filter for any application. `mask_stream` is for khotan's own processes.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, cast

from khotan_cli.runtime.redaction.known_secrets import known
from khotan_cli.runtime.redaction.masker import BULLETS, Masker

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""Attributes of every log record. Others come from `extra`."""
_FORMATTER = logging.Formatter()


class MaskSecrets(logging.Filter):
    """Masks known secrets in the message, the arguments, the exception and the `extra` texts of log records.

    Secrets are the values of secret variables of plugs and wires that this process has read, and the tokens that it
    received. Add the filter to handlers, because a logger's filter does not apply to its child loggers.
    The filter drops no record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        masker = known.masker()
        _mask_message(record, masker)
        if record.exc_info and not record.exc_text:
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text and (masked := masker.text(record.exc_text)) != record.exc_text:
            # A formatter may read exc_info instead of the masked text.
            record.exc_text, record.exc_info = masked, None
        if record.stack_info:
            record.stack_info = masker.text(record.stack_info)
        for name in record.__dict__.keys() - _STANDARD:
            record.__dict__[name] = _masked(record.__dict__[name], masker)
        return True


def _mask_message(record: logging.LogRecord, masker: Masker) -> None:
    try:
        text = record.getMessage()
    except Exception:  # arguments that do not match the message: logging reports them
        text = f"{record.msg} {record.args!r}"
    if masker.text(text) == text:
        return
    # Formatters such as uvicorn's read single arguments, so their number is kept.
    record.msg = masker.text(str(record.msg))
    if isinstance(record.args, Mapping):
        record.args = {name: _masked(value, masker) for name, value in record.args.items()}
    elif record.args:
        record.args = tuple(_masked(value, masker) for value in record.args)
    try:
        text = record.getMessage()
    except Exception:
        return
    if (masked := masker.text(text)) != text:  # the secret spans the message and an argument
        record.msg, record.args = masked, ()


def _masked(value: Any, masker: Masker) -> Any:
    """A masked text; another value unchanged, or its masked text if that contains a secret."""
    if isinstance(value, str):
        return masker.text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    for shown in (str, repr):
        try:
            text = shown(value)
        except Exception:  # raised by the object's code
            return BULLETS
        if (masked := masker.text(text)) != text:
            return masked
    return value


class MaskedStream(io.TextIOBase):
    """A wrapper of a text stream that masks known secrets in each write."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(known.masker().text(text))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: the stream belongs to the process."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors

    @property
    def buffer(self) -> Any:
        return self.stream.buffer


def mask_stream(name: str) -> None:
    """Mask known secrets in everything that this process writes to `sys.stdout` or `sys.stderr` from now on.

    Call it before logging is configured, because handlers keep the stream that they were created with.
    """
    stream = getattr(sys, name)
    if stream is not None and not isinstance(stream, MaskedStream):
        setattr(sys, name, MaskedStream(stream))


@contextmanager
def masked_stderr() -> Iterator[None]:
    """Mask known secrets in output to `sys.stderr` during the block."""
    before = sys.stderr
    mask_stream("stderr")
    try:
        yield
    finally:
        sys.stderr = cast(TextIO, before)
