"""Who may use the management API. Nobody, unless something says so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from khotan_cli.errors import Unauthorized
from khotan_cli.runtime.api.access import is_local
from khotan_cli.runtime.services import Services
from khotan_cli.signing import SCHEME


class GuardedRoute(APIRoute):
    """A route that asks for access before anything else of the request is looked at."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            await require_access(request)
            return await handler(request)

        return guarded


async def require_access(request: Request) -> None:
    """Raises Unauthorized, unless the caller is in-process, signed in development, or accepted by `authorize`."""
    if is_local(request):
        return
    services: Services = request.app.state.services()
    if await _signed(request, services):
        return
    if services.authorize is False and services.settings.env != "production":
        return
    if callable(services.authorize):
        answer = services.authorize(request)
        if (await answer if inspect.isawaitable(answer) else answer) is True:
            return
        raise Unauthorized("The application's authorize refused the request", hint="Sign in, or send its credential.")
    raise Unauthorized(
        "The management API refuses requests that nothing authorizes",
        hint="Give Khotan() an authorize=function_of_the_request. In development the khotan command signs its requests: "
        "it needs the server's KHOTAN_SECRET.",
    )


async def _signed(request: Request, services: Services) -> bool:
    header = request.headers.get("authorization", "")
    if not header.startswith(SCHEME + " ") or not services.development or services.verifier is None:
        return False
    target = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1")
    query = request.scope.get("query_string", b"").decode("latin-1")
    target = target.partition("?")[0] + (f"?{query}" if query else "")
    return services.verifier.verify(header, request.method, target, await request.body())
