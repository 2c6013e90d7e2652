"""The sandbox's HTTP side: routes, status codes and error bodies."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from khotan_cli.sandbox import access, paging
from khotan_cli.sandbox.board import board
from khotan_cli.sandbox.data import Record, catalogue
from khotan_cli.sandbox.document import openapi, page

Handler = Callable[[Request], Awaitable[Response]]
_MAX_BODY = 1_000_000


def build() -> Starlette:
    """A sandbox with its own fresh data and tokens."""
    shop, tokens = _Shop(), access.Tokens()

    async def token(request: Request) -> Response:
        if request.method != "POST":  # said here: the route of the area below would take other methods over
            return await _wrong_method(request, HTTPException(405, headers={"Allow": "POST"}))
        return await access.token(request, tokens)

    routes: list[BaseRoute] = [
        Route("/", _document_page),
        Route("/docs", _document_page),
        Route("/openapi.json", _openapi),
        Route("/oauth2/token", token, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]
    for area in access.AREAS:
        routes.append(Mount(f"/{area}", routes=_area(area, shop, tokens)))
    routes.append(Mount("/board", routes=board()))
    errors: Any = {404: _not_found, 405: _wrong_method, 500: _failed}
    return Starlette(routes=routes, exception_handlers=errors)


class _Shop:
    """The records, and the orders created since."""

    def __init__(self) -> None:
        self.records = catalogue()
        self._created: dict[str, tuple[str, Record]] = {}

    def create_order(self, body: Any, key: str) -> tuple[Record, bool]:
        """The new order, or the one that the idempotency key created before; and whether it is new."""
        digest = sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        if key in self._created:
            known, order = self._created[key]
            if known != digest:
                raise paging.Invalid("Idempotency-Key", "This key was used for another order.")
            return order, False
        order = self._order(body)
        self.records.orders.append(order)
        if key:
            self._created[key] = (digest, order)
        return order, True

    def _order(self, body: Any) -> Record:
        if not isinstance(body, dict):
            raise paging.Invalid("body", "The body must be a JSON object.")
        if body.get("customer_id") not in {record["id"] for record in self.records.customers}:
            raise paging.Invalid("customer_id", "customer_id must be the id of a customer.")
        asked = body.get("lines")
        if not isinstance(asked, list) or not asked:
            raise paging.Invalid("lines", "lines must be a list with at least one line.")
        lines = [self._line(line, index) for index, line in enumerate(asked)]
        total = sum(line["quantity"] * line["unit_cents"] for line in lines)
        return {
            "id": f"ord_{len(self.records.orders) + 1:05d}",
            "customer_id": body["customer_id"],
            "status": "open",
            "total": f"{total / 100:.2f}",
            "currency": "EUR",
            "lines": lines,
            "shipping_address": None,
            "placed_at": "2025-03-01T12:00:00Z",  # a fixed time, as everything here is
        }

    def _line(self, line: Any, index: int) -> Record:
        product_id = line.get("product_id") if isinstance(line, dict) else None
        product = next((record for record in self.records.products if record["id"] == product_id), None)
        if product is None:
            raise paging.Invalid(f"lines[{index}].product_id", "product_id must be the id of a product.")
        quantity = line.get("quantity")
        if not isinstance(quantity, int) or isinstance(quantity, bool) or quantity < 1:
            raise paging.Invalid(f"lines[{index}].quantity", "quantity must be an integer of 1 or more.")
        return {"product_id": product["id"], "quantity": quantity, "unit_cents": int(product["price_cents"])}


def _area(area: str, shop: _Shop, tokens: access.Tokens) -> list[BaseRoute]:
    def guarded(handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            refused = access.challenge(area, request, tokens)
            if refused is not None:
                return _error(401, "unauthorized", f"Use {access.AREAS[area]}", headers={"WWW-Authenticate": refused})
            try:
                return await handler(request)
            except paging.Invalid as exc:
                return _error(422, "invalid_parameter", str(exc), param=exc.param)

        return handle

    def one(records: list[Record], kind: str) -> Handler:
        async def handle(request: Request) -> Response:
            wanted = request.path_params["id"]
            found = next((record for record in records if record["id"] == wanted), None)
            return JSONResponse(found) if found else _error(404, "not_found", f"There is no {kind} {wanted!r}.")

        return guarded(handle)

    def many(records: list[Record], pages: Callable[[list[Record], Any], Record]) -> Handler:
        async def handle(request: Request) -> Response:
            return JSONResponse(pages(records, request.query_params))

        return guarded(handle)

    async def create_order(request: Request) -> Response:
        body = await request.body()
        if len(body) > _MAX_BODY:
            return _error(413, "too_large", "The body is larger than 1 MB.")
        try:
            data = json.loads(body)
        except ValueError:
            return _error(400, "invalid_json", "The body is not JSON.")
        order, new = shop.create_order(data, request.headers.get("idempotency-key", ""))
        return JSONResponse(order, 201 if new else 200)

    records = shop.records
    return [
        Route("/products", many(records.products, paging.by_offset)),
        Route("/products/{id}", one(records.products, "product")),
        Route("/orders", many(records.orders, paging.by_cursor), methods=["GET"]),
        Route("/orders", guarded(create_order), methods=["POST"]),
        Route("/orders/{id}", one(records.orders, "order")),
        Route("/customers", many(records.customers, paging.by_keyset)),
        Route("/customers/{id}", one(records.customers, "customer")),
    ]


async def _document_page(request: Request) -> Response:
    return HTMLResponse(page(_base(request)))


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi(_base(request)))


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _error(
    status: int, code: str, message: str, *, param: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    body: Record = {"code": code, "message": message}
    if param is not None:
        body["param"] = param
    return JSONResponse({"error": body}, status, headers)


async def _not_found(request: Request, exc: Exception) -> Response:
    return _error(404, "not_found", f"There is nothing at {request.url.path}. See /docs.")


async def _wrong_method(request: Request, exc: Exception) -> Response:
    headers = dict(getattr(exc, "headers", None) or {})
    return _error(405, "method_not_allowed", f"{request.method} is not possible here.", headers=headers)


async def _failed(request: Request, exc: Exception) -> Response:
    return _error(500, "internal_error", "The sandbox failed; its log says why.")
