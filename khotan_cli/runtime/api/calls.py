"""A request to the management API, and its answer, whoever serves it: an ASGI server, or the command line in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from khotan_cli.errors import KhotanError
from khotan_cli.request_signing import SCHEME
from khotan_cli.runtime.services import Services

RETRY_SECONDS = "5"
"""`Retry-After` of a 503."""


@dataclass(frozen=True)
class Call:
    """A request.

    path: below the API's mount, percent-encoded. mount: where the API is, as /api/khotan. target: path and query as they were
    sent, which a signature covers. query: without `?`. headers: names in lower case. base_url: scheme and host that the caller
    used. local: whether the caller is the command line in this very process, which holds database and secret anyway. read: the
    body; raises KhotanError (body_too_large, request_timeout, body_incomplete). request: Starlette's request, for `authorize`.
    """

    services: Services
    method: str
    path: str
    target: str
    query: str
    mount: str
    headers: Mapping[str, str]
    base_url: str
    local: bool
    read: Callable[[], Awaitable[bytes]]
    request: Callable[[], Any]


@dataclass(frozen=True)
class Reply:
    """An answer with its whole body."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class EventStream:
    """Server-sent events (WHATWG HTML, "Server-sent events"), each with its line ends."""

    events: AsyncIterator[str]


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A document as JSON: a model under its aliases, or plain JSON values."""
    if isinstance(document, BaseModel):
        body = document.model_dump_json(by_alias=True).encode()
    else:
        body = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Reply(status, body, {"Content-Type": "application/json", **(headers or {})})


def error_reply(error: KhotanError, status: int | None = None, headers: Mapping[str, str] | None = None) -> Reply:
    """The error document, under the error's own status if none is given."""
    more: dict[str, str] = {}
    status = status or error.http_status
    if status == 401:
        more["WWW-Authenticate"] = SCHEME  # RFC 9110 11.6.1 asks for a challenge
    if status == 503:
        more["Retry-After"] = RETRY_SECONDS
    if status == 405:
        more["Allow"] = ", ".join(error.details.get("allow", ()))  # RFC 9110 15.5.6
    return json_reply(error.to_json(), status, {**more, **(headers or {})})
