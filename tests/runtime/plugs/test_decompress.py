"""Content codings: read whole, bounded while they are decompressed, and never cut short without an error."""

from __future__ import annotations

import asyncio
import gzip
import os
import tracemalloc
import zlib
from typing import Any

import brotlicffi  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pytest
import zstandard

from khotan_cli.errors import ResponseInvalid
from khotan_cli.runtime import Plug, get
from khotan_cli.runtime.content.decompression import CodingError, decoder_for
from tests.support.loopback import Answer, loopback

DATA = os.urandom(100_000) + b"x" * 2_000_000 + b"end"


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress(DATA)),
    "x-gzip": ("X-Gzip", gzip.compress(DATA)),
    "gzip of two members": ("gzip", gzip.compress(DATA[:9]) + gzip.compress(DATA[9:])),
    "deflate": ("deflate", zlib.compress(DATA)),
    "bare deflate": ("deflate", bare_deflate(DATA)),
    "br": ("br", brotlicffi.compress(DATA)),
    "zstd": ("zstd", zstandard.compress(DATA)),
    "zstd of two frames": ("zstd", zstandard.compress(DATA[:9]) + zstandard.compress(DATA[9:])),
    "two codings": ("gzip, br", brotlicffi.compress(gzip.compress(DATA))),
}
ZEROS = b"\0" * 100_000_000
BOMBS = {
    "gzip": gzip.compress(ZEROS),
    "deflate": zlib.compress(ZEROS),
    "br": brotlicffi.compress(ZEROS, quality=5),
    "zstd": zstandard.compress(ZEROS),
}


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    read = get("/read", returns=bytes)


def decoded(coding: str, packed: bytes, cut: int) -> bytes:
    decoder = decoder_for(coding)
    assert decoder is not None
    made = [piece for start in range(0, len(packed), cut) for piece in decoder.feed(packed[start : start + cut])]
    decoder.finish()
    return b"".join(made)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("cut", [7, 1000, 10**9])
def test_every_coding_is_read_whole(name: str, cut: int) -> None:
    coding, packed = PACKED[name]
    assert decoded(coding, packed, cut) == DATA


def test_zeros_may_pad_the_end_of_gzip() -> None:
    assert decoded("gzip", gzip.compress(b"a") + b"\0" * 100, 5) == b"a"


@pytest.mark.parametrize("name", PACKED)
async def test_a_body_that_ends_too_early_is_an_error(name: str) -> None:
    coding, packed = PACKED[name]
    headers = {"Content-Encoding": coding, "Content-Type": "text/csv"}
    async with loopback(lambda asked: Answer(200, packed[: len(packed) - 6], headers)) as server:
        with pytest.raises(ResponseInvalid, match=r"cannot be decompressed.*ends too early"):
            await Api().with_options(base_url=server.url).read()


@pytest.mark.parametrize("coding", BOMBS)
async def test_the_bound_holds_while_decompressing_and_others_get_their_turn(coding: str) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    headers = {"Content-Encoding": coding}
    async with loopback(lambda asked: Answer(200, BOMBS[coding], headers)) as server:
        api = Api().with_options(base_url=server.url, max_response_bytes=20_000_000)
        with pytest.raises(ResponseInvalid, match="larger than"):
            await api.with_options(max_response_bytes=1000).read()
        watching = asyncio.create_task(others())
        tracemalloc.start()
        with pytest.raises(ResponseInvalid) as caught:
            await api.read()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        watching.cancel()
    assert caught.value.code == "response_too_large"
    assert peak < 60_000_000
    assert turns > 15


@pytest.mark.parametrize(
    ("coding", "body", "word"),
    [
        ("gzip", b"no gzip", "valid gzip"),
        ("deflate", b"\x78\x9cnonsense", "valid deflate"),
        ("br", b"\xff" * 50, "valid br"),
        ("zstd", b"no zstd at all", "valid zstd"),
        ("gzip", gzip.compress(b"a", mtime=0) + b"rest", "valid gzip"),
        ("compress", b"x", "'compress' is not one of"),
    ],
)
def test_what_does_not_fit_says_why(coding: str, body: bytes, word: str) -> None:
    with pytest.raises(CodingError, match=word):
        decoded(coding, body, 1000)


@pytest.mark.parametrize("coding", ["", "identity", "Identity, "])
def test_no_coding_needs_no_decoder(coding: str) -> None:
    assert decoder_for(coding) is None


async def test_an_empty_body_needs_no_end() -> None:
    headers: dict[str, Any] = {"Content-Encoding": "gzip"}
    async with loopback(lambda asked: Answer(200, b"", headers)) as server:
        assert await Api().with_options(base_url=server.url).read() == b""
