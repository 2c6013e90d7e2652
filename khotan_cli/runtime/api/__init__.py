"""The management API: one router per noun."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from khotan_cli import __version__
from khotan_cli.runtime.api import (
    caches,
    cron,
    debug,
    document,
    flows,
    health,
    mappings,
    oauth,
    plugs,
    resources,
    runs,
    variables,
    webhook_events,
    wires,
    workers,
)
from khotan_cli.runtime.api.errors import Boundary, install_error_handlers
from khotan_cli.runtime.api.inbound import INGEST, WEBHOOK, Inbound
from khotan_cli.runtime.api.limits import BodyLimit
from khotan_cli.runtime.services import Services


def build_api(services: Callable[[], Services]) -> FastAPI:
    """The API as an application to be mounted. `services` is called when the first request comes."""
    api = FastAPI(title="khotan", version=__version__, openapi_url=None, docs_url=None, redoc_url=None)
    api.state.services = services
    install_error_handlers(api)
    api.add_middleware(BodyLimit, exempt=(WEBHOOK, INGEST))
    api.add_middleware(Boundary)
    for mount in (WEBHOOK, INGEST):
        api.mount(mount, Inbound(services, mount))
    for module in (
        health,
        document,
        plugs,
        variables,
        debug,
        oauth,
        flows,
        runs,
        resources,
        mappings,
        caches,
        wires,
        webhook_events,
        workers,
        cron,
    ):
        api.include_router(module.router)
    return api
