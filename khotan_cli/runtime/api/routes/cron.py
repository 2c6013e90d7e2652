"""GET, POST /cron: a platform's cron starts due runs."""

from __future__ import annotations

import hmac

from khotan_cli.errors import ConfigError, Unauthorized
from khotan_cli.runtime.api.access import CurrentServices
from khotan_cli.runtime.api.calls import Call
from khotan_cli.runtime.api.models.flows import CronDone, DueRun
from khotan_cli.runtime.api.operations import Router
from khotan_cli.runtime.services import Services

router = Router(tags=["cron"], guarded=False)


@router.get("/cron", operation_id="cron_get")
@router.post("/cron", operation_id="cron_post")
async def cron(call: Call, services: CurrentServices) -> CronDone:
    """Start every due run once, even for concurrent requests. Of several missed times of a variant, only the last runs.

    Requires `Authorization: Bearer CRON_SECRET` (vercel.com/docs/cron-jobs/manage-cron-jobs) instead of `authorize`.
    """
    _check(call, services)
    started = await services.dispatcher.dispatch_due()
    return CronDone(
        started=[DueRun(id=run.run_id, flow=run.flow, variant=run.variant, due_at=run.due_at) for run in started]
    )


def _check(call: Call, services: Services) -> None:
    if call.local:
        return
    secret = services.settings.cron_secret.get_secret_value()
    if not secret:
        raise ConfigError(
            "CRON_SECRET is not set: /cron is disabled",
            code="cron_not_configured",
            hint="Set CRON_SECRET here and on the platform, which must send it: Authorization: Bearer …",
        )
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), secret.encode()):
        raise Unauthorized("The cron secret is missing or wrong", hint="Send Authorization: Bearer CRON_SECRET.")
