"""Decodes content codings in steps of limited size, so that a small response cannot fill memory or block the loop.

gzip and x-gzip (RFC 1952), deflate (RFC 1950, and RFC 1951 bare as some servers send it), br (RFC 7932) with `brotli`
or `brotlicffi`, zstd (RFC 8878) with `zstandard`. httpx's own decoders expand a whole chunk at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Protocol

_PACKAGES = {"br": ("brotli", "brotlicffi"), "zstd": ("zstandard",)}
"""Packages that decode a coding; one of them is required."""
STEP = 64 * 1024
"""Maximum bytes of output of one step. br and zstd decoders without an output limit exceed it somewhat."""
_SLICE = 32
"""Bytes of input for a decoder without output limit: a block of 3 bytes can encode 128 kB (RFC 8878 3.1.1.2)."""
_ZSTD_WINDOW = 8 * 1024 * 1024
"""Largest window of the content coding zstd (RFC 9659 3)."""


class CodingError(Exception):
    """The body does not match its Content-Encoding. The message gives the reason."""


class Decoder(Protocol):
    """Decodes one coding. `feed` yields output of limited size; `finish` raises CodingError if the end is missing."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...
    def finish(self) -> None: ...


def decoder_for(content_encoding: str) -> Decoder | None:
    """The decoder of a Content-Encoding, which lists codings in the order they were applied; None for none.

    Raises CodingError for a coding that is unknown or whose decoder is not installed.
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    decoders = [_create(name) for name in reversed(names) if name not in ("", "identity")]
    if not decoders:
        return None
    return decoders[0] if len(decoders) == 1 else _Chain(decoders)


@cache
def accept_encoding() -> str:
    """The codings to accept (RFC 9110 12.5.3): gzip and deflate; br and zstd if a package that decodes them is installed."""
    installed = [coding for coding, names in _PACKAGES.items() if any(map(importlib.util.find_spec, names))]
    return ", ".join(["gzip", "deflate", *installed])


def _create(name: str) -> Decoder:
    make = _DECODERS.get(name)
    if make is None:
        raise CodingError(f"its Content-Encoding {name!r} is not one of {', '.join(sorted(_DECODERS))}")
    return make()


class _Zlib:
    """gzip of any number of members, or deflate."""

    def __init__(self, name: str, window_bits: int) -> None:
        self._name, self._bits = name, window_bits
        self._gzip = window_bits > zlib.MAX_WBITS
        self._inner = zlib.decompressobj(window_bits)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        full = False  # the last step reached the limit: there may be more output without further input
        while data or full:
            if self._inner.eof:
                data, full = self._next_member(data), False
                continue
            if not self._begun and not self._gzip and not _is_zlib(data):
                self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
            self._begun = True
            try:
                output = self._inner.decompress(data, STEP)
            except zlib.error:
                raise CodingError(f"it is not valid {self._name}") from None
            data = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
            full = len(output) == STEP
            if output:
                yield output

    def _next_member(self, data: bytes) -> bytes:
        """The remaining input for a further member. Zeros may pad the end of a gzip file."""
        if data and not self._gzip:
            raise CodingError(f"bytes follow the end of its {self._name} data")
        left = data.lstrip(b"\0")
        if left:
            self._inner = zlib.decompressobj(self._bits)
        return left

    def finish(self) -> None:
        if self._begun and not self._inner.eof:
            raise CodingError(f"its {self._name} data ends too early")


def _is_zlib(data: bytes) -> bool:
    """Whether data begins with a zlib header (RFC 1950 2.2)."""
    return data[0] & 0x0F == 8 and (len(data) < 2 or (data[0] << 8 | data[1]) % 31 == 0)


class _Brotli:
    def __init__(self) -> None:
        module = _module("br")
        self._inner = module.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _SLICE):
            if self._inner.is_finished():
                raise CodingError("bytes follow the end of its br data")
            self._begun = True
            yield from self._step(data[start : start + _SLICE])

    def _step(self, piece: bytes) -> Iterator[bytes]:
        try:
            output = self._bounded(piece)
            while output or piece:
                if output:
                    yield output
                piece = b""
                if self._inner.is_finished() or self._can_accept():
                    return
                output = self._bounded(b"")
        except CodingError:
            raise
        except Exception as exc:  # each library has its own exception
            raise CodingError("it is not valid br") from exc

    def _bounded(self, piece: bytes) -> bytes:
        try:
            output: bytes = self._inner.process(piece, output_buffer_limit=STEP)
        except TypeError:  # a version without the limit: the slices of input limit the output
            output = self._inner.process(piece)
        return output

    def _can_accept(self) -> bool:
        ask = getattr(self._inner, "can_accept_more_data", None)
        return True if ask is None else bool(ask())

    def finish(self) -> None:
        if self._begun and not self._inner.is_finished():
            raise CodingError("its br data ends too early")


class _Zstd:
    """zstd of any number of frames."""

    def __init__(self) -> None:
        self._module = _module("zstd")
        self._inner = self._frame()
        self._begun = False

    def _frame(self) -> Any:
        return self._module.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _SLICE):
            piece = data[start : start + _SLICE]
            while piece:
                if self._inner.eof:
                    self._inner = self._frame()
                self._begun = True
                try:
                    output = self._inner.decompress(piece)
                except self._module.ZstdError as exc:
                    raise CodingError("it is not valid zstd") from exc
                piece = self._inner.unused_data if self._inner.eof else b""
                if output:
                    yield output

    def finish(self) -> None:
        if self._begun and not self._inner.eof:
            raise CodingError("its zstd data ends too early")


class _Chain:
    """Several codings. The one that was applied last comes first."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders

    def feed(self, data: bytes) -> Iterator[bytes]:
        return self._through(data, 0)

    def _through(self, data: bytes, index: int) -> Iterator[bytes]:
        for output in self._decoders[index].feed(data):
            if index + 1 < len(self._decoders):
                yield from self._through(output, index + 1)
            else:
                yield output

    def finish(self) -> None:
        for decoder in self._decoders:
            decoder.finish()


def _module(coding: str) -> Any:
    names = _PACKAGES[coding]
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise CodingError(f"its Content-Encoding {coding!r} needs the package {' or '.join(names)}, which is not installed")


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Zlib("gzip", zlib.MAX_WBITS | 16),
    "x-gzip": lambda: _Zlib("gzip", zlib.MAX_WBITS | 16),
    "deflate": lambda: _Zlib("deflate", zlib.MAX_WBITS),
    "br": _Brotli,
    "zstd": _Zstd,
}
