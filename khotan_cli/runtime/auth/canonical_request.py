"""The canonical form of a request, as AWS Signature Version 4 defines it.

Source: AWS Identity and Access Management User Guide, "Create a signed AWS API request", and the Signature Version 4
test suite of the AWS General Reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote_to_bytes

import httpx

_SPACES = re.compile(r"\s+")


def path(text: str) -> str:
    """A percent-encoded path, encoded again and without `.` and `..` segments and repeated slashes."""
    segments: list[str] = []
    for segment in text.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(quote(segment, safe="~"))
    ends = "/" if segments and text.endswith(("/", "/.", "/..")) else ""
    return "/" + "/".join(segments) + ends


def query(text: str) -> str:
    """A query without `?`, sorted, with names and values re-encoded so that only unreserved characters stay literal.

    `+` is treated like any other character: its meaning depends on the service.
    """
    pairs = (part.partition("=") for part in text.split("&") if part)
    encoded = sorted((_reencoded(name), _reencoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def select_headers(headers: Mapping[str, str], names: Sequence[str]) -> list[tuple[str, str]]:
    """The signed headers of a request: names in lower case with their values, sorted by name.

    Values are trimmed, and several spaces become one. Values of the same name are joined with commas.
    """
    values: dict[str, list[str]] = {}
    pairs = headers.multi_items() if isinstance(headers, httpx.Headers) else list(headers.items())
    for name, value in pairs:
        values.setdefault(name.lower(), []).append(_SPACES.sub(" ", value.strip()))
    prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
    selected = [name for name in values if name in names or (prefixes and name.startswith(prefixes))]
    return [(name, ",".join(values[name])) for name in sorted(selected)]


def fields(signed: Sequence[tuple[str, str]]) -> str:
    """A line `name:value` for each header."""
    return "".join(f"{name}:{value}\n" for name, value in signed)


def _reencoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="~")
