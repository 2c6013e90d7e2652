"""Finds the operation of a request. A module is imported with the first request for its path."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.api.operations import Operation, Router

_MODULES = {
    "health": ("health",),
    "openapi.json": ("document",),
    "plugs": ("plugs", "oauth"),
    "variables": ("variables",),
    "debug": ("debug",),
    "flows": ("flows",),
    "runs": ("runs",),
    "resources": ("resources",),
    "mappings": ("mappings",),
    "caches": ("caches",),
    "wires": ("wires",),
    "webhook-handlers": ("wires",),
    "webhook-events": ("webhook_events",),
    "workers": ("workers",),
    "cron": ("cron",),
}
"""The first segment of a path → the modules with its operations."""
_LISTED = "The routes are listed in /api/khotan/openapi.json."


def find(method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """The operation, and the values of its path's placeholders. Raises KhotanError: not_found, method_not_allowed."""
    allowed: list[str] = []
    for operation in _operations(path[1:].partition("/")[0]):
        values = operation.match(path)
        if values is None:
            continue
        if operation.method == method:
            return operation, values
        allowed.append(operation.method)
    if allowed:
        raise KhotanError(
            f"The route does not support {method}",
            code="method_not_allowed",
            hint=f"Use {', '.join(sorted(set(allowed)))}. {_LISTED}",
            details={"allow": sorted(set(allowed))},
        )
    raise KhotanError("The route does not exist", code="not_found", hint=_LISTED)


def operations() -> Iterator[Operation]:
    """All operations, in the order of the documentation."""
    for name in dict.fromkeys(module for modules in _MODULES.values() for module in modules):
        yield from _router(name).operations


@cache
def _operations(noun: str) -> list[Operation]:
    return [operation for name in _MODULES.get(noun, ()) for operation in _router(name).operations]


def _router(name: str) -> Router:
    router: Router = import_module(f"khotan_cli.runtime.api.routes.{name}").router
    return router
