"""GET /variables · POST /variables/rotate · GET, POST, DELETE /variables/{plug}."""

from __future__ import annotations

from khotan_cli.errors import SecretMissing, Unauthorized, UnknownName
from khotan_cli.runtime.api.access import CurrentPlug, CurrentServices, may_debug
from khotan_cli.runtime.api.calls import Call
from khotan_cli.runtime.api.models.common import (
    Listing,
    VarInfo,
    VarsCleared,
    VarsRotated,
    VarsSet,
    VarValues,
    listing,
)
from khotan_cli.runtime.api.models.plug_views import plug_vars
from khotan_cli.runtime.api.operations import Router
from khotan_cli.runtime.api.routes.plugs import Limit, Offset
from khotan_cli.runtime.database.crypto import MAKE_SECRET
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.services import Services

router = Router("/variables", tags=["variables"])


@router.get("")
async def list_variables(
    services: CurrentServices, call: Call, reveal: bool = False, limit: Limit = 100, offset: Offset = 0
) -> Listing[VarInfo]:
    """Variables of all plugs."""
    _check_reveal(call, reveal)
    found: list[VarInfo] = []
    for plug in services.registry.plugs.values():
        found += await plug_vars(plug, services, reveal=reveal, strict=True)
    return listing(found, limit, offset)


@router.post("/rotate")
async def rotate_variables(services: CurrentServices) -> VarsRotated:
    """Re-encrypt all stored values with the current KHOTAN_SECRET."""
    if services.cipher is None:
        raise SecretMissing("KHOTAN_SECRET is not set", hint=f"Set it first. To generate one: {MAKE_SECRET}")
    done = await services.vars.rotate()
    failed = [{"plug": plug, "key": key} for plug, key in done.failed]
    return VarsRotated(rotated=done.rotated, current=done.current, failed=failed)


@router.get("/{plug}")
async def show_variables(
    plug: CurrentPlug,
    services: CurrentServices,
    call: Call,
    reveal: bool = False,
    limit: Limit = 100,
    offset: Offset = 0,
) -> Listing[VarInfo]:
    """A plug's variables, with masked values. `reveal=true` shows them in-process, or in development with debugging on."""
    _check_reveal(call, reveal)
    return listing(await plug_vars(plug, services, reveal=reveal, strict=True), limit, offset)


@router.post("/{plug}")
async def set_variables(plug: CurrentPlug, given: VarValues, services: CurrentServices) -> VarsSet:
    """Store values, all or none. Unknown keys and empty values are rejected."""
    _known(plug, list(given.values))
    await services.vars.save(plug.name, given.values)
    await _settle(plug, services)
    return VarsSet(plug=plug.name, set=sorted(given.values))


@router.delete("/{plug}")
async def clear_variables(plug: CurrentPlug, services: CurrentServices, key: list[str] | None = None) -> VarsCleared:
    """Remove the stored values of the `key`s, or all of the plug's."""
    _known(plug, key or [])
    cleared = await services.vars.delete(plug.name, key or list(plug.declared_vars()))
    await _settle(plug, services)
    message = f"Cleared {', '.join(cleared)}." if cleared else "Nothing to clear: no value is stored."
    return VarsCleared(plug=plug.name, cleared=cleared, message=message)


async def _settle(plug: Plug, services: Services) -> None:
    await services.vars.forget_tokens(plug.name)
    services.changed(plug)


def _known(plug: Plug, keys: list[str]) -> None:
    for key in keys:
        if key not in plug.declared_vars():
            raise UnknownName("var", key, plug.declared_vars(), where=f"plug {plug.name!r}")


def _check_reveal(call: Call, reveal: bool) -> None:
    if reveal and not may_debug(call):
        raise Unauthorized(
            "Values are shown only in development",
            code="debug_disabled",
            hint="Set KHOTAN_DEBUG=1 and KHOTAN_ENV=development on the server, or run without --url.",
        )
