"""GET /openapi.json."""

from __future__ import annotations

from typing import Any

from khotan_cli.runtime.api.calls import Call
from khotan_cli.runtime.api.operations import Router

router = Router()


@router.get("/openapi.json", documented=False)
async def openapi(call: Call) -> dict[str, Any]:
    """The API's OpenAPI document. Requires the same authorization as the other routes.

    `servers` contains the mount path of the API, as in FastAPI's own document.
    """
    from khotan_cli.runtime.api.openapi import document

    return {**document(), **({"servers": [{"url": call.mount}]} if call.mount else {})}
