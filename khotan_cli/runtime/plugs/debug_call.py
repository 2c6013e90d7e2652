"""A single call with its response and timing, for the debug API and the contract check."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.redaction.masker import Masker


@dataclass(frozen=True)
class CallRequest:
    """An endpoint with its parameters, or a method and a path with a query."""

    endpoint: str = ""
    method: str = "GET"
    path: str = ""
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class CallResult:
    """The response, whatever its status. `elapsed` is in seconds, including retries; `masker` masks the call's secrets."""

    response: httpx.Response
    elapsed: float
    attempts: int
    masker: Masker


async def call(plug: Plug, request: CallRequest) -> CallResult:
    """Make the call. Raises the plug's errors, except for an error status."""
    if request.headers:
        plug = plug.with_options(headers=dict(request.headers))
    started = time.perf_counter()
    if request.endpoint:
        bound = plug.endpoint(request.endpoint)
        params = dict(request.params)
        if request.body is not None:
            params["body"] = request.body
        response = await bound.raw(**params)
    else:
        response = await plug.raw(request.method, request.path, params=request.params, body=request.body)
    elapsed = time.perf_counter() - started
    ctx = plug.context(request.endpoint, await plug.resolve())
    attempts = int(response.extensions.get("khotan.attempts", 1))
    return CallResult(response, elapsed, attempts, plug.masker(ctx))
