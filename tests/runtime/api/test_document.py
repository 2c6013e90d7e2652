"""Who may read the API's OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request

from khotan_cli.client import CliSignature
from tests.support.project import SECRET
from tests.support.server import served

Make = Callable[..., Any]
API = "/api/khotan"


async def test_the_openapi_document_is_shown_to_whom_authorize_lets_in(make: Make) -> None:
    def by_header(request: Request) -> bool:
        return request.headers.get("x-admin") == "yes"

    for env in ("development", "production"):
        async with served(make(by_header, KHOTAN_ENV=env).asgi()) as client:
            for method in ("GET", "HEAD"):
                refused = await client.request(method, f"{API}/openapi.json")
                assert refused.status_code in (401, 405) and "/variables" not in refused.text
            shown = await client.get(f"{API}/openapi.json", headers={"X-Admin": "yes"})
            assert shown.status_code == 200 and "/variables" in shown.json()["paths"]
            for page in ("/docs", "/redoc", "/docs/oauth2-redirect"):
                assert (await client.get(API + page)).status_code == 404, "there is no page that shows it either"
    async with served(make().asgi(), CliSignature(SECRET)) as client:
        assert (await client.get(f"{API}/openapi.json")).status_code == 200
