"""`ApiClient`: typed calls of the management API, over HTTP or in-process."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from khotan_cli.errors import KhotanError, ServerUnreachable
from khotan_cli.request_signing import sign

API_PATH = "/api/khotan"
CALL_SECONDS = 300.0
"""A debug call may wait for retries."""


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

    def resume_plug(self, name: str) -> dict[str, Any]:
        return self._call("DELETE", f"/plugs/{_segment(name)}/pause")

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

    def flows(self) -> dict[str, Any]:
        return self._call("GET", "/flows", params={"limit": 1000})

    def flow(self, name: str) -> dict[str, Any]:
        return self._call("GET", f"/flows/{_segment(name)}")

    def set_flow_enabled(self, name: str, enabled: bool) -> dict[str, Any]:
        return self._call("PATCH", f"/flows/{_segment(name)}", json={"enabled": enabled})

    def trigger(self, flow: str, variant: str | None, body: Any, *, dry_run: bool = False) -> dict[str, Any]:
        request = {"variant": variant, "body": body, "dryRun": dry_run}
        return self._call("POST", f"/flows/{_segment(flow)}/runs", json=request)

    def flow_state(self, flow: str, destination: str | None, limit: int, offset: int) -> dict[str, Any]:
        params: dict[str, str | int] = {"limit": limit, "offset": offset}
        params |= {"destination": destination} if destination else {}
        return self._call("GET", f"/flows/{_segment(flow)}/state", params=params)

    def reset_flow_state(self, flow: str, what: Sequence[str]) -> dict[str, Any]:
        params = [("reset", item) for item in what]
        return self._call("DELETE", f"/flows/{_segment(flow)}/state", params=params)

    def workers(self) -> dict[str, Any]:
        return self._call("GET", "/workers", params={"limit": 1000})

    def runs(
        self, flow: str | None = None, status: Sequence[str] = (), limit: int = 20, offset: int = 0
    ) -> dict[str, Any]:
        params: list[tuple[str, str | int]] = [("limit", limit), ("offset", offset)]
        params += [("flow", flow)] if flow else []
        return self._call("GET", "/runs", params=[*params, *[("status", value) for value in status]])

    def run(self, run_id: str) -> dict[str, Any]:
        return self._call("GET", f"/runs/{_segment(run_id)}")

    def rejects(self, run_id: str, limit: int = 20) -> dict[str, Any]:
        return self._call("GET", f"/runs/{_segment(run_id)}/rejects", params={"limit": limit})

    def cancel_run(self, run_id: str) -> dict[str, Any]:
        return self._call("POST", f"/runs/{_segment(run_id)}/cancel")

    def retry_run(self, run_id: str, from_step: str | None = None) -> dict[str, Any]:
        return self._call("POST", f"/runs/{_segment(run_id)}/retry", json={"fromStep": from_step})

    def reconcile(self, flow: str | None = None) -> dict[str, Any]:
        return self._call("POST", (f"/flows/{_segment(flow)}" if flow else "") + "/runs/reconcile-stuck")

    def resources(self) -> dict[str, Any]:
        return self._call("GET", "/resources", params={"limit": 1000})

    def mappings(self, resource: str, search: str = "", limit: int = 100, offset: int = 0) -> dict[str, Any]:
        params = {"search": search, "limit": limit, "offset": offset}
        return self._call("GET", f"/resources/{_segment(resource)}/mappings", params=params)

    def upsert_mappings(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", "/mappings", json=dict(request))

    def lookup_mappings(self, query: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", "/mappings/lookup", json=dict(query))

    def change_mapping(self, mapping_id: str, refs: Mapping[str, str], *, replace: bool) -> dict[str, Any]:
        return self._call("PUT", f"/mappings/{_segment(mapping_id)}", json={"refs": dict(refs), "replace": replace})

    def delete_mapping(self, mapping_id: str) -> dict[str, Any]:
        return self._call("DELETE", f"/mappings/{_segment(mapping_id)}")

    def caches(self) -> dict[str, Any]:
        return self._call("GET", "/caches", params={"limit": 1000})

    def cache_entries(self, name: str, owner: str | None = None, prefix: str = "") -> dict[str, Any]:
        params = {"prefix": prefix, "limit": 1000} | ({} if owner is None else {"owner": owner})
        return self._call("GET", f"/caches/{_segment(name)}", params=params)

    def cache_entry(self, name: str, key: str, owner: str = "") -> dict[str, Any]:
        return self._call("GET", f"/caches/{_segment(name)}/{_segment(key)}", params={"owner": owner})

    def set_cache_entry(self, name: str, key: str, value: Any, ttl: str | None, owner: str = "") -> dict[str, Any]:
        path = f"/caches/{_segment(name)}/{_segment(key)}"
        return self._call("PUT", path, params={"owner": owner}, json={"value": value, "ttl": ttl})

    def delete_cache_entry(self, name: str, key: str, owner: str = "") -> dict[str, Any]:
        return self._call("DELETE", f"/caches/{_segment(name)}/{_segment(key)}", params={"owner": owner})

    def clear_cache(self, name: str, owner: str | None = None) -> dict[str, Any]:
        params = {} if owner is None else {"owner": owner}
        return self._call("DELETE", f"/caches/{_segment(name)}", params=params)

    def wires(self) -> dict[str, Any]:
        return self._call("GET", "/wires", params={"limit": 1000})

    def wire(self, wire: str) -> dict[str, Any]:
        return self._call("GET", f"/wires/{_path(wire)}")

    def create_wire(self, wire: str, url: str | None) -> dict[str, Any]:
        return self._call("POST", f"/wires/{_path(wire)}", json={"url": url})

    def renew_wire(self, wire: str) -> dict[str, Any]:
        return self._call("POST", f"/wires/{_path(wire)}/renew")

    def delete_wire(self, wire: str) -> dict[str, Any]:
        return self._call("DELETE", f"/wires/{_path(wire)}")

    def set_wire_enabled(self, wire: str, enabled: bool) -> dict[str, Any]:
        return self._call("PATCH", f"/wires/{_path(wire)}", json={"enabled": enabled})

    def set_handler_enabled(self, handler: str, enabled: bool) -> dict[str, Any]:
        return self._call("PATCH", f"/webhook-handlers/{_path(handler)}", json={"enabled": enabled})

    def set_wire_vars(self, wire: str, values: Mapping[str, str]) -> dict[str, Any]:
        return self._call("POST", f"/wires/{_path(wire)}/vars", json={"values": dict(values)})

    def clear_wire_vars(self, wire: str, keys: Sequence[str] = ()) -> dict[str, Any]:
        return self._call("DELETE", f"/wires/{_path(wire)}/vars", params=[("key", key) for key in keys])

    def sample_event(self, wire: str, event_type: str, body: Any, *, forged: bool = False) -> dict[str, Any]:
        request = {"type": event_type, "body": body, "forged": forged}
        return self._call("POST", f"/wires/{_path(wire)}/sample", json=request)

    def send_event(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Send a signed request as the service would: to the wire's path, without khotan's authorization.

        The result has no `id` if the wire treated the request as a challenge.
        """
        content = base64.b64decode(sample["body"])
        response = self._send(sample["method"], sample["path"], content=content, headers=sample["headers"], auth=None)
        if (
            response.is_success and response.status_code != 202
        ):  # the response to a challenge has the form that the service expects
            return {"ok": True}
        return self._document(response)

    def events(self, *, seconds: float = CALL_SECONDS, **filters: Any) -> dict[str, Any]:
        """List events. `seconds` is the read timeout."""
        params = {name: value for name, value in filters.items() if value is not None}
        return self._call("GET", "/webhook-events", params=params, timeout=seconds)

    def event(self, event: str) -> dict[str, Any]:
        return self._call("GET", f"/webhook-events/{_segment(event)}")

    def replay_event(self, event: str, handler: str | None = None, organisation: str | None = None) -> dict[str, Any]:
        request = {"handler": handler, "organisation": organisation}
        return self._call("POST", f"/webhook-events/{_segment(event)}/replay", json=request)

    def replay_many(self, wire: str | None, since: str | None, *, parked: bool = False) -> dict[str, Any]:
        request = {"wire": wire, "since": since, "parked": parked}
        return self._call("POST", "/webhook-events/replay", json=request)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return self._document(self._send(method, path, **options))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, API_PATH + path, **options)
        except httpx.TimeoutException:
            raise ServerUnreachable(f"{self._where} did not answer in time", hint="See the server's log.") from None
        except httpx.HTTPError as exc:
            raise ServerUnreachable(
                f"Cannot reach {self._where}: {exc}",
                hint="Start the server with `khotan dev`, correct --url, or omit --url to run in-process.",
            ) from None

    def _document(self, response: httpx.Response) -> dict[str, Any]:
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict) or "ok" not in document:
            raise KhotanError(
                f"{self._where} answered {response.status_code}, but not in the format of khotan's management API",
                code="server_invalid",
                hint="Check --url: it must be the server's base URL, without /api/khotan.",
            )
        if response.is_error or document["ok"] is not True:
            raise KhotanError.from_json(document)
        return document


def _path(name: str) -> str:
    """Quote a name that may contain a slash: `shop/orders`."""
    return quote(name, safe="/")


def _segment(name: str) -> str:
    return quote(name, safe="")
