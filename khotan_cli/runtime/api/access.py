"""Access control of the management API, and common dependencies of its operations. Access is denied by default."""

from __future__ import annotations

import inspect
from typing import Annotated

from khotan_cli.errors import Unauthorized
from khotan_cli.request_signing import SCHEME
from khotan_cli.runtime.api.calls import Call
from khotan_cli.runtime.api.operations import Depends
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.services import Services

LOCAL_SCOPE = "khotan.local"
"""Key that the in-process transport sets in the ASGI scope. HTTP clients cannot set it, since servers build the scope."""


async def require_access(call: Call) -> None:
    """Raises Unauthorized unless the caller is in-process, signed in development, or accepted by `authorize`."""
    services = call.services
    if call.local or await _signed(call):
        return
    if services.authorize is False and services.settings.env != "production":
        return
    if callable(services.authorize):
        allowed = services.authorize(call.request())
        if (await allowed if inspect.isawaitable(allowed) else allowed) is True:
            return
        raise Unauthorized("The application's authorize rejected the request", hint="Sign in, or send its credential.")
    raise Unauthorized(
        "The management API rejected an unauthorized request",
        hint="Pass authorize=function_of_the_request to Khotan(). In development, the khotan command signs its requests "
        "with KHOTAN_SECRET, which must be the server's.",
    )


async def _signed(call: Call) -> bool:
    header = call.headers.get("authorization", "")
    verifier = call.services.verifier
    if not header.startswith(SCHEME + " ") or not call.services.development or verifier is None:
        return False
    return verifier.verify(header, call.method, call.target, await call.read())


def may_debug(call: Call) -> bool:
    settings = call.services.settings
    return call.local or (settings.debug and settings.env != "production")


def require_debug(call: Call) -> None:
    """Raises Unauthorized (debug_disabled) if debugging is off."""
    if not may_debug(call):
        raise Unauthorized(
            "Debug routes are disabled",
            code="debug_disabled",
            hint="Set KHOTAN_DEBUG=1 and KHOTAN_ENV=development, or run khotan dev.",
        )


async def bound_services(call: Call) -> Services:
    """The app's services, with plugs bound to the database if it is available. Raises KhotanError."""
    if not call.services.bound:
        await call.services.bind()
    return call.services


CurrentServices = Annotated[Services, Depends(bound_services)]


def named_plug(plug: str, services: CurrentServices) -> Plug:
    """The plug of that name. Raises UnknownName."""
    return services.registry.plug(plug)


CurrentPlug = Annotated[Plug, Depends(named_plug)]
