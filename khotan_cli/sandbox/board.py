"""A second service, beside the commerce API: a message board. Whoever posts to it finds the message there."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_MAX_BODY = 100_000
_KEPT = 200


def board() -> list[Route]:
    """Its one route: POST leaves a message, any JSON; GET shows them, the oldest first."""
    messages: list[dict[str, Any]] = []

    async def show(request: Request) -> Response:
        return JSONResponse({"items": messages})

    async def leave(request: Request) -> Response:
        body = await request.body()
        try:
            content = json.loads(body) if len(body) <= _MAX_BODY else None
        except (ValueError, RecursionError):
            content = None
        if content is None:
            error = {"code": "invalid_json", "message": f"A message is JSON of at most {_MAX_BODY:,} bytes."}
            return JSONResponse({"error": error}, 400)
        messages.append({"id": f"msg_{len(messages) + 1:03d}", "message": content})
        del messages[:-_KEPT]
        return JSONResponse(messages[-1], 201)

    return [Route("/", show, methods=["GET"]), Route("/", leave, methods=["POST"])]
