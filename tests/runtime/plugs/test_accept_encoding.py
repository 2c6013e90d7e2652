"""A plug asks for the codings that it can decode, and for no others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from khotan_cli.runtime import Plug, Retry
from tests.support.loopback import as_json, loopback

_PROGRAM = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
from khotan_cli.runtime.content.decompression import CodingError, accept_encoding, decoder_for
print(accept_encoding())
for coding in ("gzip", "deflate", "br", "zstd"):
    try:
        decoder_for(coding)
    except CodingError:
        assert coding not in accept_encoding(), coding
    else:
        assert coding in accept_encoding(), coding
"""


@pytest.mark.parametrize(
    ("missing", "asked"),
    [
        ([], "gzip, deflate, br, zstd"),
        (["brotli", "brotlicffi"], "gzip, deflate, zstd"),
        (["zstandard"], "gzip, deflate, br"),
        (["brotli", "brotlicffi", "zstandard"], "gzip, deflate"),
    ],
)
def test_codings_follow_what_is_installed(missing: list[str], asked: str) -> None:
    command = [sys.executable, "-c", _PROGRAM.format(missing=missing)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == (asked, 0), done.stderr


async def test_a_plug_sends_them_and_may_ask_for_others() -> None:
    async with loopback(lambda asked: as_json({"got": asked.headers["accept-encoding"]})) as server:
        plug = type("Api", (Plug,), {"base_url": server.url, "retry": Retry(attempts=1)})()
        assert (await plug.get("/"))["got"] == "gzip, deflate, br, zstd"
        assert (await plug.get("/", headers={"Accept-Encoding": "identity"}))["got"] == "identity"
        assert (await plug.with_options(headers={"Accept-Encoding": "gzip"}).get("/"))["got"] == "gzip"
