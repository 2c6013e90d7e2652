"""GET /health."""

from __future__ import annotations

from fastapi import APIRouter, Request

from khotan_cli import __version__
from khotan_cli.errors import DatabaseNotMigrated, KhotanError
from khotan_cli.runtime.api.schemas import DatabaseHealth, Health
from khotan_cli.runtime.services import Services

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(request: Request) -> Health:
    """Whether the app runs and its database is there. Always 200: `status` says "ok" or "degraded"."""
    services: Services = request.app.state.services()
    reachable = migrated = False
    try:
        await services.database.check_migrated()
        reachable = migrated = True
    except DatabaseNotMigrated:
        reachable = True
    except KhotanError:
        reachable = False
    return Health(
        status="ok" if migrated else "degraded",
        version=__version__,
        env=services.settings.env,
        database=DatabaseHealth(reachable=reachable, migrated=migrated),
        plugs=len(services.registry.plugs),
    )
