"""Decodes a request's body: content coding, character set, byte order mark, and the vendor's envelope. Sans-IO."""

from __future__ import annotations

import codecs
import json
import zlib
from email.message import Message
from functools import lru_cache

MOST_DECODED = 64 * 1024 * 1024
"""Bytes that a compressed body may expand to. More is not decoded: the body is kept as it came."""
FORM = "application/x-www-form-urlencoded"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Longest first where one starts with another."""


class Undecodable(ValueError):
    """A body that cannot be decoded. The text names the coding or the character set, not the content."""


@lru_cache(256)
def media_type(content_type: str) -> str:
    """The media type in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(256)
def charset_of(content_type: str) -> str:
    """The charset parameter (RFC 9110 8.3.2), empty where there is none."""
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
    """The body without its content codings (RFC 9110 8.4): gzip and deflate. Raises Undecodable for another coding, for
    damaged data, and for data that expands beyond MOST_DECODED."""
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
    """A text body in UTF-8 without a byte order mark; another body as it is.

    A byte order mark decides before the charset parameter (WHATWG Encoding 6), and JSON without either is UTF-8, UTF-16 or
    UTF-32 (RFC 4627 3). Raises Undecodable where the charset is unknown or the bytes are not in it.
    """
    kind, charset = media_type(content_type), charset_of(content_type)
    if not (charset or kind in ("", FORM) or kind.startswith("text/") or kind.endswith(("json", "xml"))):
        return body
    found = next(((mark, name) for mark, name in _BOMS if body.startswith(mark)), None)
    if found is not None:
        mark, name = found
        return _recoded(body[len(mark) :], name)
    if kind == FORM:
        return body  # ASCII; the charset is that of the escapes (see form_charset)
    if charset:
        return _recoded(body, charset)
    if is_json(content_type) and b"\x00" in body[:4]:
        return _recoded(body, json.detect_encoding(body))
    return body


def form_charset(content_type: str) -> str:
    """The character set of a form's escapes: the charset parameter, else UTF-8. Raises Undecodable for an unknown one."""
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
