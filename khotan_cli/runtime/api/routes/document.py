"""GET /openapi.json."""

from __future__ import annotations

from typing import Any

from khotan_cli.runtime.api.calls import Call
from khotan_cli.runtime.api.operations import Router

router = Router()


@router.get("/openapi.json", documented=False)
async def openapi(call: Call) -> dict[str, Any]:
    """The API's OpenAPI document. Access follows `authorize`, as for every other route: the document names all of them.

    `servers` holds the path that the API is mounted at, as in FastAPI's own document.
    """
    from khotan_cli.runtime.api.openapi import document

    return {**document(), **({"servers": [{"url": call.mount}]} if call.mount else {})}
