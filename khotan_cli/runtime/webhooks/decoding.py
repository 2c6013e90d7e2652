"""Decodes a request body: content coding, character set and byte order mark. Does no I/O."""

from __future__ import annotations

import codecs
import json
import zlib
from email.message import Message
from functools import lru_cache

MOST_DECODED = 64 * 1024 * 1024
"""Maximum size in bytes of a decompressed body. A larger body is stored as received, not decoded."""
FORM = "application/x-www-form-urlencoded"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Longer marks come before their prefixes."""


class Undecodable(ValueError):
    """The body cannot be decoded. The message names the coding or the character set, never the content."""


@lru_cache(256)
def media_type(content_type: str) -> str:
    """Return the media type in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(256)
def charset_of(content_type: str) -> str:
    """Return the charset parameter (RFC 9110 8.3.2), or an empty string."""
    message = Message()
    message["content-type"] = content_type
    try:
        return (message.get_content_charset() or "").strip()
    except (LookupError, UnicodeError):
        return ""


@lru_cache(256)
def is_json(content_type: str) -> bool:
    """Whether the media type is JSON: `application/json`, `text/json` or `…+json` (RFC 6839)."""
    return media_type(content_type).endswith("json")


def uncompressed(body: bytes, content_encoding: str) -> bytes:
    """Remove the content codings gzip and deflate (RFC 9110 8.4).

    Raises Undecodable for another coding, for damaged data, and for data that expands beyond MOST_DECODED bytes.
    """
    for coding in reversed([name.strip().lower() for name in content_encoding.split(",")]):
        if coding in ("", "identity"):
            continue
        if coding in ("gzip", "x-gzip"):
            body = _inflated(body, coding, 16 + zlib.MAX_WBITS)
        elif coding == "deflate":
            try:
                body = _inflated(body, coding, zlib.MAX_WBITS)
            except Undecodable:  # many senders leave the zlib header out
                body = _inflated(body, coding, -zlib.MAX_WBITS)
        else:
            raise Undecodable(f"The content coding {coding[:40]!r} is not supported")
    return body


def _inflated(body: bytes, coding: str, bits: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while body or not parts:
        stream = zlib.decompressobj(bits)
        try:
            part = stream.decompress(body, MOST_DECODED - size + 1)
        except zlib.error:
            raise Undecodable(f"The body is not valid {coding} data") from None
        size += len(part)
        if size > MOST_DECODED:
            raise Undecodable(f"The body expands to more than {MOST_DECODED:,} bytes")
        if not stream.eof:
            raise Undecodable(f"The {coding} data is incomplete")
        parts.append(part)
        body = stream.unused_data if bits > zlib.MAX_WBITS else b""  # gzip may have several members (RFC 1952 2.2)
    return b"".join(parts)


def as_utf8(body: bytes, content_type: str) -> bytes:
    """Convert a text body to UTF-8 without a byte order mark. Returns other bodies unchanged.

    A byte order mark overrides the charset parameter (WHATWG Encoding 6). JSON without either is UTF-8, UTF-16 or UTF-32
    (RFC 4627 3). Raises Undecodable if the charset is unknown or the bytes are invalid in it.
    """
    kind, charset = media_type(content_type), charset_of(content_type)
    if not (charset or kind in ("", FORM) or kind.startswith("text/") or kind.endswith(("json", "xml"))):
        return body
    bom = next(((mark, encoding) for mark, encoding in _BOMS if body.startswith(mark)), None)
    if bom is not None:
        mark, encoding = bom
        return _recoded(body[len(mark) :], encoding)
    if kind == FORM:
        return body  # ASCII; the charset applies to the escapes (see form_charset)
    if charset:
        return _recoded(body, charset)
    if is_json(content_type) and b"\x00" in body[:4]:
        return _recoded(body, json.detect_encoding(body))
    return body


def form_charset(content_type: str) -> str:
    """Return the character set of a form's escapes: the charset parameter, else UTF-8. Raises Undecodable if unknown."""
    charset = charset_of(content_type) or "utf-8"
    try:
        b"".decode(charset)
    except LookupError:
        raise Undecodable(f"The character set {charset[:40]!r} is unknown") from None
    return charset


def _recoded(body: bytes, charset: str) -> bytes:
    try:
        return body.decode(charset).encode()
    except LookupError:
        raise Undecodable(f"The character set {charset[:40]!r} is unknown") from None
    except UnicodeError:
        raise Undecodable(f"The body is not valid {charset[:40]}") from None
