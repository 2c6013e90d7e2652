"""Plugs, endpoints and variables as they are shown."""

from __future__ import annotations

import inspect
from typing import Any

from khotan_cli.errors import DatabaseNotMigrated
from khotan_cli.runtime.api.models.common import EndpointInfo, PlugInfo, PlugSummary, QueryField, VarInfo
from khotan_cli.runtime.auth.schemes import PlugAuth
from khotan_cli.runtime.http.variables import resolve
from khotan_cli.runtime.plugs.endpoint import Endpoint
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.redaction.masker import mask_secret
from khotan_cli.runtime.services import Services
from khotan_cli.runtime.store.variables import Entry


async def plug_summary(plug: Plug, services: Services) -> PlugSummary:
    variables = await plug_vars(plug, services)
    return PlugSummary(
        name=plug.name,
        doc=first_line(plug),
        module=plug.module,
        base_url=plug.base_url,
        enabled=await services.enabled(plug.name),
        auth=auth_info(plug),
        endpoint_count=len(plug.endpoints()),
        missing_vars=[v.key for v in variables if v.required and not v.is_set],
    )


async def plug_info(plug: Plug, services: Services) -> PlugInfo:
    return PlugInfo(
        name=plug.name,
        doc=inspect.getdoc(type(plug)) or "",
        module=plug.module,
        base_url=plug.base_url,
        enabled=await services.enabled(plug.name),
        auth=auth_info(plug),
        paused_seconds=round(await paused_seconds(plug, services), 1),
        vars=await plug_vars(plug, services),
        endpoints=[endpoint_info(plug, endpoint) for endpoint in plug.endpoints().values()],
    )


async def paused_seconds(plug: Plug, services: Services) -> float:
    """Seconds for which the service asked the plug to wait; 0 where there is no migrated database to keep it."""
    try:
        return await services.rates.longest_pause(plug.name)
    except DatabaseNotMigrated:
        return 0.0


async def plug_vars(plug: Plug, services: Services, *, reveal: bool = False, strict: bool = False) -> list[VarInfo]:
    """A plug's variables. strict: a database that is not migrated is an error, not an empty one."""
    entries: list[Entry] = []
    try:
        entries = await services.vars.entries(plug.name)
    except DatabaseNotMigrated:
        if strict:
            raise
    by_key = {entry.key: entry for entry in entries}
    stored = {entry.key: entry.value for entry in entries if entry.value is not None}
    resolved = resolve(plug.name, plug.declared_vars(), stored, {})
    found: list[VarInfo] = []
    for name, var in plug.declared_vars().items():
        entry = by_key.get(name)
        broken = entry.error if entry is not None else None
        value = None if broken else resolved.values.get(name)
        found.append(
            VarInfo(
                plug=plug.name,
                key=name,
                label=var.label,
                description=var.description,
                secret=var.secret,
                required=var.required,
                env=var.env_name(plug.name),
                source="database" if broken else resolved.sources[name],
                is_set=value is not None,
                masked=None if value is None else mask_secret(value) if var.secret else value,
                value=value if reveal else None,
                updated_at=entry.updated_at if entry else None,
                error=None if broken is None else broken.code,
            )
        )
    return found


def endpoint_info(plug: Plug, endpoint: Endpoint[Any]) -> EndpointInfo:
    fields = endpoint.query.model_fields if endpoint.query else {}
    return EndpointInfo(
        name=endpoint.name,
        method=endpoint.method,
        path=endpoint.path.text,
        path_params=list(endpoint.path.names),
        query=[
            QueryField(name=field.alias or name, required=field.is_required(), type=type_name(field.annotation))
            for name, field in fields.items()
        ],
        body=None if endpoint.body is None else type_name(endpoint.body),
        returns=None if endpoint.returns is None else type_name(endpoint.returns),
        responses={status: type_name(model) for status, model in endpoint.responses.items()},
        paginated=(endpoint.paginator or plug.paginator) is not None,
    )


def auth_info(plug: Plug) -> dict[str, Any]:
    if plug.auth is None:
        return {"type": "none"}
    return plug.auth.describe() if isinstance(plug.auth, PlugAuth) else {"type": type(plug.auth).__name__}


def type_name(declared: Any) -> str:
    """`Charge`, `list[Charge]`, `str | None`: a type without its module. `None` stands for a response without a body."""
    if declared is type(None):
        return "None"
    if isinstance(declared, type) and not getattr(declared, "__args__", None):
        return declared.__name__
    text = str(declared).replace("typing.", "")
    return ".".join(part for part in [text.rpartition(".")[2]]) if "[" not in text and "|" not in text else text


def first_line(plug: Plug) -> str:
    return (inspect.getdoc(type(plug)) or "").partition("\n")[0] if type(plug).__doc__ else ""
