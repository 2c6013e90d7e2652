"""Content codings, decoded in steps of bounded size, so that a small answer fills neither the memory nor the event loop.

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
"""Packages that decode a coding; one of them is enough."""
STEP = 64 * 1024
"""Bytes of output that one step makes, at most; br and zstd without a limit of their own make somewhat more."""
_SLICE = 32
"""Bytes of input for a decoder that cannot bound its output: a block of 3 bytes can stand for 128 kB (RFC 8878 3.1.1.2)."""
_ZSTD_WINDOW = 8 * 1024 * 1024
"""Largest window of the content coding zstd (RFC 9659 3)."""


class CodingError(Exception):
    """The body does not fit its Content-Encoding; the message says why."""


class Decoder(Protocol):
    """Decodes one coding. `feed` yields output of bounded size; `finish` raises CodingError where the end is missing."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...
    def finish(self) -> None: ...


def decoder_for(content_encoding: str) -> Decoder | None:
    """The decoder of a Content-Encoding, which lists codings in the order they were applied; None for none.

    Raises CodingError for a coding that is unknown, or whose decoder is not installed.
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    found = [_made(name) for name in reversed(names) if name not in ("", "identity")]
    if not found:
        return None
    return found[0] if len(found) == 1 else _Chain(found)


@cache
def accept_encoding() -> str:
    """The codings to ask for (RFC 9110 12.5.3): gzip, deflate, and br and zstd where a package that decodes them is installed."""
    found = [coding for coding, names in _PACKAGES.items() if any(map(importlib.util.find_spec, names))]
    return ", ".join(["gzip", "deflate", *found])


def _made(name: str) -> Decoder:
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
        full = False  # the last step had no room for more: there may be output without further input
        while data or full:
            if self._inner.eof:
                data, full = self._next_member(data), False
                continue
            if not self._begun and not self._gzip and not _is_zlib(data):
                self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
            self._begun = True
            try:
                made = self._inner.decompress(data, STEP)
            except zlib.error:
                raise CodingError(f"it is not valid {self._name}") from None
            data = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
            full = len(made) == STEP
            if made:
                yield made

    def _next_member(self, data: bytes) -> bytes:
        """What is left for a further member. Zeros may pad the end of a gzip file."""
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
            made = self._bounded(piece)
            while made or piece:
                if made:
                    yield made
                piece = b""
                if self._inner.is_finished() or self._can_accept():
                    return
                made = self._bounded(b"")
        except CodingError:
            raise
        except Exception as exc:  # each of the libraries has an exception of its own
            raise CodingError("it is not valid br") from exc

    def _bounded(self, piece: bytes) -> bytes:
        try:
            made: bytes = self._inner.process(piece, output_buffer_limit=STEP)
        except TypeError:  # a release without the limit: the slices of input bound the output
            made = self._inner.process(piece)
        return made

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
                    made = self._inner.decompress(piece)
                except self._module.ZstdError as exc:
                    raise CodingError("it is not valid zstd") from exc
                piece = self._inner.unused_data if self._inner.eof else b""
                if made:
                    yield made

    def finish(self) -> None:
        if self._begun and not self._inner.eof:
            raise CodingError("its zstd data ends too early")


class _Chain:
    """Several codings, the one that was applied last first."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders

    def feed(self, data: bytes) -> Iterator[bytes]:
        return self._through(data, 0)

    def _through(self, data: bytes, index: int) -> Iterator[bytes]:
        for made in self._decoders[index].feed(data):
            if index + 1 < len(self._decoders):
                yield from self._through(made, index + 1)
            else:
                yield made

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
