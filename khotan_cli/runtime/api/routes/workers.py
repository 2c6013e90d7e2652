"""GET /workers."""

from __future__ import annotations

from khotan_cli.runtime.api.access import CurrentServices
from khotan_cli.runtime.api.models.common import Listing, listing
from khotan_cli.runtime.api.models.flows import WorkerInfo
from khotan_cli.runtime.api.operations import Router
from khotan_cli.runtime.api.routes.plugs import Limit, Offset

router = Router("/workers", tags=["workers"])


@router.get("")
async def list_workers(services: CurrentServices, limit: Limit = 100, offset: Offset = 0) -> Listing[WorkerInfo]:
    """The processes that currently run flows, oldest first."""
    found = [
        WorkerInfo(id=row.id, code=row.code, started_at=row.started_at, outdated=await services.outdated(row.code))
        for row in await services.workers()
    ]
    return listing(found, limit, offset)
