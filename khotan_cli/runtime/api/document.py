"""GET /openapi.json."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from khotan_cli.runtime.api.authorize import GuardedRoute

router = APIRouter(route_class=GuardedRoute)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """The API's OpenAPI document. Access follows `authorize`, as for every other route: the document names all of them.

    `servers` holds the path that the API is mounted at, as in FastAPI's own document.
    """
    document = dict(request.app.openapi())
    if mounted := request.scope.get("root_path", "").rstrip("/"):
        document["servers"] = [{"url": mounted}]
    return JSONResponse(document)
