"""One call for looking at: what was sent, what came, how long it took. Serves the debug API and the contract check."""

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
    """The answer, whatever its status; elapsed is in seconds, retries included. `masker` knows the call's secrets."""

    response: httpx.Response
    elapsed: float
    attempts: int
    masker: Masker


async def call(plug: Plug, asked: CallRequest) -> CallResult:
    """Make the call. Raises what the plug raises, but not for an error status."""
    if asked.headers:
        plug = plug.with_options(headers=dict(asked.headers))
    started = time.perf_counter()
    if asked.endpoint:
        bound = plug.endpoint(asked.endpoint)
        params = dict(asked.params)
        if asked.body is not None:
            params["body"] = asked.body
        response = await bound.raw(**params)
    else:
        response = await plug.raw(asked.method, asked.path, params=asked.params, body=asked.body)
    elapsed = time.perf_counter() - started
    ctx = plug.context(asked.endpoint, await plug.resolve())
    attempts = int(response.extensions.get("khotan.attempts", 1))
    return CallResult(response, elapsed, attempts, plug.masker(ctx))
