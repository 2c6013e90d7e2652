"""GET /health."""

from __future__ import annotations

from khotan_cli import __version__
from khotan_cli.errors import DatabaseNotMigrated, KhotanError
from khotan_cli.runtime.api.calls import Call
from khotan_cli.runtime.api.models.common import DatabaseHealth, Health
from khotan_cli.runtime.api.operations import Router

router = Router(tags=["health"], guarded=False)


@router.get("/health")
async def health(call: Call) -> Health:
    """Whether the app runs and its database is available. Always 200; `status` is "ok" or "degraded"."""
    services = call.services
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
