"""From a bound call to the request that is sent as often as needed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import httpx
from pydantic import BaseModel

from khotan_cli.errors import PlugError
from khotan_cli.runtime.content.codec import Encoding, encode_body
from khotan_cli.runtime.content.present import query_fields
from khotan_cli.runtime.content.query import encode_query, refuse_nulls
from khotan_cli.runtime.http.call_context import CallContext
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.http.sender import CallOptions, Sender

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
"""A header's name (RFC 9110 5.6.2)."""
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What a header's value cannot contain (RFC 9110 5.5): control characters other than a tab."""
_SENDABLE_NAME = re.compile(_NAME.pattern.encode())
_SENDABLE_VALUE = re.compile(rb"[\t\x20-\x7e]*\Z")
"""The same in bytes, with ASCII as the only text."""


@dataclass(slots=True)
class Outgoing:
    """A request ready to be sent as often as needed. timeout is in seconds, for one attempt from first to last byte."""

    endpoint: str
    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None
    retry: Retry
    timeout: float | httpx.Timeout
    attempts: int = field(default=0)


def query_text(plug: Sender, query: Mapping[str, Any] | None, endpoint: CallOptions | None = None) -> str:
    """The encoded query of a call, in the plug's style. Raises ParameterError for a value that it cannot carry."""
    return encode_query(query, plug.query_arrays, json_parameters(plug, endpoint)) if query else ""


def json_parameters(plug: Sender, endpoint: CallOptions | None) -> frozenset[str]:
    """Names of the query parameters that are sent as JSON: the endpoint's, else the plug's."""
    return frozenset(plug.query_json if endpoint is None or endpoint.query_json is None else endpoint.query_json)


def params_text(plug: Sender, params: Mapping[str, Any] | BaseModel | None) -> str:
    """The encoded query of an untyped call. Raises ParameterError for None in a mapping, and as query_text does."""
    if isinstance(params, BaseModel):
        params = query_fields(params)
    refuse_nulls(params or {}, plug.query_json)
    return query_text(plug, params)


def with_query(url: str, query: str) -> str:
    """The URL with a query added to the one it has."""
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def shown_body(plug: Sender, body: Any, endpoint: CallOptions | None = None) -> Any:
    """The body as a dry run shows it: the JSON values that would be sent, or the text of a form.

    Raises ParameterError for a body that cannot be sent, as the real call does.
    """
    if body is None:
        return None
    encoding = _encoding(plug, endpoint)
    content, kind = encode_body(body, encoding)
    return content.decode() if kind == "application/x-www-form-urlencoded" else body


def outgoing(
    plug: Sender,
    ctx: CallContext,
    method: str,
    url: str,
    body: Any,
    headers: Mapping[str, str] | None,
    endpoint: CallOptions | None = None,
) -> Outgoing:
    """The request of a call. Raises ParameterError for a body, PlugError for a header, that cannot be sent."""
    sent = plug.own_headers(ctx)
    content: bytes | None = None
    if body is not None:
        content, kind = encode_body(body, _encoding(plug, endpoint))
        if kind:
            sent["Content-Type"] = kind
    sent.update(headers or {})
    retry = plug.retry if endpoint is None or endpoint.retry is None else endpoint.retry
    if retry.idempotency_header and method not in ("GET", "HEAD", "OPTIONS"):
        sent.setdefault(retry.idempotency_header, str(uuid.uuid4()))
    check_headers(sent, plug.name, ctx.endpoint)
    timeout = plug.timeout if endpoint is None or endpoint.timeout is None else endpoint.timeout
    return Outgoing(ctx.endpoint, method, url, sent, content, retry, timeout)


def check_headers(headers: Mapping[str, str], plug: str, endpoint: str) -> None:
    """Raises PlugError that names a header whose name or value HTTP cannot carry. The value itself is never quoted."""
    for name, value in headers.items():
        why = unsendable(name, value)
        if why:
            raise PlugError(
                f"{plug}{f'.{endpoint}' if endpoint else ''}: the header {name!r} cannot be sent: {why}",
                plug=plug,
                endpoint=endpoint,
                code="header_invalid",
                hint="Correct the value where it is set: on the plug, the endpoint, or in a variable that it uses.",
                next=[f"khotan plug vars {plug}"] if plug else [],
            )


def check_raw_headers(headers: Sequence[tuple[bytes, bytes]], plug: str, endpoint: str) -> None:
    """The same for headers as they go on the wire."""
    for name, value in headers:
        if _SENDABLE_NAME.match(name) is None or _SENDABLE_VALUE.match(value) is None:
            check_headers({name.decode("latin-1"): value.decode("latin-1")}, plug, endpoint)


def unsendable(name: str, value: Any) -> str:
    """Why HTTP cannot carry a header (RFC 9110 5.1, 5.5); empty where it can."""
    if not isinstance(value, str):
        return f"its value is of type {type(value).__name__}, not text"
    return _unsendable(name, value)


@lru_cache(maxsize=2048)
def _unsendable(name: str, value: str) -> str:
    if not _NAME.match(name):
        return "its name is not a token of letters, digits and -"
    found = _FORBIDDEN.search(value)
    if found:
        return f"its value contains the control character U+{ord(found.group()):04X}"
    return "" if value.isascii() else "its value contains a character that is not ASCII"


def _encoding(plug: Sender, endpoint: CallOptions | None) -> Encoding:
    chosen = None if endpoint is None else endpoint.encoding
    return chosen or plug.encoding
