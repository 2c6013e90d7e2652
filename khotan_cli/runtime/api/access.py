"""What routes ask of a request: its services, and whether it came from this process."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from khotan_cli.errors import Unauthorized
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.services import Services

LOCAL_SCOPE = "khotan.local"
"""Key that the in-process transport puts into the ASGI scope. A server builds the scope itself: no HTTP client can set it."""


async def get_services(request: Request) -> Services:
    services: Services = request.app.state.services()
    if not services.bound:
        await services.bind()
    return services


def is_local(request: Request) -> bool:
    """Whether the caller is the command line in this very process, which holds database and secret anyway."""
    return request.scope.get(LOCAL_SCOPE) is True


def may_debug(request: Request, services: Services) -> bool:
    return is_local(request) or (services.settings.debug and services.settings.env != "production")


def require_debug(request: Request) -> None:
    """Raises Unauthorized where debugging is off."""
    if not may_debug(request, request.app.state.services()):
        raise Unauthorized(
            "Debug routes are off",
            code="debug_disabled",
            hint="Set KHOTAN_DEBUG=1 and KHOTAN_ENV=development, or run khotan dev.",
        )


CurrentServices = Annotated[Services, Depends(get_services)]


def named_plug(plug: str, services: CurrentServices) -> Plug:
    return services.registry.plug(plug)


CurrentPlug = Annotated[Plug, Depends(named_plug)]
