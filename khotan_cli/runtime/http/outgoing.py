"""Builds the request of a call, which is sent once per attempt."""

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
"""Characters that a header's value must not contain (RFC 9110 5.5): control characters other than tab."""
_SENDABLE_NAME = re.compile(_NAME.pattern.encode())
_SENDABLE_VALUE = re.compile(rb"[\t\x20-\x7e]*\Z")
"""The same for bytes, limited to ASCII."""


@dataclass(slots=True)
class Outgoing:
    """A request that can be sent repeatedly. `timeout` is in seconds, for one attempt from first to last byte."""

    endpoint: str
    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None
    retry: Retry
    timeout: float | httpx.Timeout
    attempts: int = field(default=0)


def query_text(plug: Sender, query: Mapping[str, Any] | None, endpoint: CallOptions | None = None) -> str:
    """The encoded query of a call, in the plug's style. Raises ParameterError for a value that cannot be encoded."""
    return encode_query(query, plug.query_arrays, json_parameters(plug, endpoint)) if query else ""


def json_parameters(plug: Sender, endpoint: CallOptions | None) -> frozenset[str]:
    """Names of the query parameters that are sent as JSON, from the endpoint, else from the plug."""
    return frozenset(plug.query_json if endpoint is None or endpoint.query_json is None else endpoint.query_json)


def params_text(plug: Sender, params: Mapping[str, Any] | BaseModel | None) -> str:
    """The encoded query of an untyped call. Raises ParameterError for None in a mapping, and as query_text does."""
    if isinstance(params, BaseModel):
        params = query_fields(params)
    refuse_nulls(params or {}, plug.query_json)
    return query_text(plug, params)


def with_query(url: str, query: str) -> str:
    """The URL with a query appended."""
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def shown_body(plug: Sender, body: Any, endpoint: CallOptions | None = None) -> Any:
    """The body for the report of a dry run: the JSON values to send, or the text of a form.

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
    """Build the request of a call. Raises ParameterError for an invalid body, PlugError for an invalid header."""
    all_headers = plug.own_headers(ctx)
    content: bytes | None = None
    if body is not None:
        content, kind = encode_body(body, _encoding(plug, endpoint))
        if kind:
            all_headers["Content-Type"] = kind
    all_headers.update(headers or {})
    retry = plug.retry if endpoint is None or endpoint.retry is None else endpoint.retry
    if retry.idempotency_header and method not in ("GET", "HEAD", "OPTIONS"):
        all_headers.setdefault(retry.idempotency_header, str(uuid.uuid4()))
    check_headers(all_headers, plug.name, ctx.endpoint)
    timeout = plug.timeout if endpoint is None or endpoint.timeout is None else endpoint.timeout
    return Outgoing(ctx.endpoint, method, url, all_headers, content, retry, timeout)


def check_headers(headers: Mapping[str, str], plug: str, endpoint: str) -> None:
    """Raises PlugError (header_invalid) for a header that HTTP cannot carry. The message omits the value."""
    for name, value in headers.items():
        problem = header_problem(name, value)
        if problem:
            raise PlugError(
                f"{plug}{f'.{endpoint}' if endpoint else ''}: invalid header {name!r}: {problem}",
                plug=plug,
                endpoint=endpoint,
                code="header_invalid",
                hint="Correct the value where it is set: on the plug, on the endpoint, or in a variable.",
                next=[f"khotan plug vars {plug}"] if plug else [],
            )


def check_raw_headers(headers: Sequence[tuple[bytes, bytes]], plug: str, endpoint: str) -> None:
    """Like `check_headers`, for the encoded headers of a request."""
    for name, value in headers:
        if _SENDABLE_NAME.match(name) is None or _SENDABLE_VALUE.match(value) is None:
            check_headers({name.decode("latin-1"): value.decode("latin-1")}, plug, endpoint)


def header_problem(name: str, value: Any) -> str:
    """Why a header is invalid (RFC 9110 5.1, 5.5); empty if it is valid."""
    if not isinstance(value, str):
        return f"its value is of type {type(value).__name__}, not text"
    return _header_problem(name, value)


@lru_cache(maxsize=2048)
def _header_problem(name: str, value: str) -> str:
    if not _NAME.match(name):
        return "its name is not a token of letters, digits and -"
    control = _FORBIDDEN.search(value)
    if control:
        return f"its value contains the control character U+{ord(control.group()):04X}"
    return "" if value.isascii() else "its value contains a non-ASCII character"


def _encoding(plug: Sender, endpoint: CallOptions | None) -> Encoding:
    encoding = None if endpoint is None else endpoint.encoding
    return encoding or plug.encoding
