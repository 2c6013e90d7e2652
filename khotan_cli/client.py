"""`ApiClient`: typed calls of the management API, over HTTP or in-process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from khotan_cli.errors import KhotanError, ServerUnreachable
from khotan_cli.signing import sign

API_PATH = "/api/khotan"
CALL_SECONDS = 300.0
"""A debugged call may wait out retries."""


class CliSignature(httpx.Auth):
    """Signs each request with KHOTAN_SECRET."""

    requires_request_body = True

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def auth_flow(self, request: httpx.Request) -> Any:
        target = request.url.raw_path.decode()
        request.headers["Authorization"] = sign(self._secret, request.method, target, request.content)
        yield request


class ApiClient:
    """Methods return parsed JSON documents and raise the KhotanError that the API answered with."""

    def __init__(self, http: httpx.Client, *, where: str) -> None:
        self._http, self._where = http, where

    def health(self) -> dict[str, Any]:
        return self._call("GET", "/health")

    def plugs(self) -> dict[str, Any]:
        return self._call("GET", "/plugs", params={"limit": 1000})

    def plug(self, name: str) -> dict[str, Any]:
        return self._call("GET", f"/plugs/{_segment(name)}")

    def set_plug_enabled(self, name: str, enabled: bool) -> dict[str, Any]:
        return self._call("PATCH", f"/plugs/{_segment(name)}", json={"enabled": enabled})

    def variables(self, plug: str | None = None, *, reveal: bool = False) -> dict[str, Any]:
        path = "/variables" if plug is None else f"/variables/{_segment(plug)}"
        params: dict[str, Any] = {"limit": 1000}
        return self._call("GET", path, params=params | ({"reveal": "true"} if reveal else {}))

    def set_variables(self, plug: str, values: Mapping[str, str]) -> dict[str, Any]:
        return self._call("POST", f"/variables/{_segment(plug)}", json={"values": dict(values)})

    def clear_variables(self, plug: str, keys: Sequence[str] = ()) -> dict[str, Any]:
        return self._call("DELETE", f"/variables/{_segment(plug)}", params=[("key", key) for key in keys])

    def rotate_variables(self) -> dict[str, Any]:
        return self._call("POST", "/variables/rotate")

    def debug(self, plug: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", f"/debug/{_segment(plug)}", json=dict(payload))

    def oauth_start(self, plug: str, redirect_uri: str) -> dict[str, Any]:
        return self._call("POST", f"/plugs/{_segment(plug)}/oauth/start", json={"redirectUri": redirect_uri})

    def oauth_finish(self, plug: str, callback_url: str) -> dict[str, Any]:
        return self._call("POST", f"/plugs/{_segment(plug)}/oauth/finish", json={"callbackUrl": callback_url})

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, API_PATH + path, **options)
        except httpx.TimeoutException:
            raise ServerUnreachable(f"{self._where} did not answer in time", hint="Look at the server's log.") from None
        except httpx.HTTPError as exc:
            raise ServerUnreachable(
                f"{self._where} cannot be reached: {exc}",
                hint="Start it with `khotan dev`, correct --url, or leave --url out to work in-process.",
            ) from None
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict) or "ok" not in document:
            raise KhotanError(
                f"{self._where} answers {response.status_code}, but not as khotan's management API does",
                code="server_invalid",
                hint="Check --url: it is the server's base URL, without /api/khotan.",
            )
        if response.is_error or document["ok"] is not True:
            raise KhotanError.from_json(document)
        return document


def _segment(name: str) -> str:
    return quote(name, safe="")
