"""The sandbox's documentation: an OpenAPI document and a page to read.

Both describe the data as somebody once meant it to be, not as `data.py` sends it. That is on purpose: documentation
that is wrong in small ways is what a plug is checked against a live service for.
"""

from __future__ import annotations

from html import escape
from typing import Any

from khotan_cli.sandbox.access import API_KEY_HEADER, API_KEY_PARAM, AREAS
from khotan_cli.sandbox.paging import DEFAULT_LIMIT, MAX_LIMIT

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_TIME: Schema = {"type": "string", "format": "date-time"}

SCHEMAS: dict[str, Schema] = {
    "Product": {
        "id": _TEXT,
        "sku": _TEXT,
        "name": _TEXT,
        "description": _TEXT,
        "price_cents": {**_INTEGER, "description": "Price in cents."},
        "currency": _TEXT,
        "stock": {**_INTEGER, "description": "Pieces in the warehouse."},
        "status": {"type": "string", "enum": ["active", "draft"]},
        "tags": {"type": "array", "items": _TEXT},
        "dimensions": {"$ref": "#/components/schemas/Dimensions"},
        "created_at": _TIME,
    },
    "Dimensions": {"weight_g": _INTEGER, "width_mm": _INTEGER, "height_mm": _INTEGER},
    "Order": {
        "id": _TEXT,
        "customer_id": _TEXT,
        "status": {"type": "string", "enum": ["open", "paid", "shipped"]},
        "total": {"type": "number", "description": "Total in the order's currency."},
        "currency": _TEXT,
        "lines": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}},
        "shipping_address": {"$ref": "#/components/schemas/Address"},
        "placed_at": _TIME,
    },
    "Line": {"product_id": _TEXT, "quantity": _INTEGER, "unit_cents": _INTEGER},
    "Customer": {
        "id": _TEXT,
        "name": _TEXT,
        "email": {"type": "string", "format": "email"},
        "phone": _TEXT,
        "vip": {"type": "boolean"},
        "address": {"$ref": "#/components/schemas/Address"},
        "created_at": _TIME,
    },
    "Address": {"city": _TEXT, "country": _TEXT, "postcode": _INTEGER},
    "ProductPage": {
        "items": {"type": "array", "items": {"$ref": "#/components/schemas/Product"}},
        "total": _INTEGER,
        "limit": _INTEGER,
        "offset": _INTEGER,
    },
    "OrderPage": {
        "orders": {"type": "array", "items": {"$ref": "#/components/schemas/Order"}},
        "next_cursor": {"type": ["string", "null"]},
    },
    "CustomerPage": {
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Customer"}},
        "has_more": {"type": "boolean"},
    },
    "NewOrder": {"customer_id": _TEXT, "lines": {"type": "array", "items": {"$ref": "#/components/schemas/NewLine"}}},
    "NewLine": {"product_id": _TEXT, "quantity": {**_INTEGER, "minimum": 1}},
    "Error": {"error": {"$ref": "#/components/schemas/ErrorBody"}},
    "ErrorBody": {"code": _TEXT, "message": _TEXT, "param": _TEXT},
}
"""Properties by schema; all are required, but `param` of an error."""

_COLLECTIONS = (
    # path, schema, page, one record is called, how it is paged
    ("products", "Product", "ProductPage", "product", {"offset": {**_INTEGER, "minimum": 0}}),
    ("orders", "Order", "OrderPage", "order", {"cursor": _TEXT}),
    ("customers", "Customer", "CustomerPage", "customer", {"starting_after": _TEXT}),
)
_SECURITY: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "api-key-header": {"type": "apiKey", "in": "header", "name": API_KEY_HEADER},
    "api-key-query": {"type": "apiKey", "in": "query", "name": API_KEY_PARAM},
}


def openapi(base: str) -> Schema:
    """The OpenAPI 3.1 document of a sandbox at that URL. Each server is one way to authenticate."""
    oauth2 = {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": f"{base}/oauth2/token", "scopes": {}}}}
    paths: Schema = {}
    for path, schema, listing, name, position in _COLLECTIONS:
        paths[f"/{path}"] = {"get": _list(path, listing, position)}
        paths[f"/{path}/{{id}}"] = {"get": _get(schema, name)}
    paths["/orders"]["post"] = _create()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sandbox commerce API",
            "version": "1.0.0",
            "description": "Test credentials: " + "; ".join(f"{area}: {how}" for area, how in AREAS.items()),
        },
        "servers": [{"url": f"{base}/{area}", "description": how} for area, how in AREAS.items()],
        "security": [{area: []} for area in AREAS],
        "paths": paths,
        "components": {
            "schemas": {name: _object(properties) for name, properties in SCHEMAS.items()},
            "securitySchemes": {**_SECURITY, "oauth2": oauth2},
        },
    }


def page(base: str) -> str:
    """The same for people: one HTML page without anything to load."""
    ways = "".join(f"<tr><td><code>{base}/{area}</code><td>{escape(how)}" for area, how in AREAS.items())
    lists = "".join(
        f"<tr><td><code>GET /{path}</code><td><code>limit</code> (1 to {MAX_LIMIT}, default {DEFAULT_LIMIT}), "
        f"<code>{next(iter(position))}</code><td>{escape(', '.join(SCHEMAS[listing]))}"
        for path, _, listing, _, position in _COLLECTIONS
    )
    records = "".join(
        f"<h3>{schema}</h3><p><code>GET /{path}/{{id}}</code></p><table>{_rows(SCHEMAS[schema])}</table>"
        for path, schema, _, _, _ in _COLLECTIONS
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Sandbox commerce API</title>
<style>body{{font:16px/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}}td{{padding:.1rem .8rem .1rem 0}}
</style><h1>Sandbox commerce API</h1>
<p>Machine-readable: <a href="/openapi.json">/openapi.json</a>. All keys are required and never null.</p>
<h2>Base URLs and test credentials</h2><table>{ways}</table>
<p>OAuth 2.0 tokens: <code>POST {base}/oauth2/token</code>, the client by HTTP Basic or form fields.</p>
<h2>Lists</h2><table>{lists}</table>
<h2>Records</h2>{records}
<h2>New orders</h2><p><code>POST /orders</code> with customer_id and lines (product_id, quantity). A repeated
<code>Idempotency-Key</code> header answers with the order it created first.</p>
<h2>Errors</h2><p>401, 404, 422: <code>{{"error": {{"code", "message", "param"}}}}</code></p></html>
"""


def _rows(properties: Schema) -> str:
    return "".join(f"<tr><td><code>{name}</code><td>{escape(_words(schema))}" for name, schema in properties.items())


def _words(schema: Schema) -> str:
    if "$ref" in schema:
        nested = SCHEMAS[schema["$ref"].rpartition("/")[2]]
        return "object: " + ", ".join(f"{name} ({_words(inner)})" for name, inner in nested.items())
    if schema["type"] == "array":
        return f"list of {_words(schema['items'])}"
    return " ".join(filter(None, [schema["type"], schema.get("format", ""), " | ".join(schema.get("enum", ()))]))


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": [name for name in properties if name != "param"]}


def _content(schema: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _answers(schema: str, *errors: int, success: int = 200) -> Schema:
    responses: Schema = {str(success): {"description": schema, "content": _content(schema)}}
    for status in (401, *errors):
        responses[str(status)] = {"description": "Error", "content": _content("Error")}
    return responses


def _list(path: str, listing: str, position: Schema) -> Schema:
    limit = {**_INTEGER, "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
    parameters = [{"name": n, "in": "query", "schema": s} for n, s in {"limit": limit, **position}.items()]
    return {"operationId": f"list_{path}", "parameters": parameters, "responses": _answers(listing, 422)}


def _get(schema: str, name: str) -> Schema:
    parameter = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
    return {"operationId": f"get_{name}", "parameters": [parameter], "responses": _answers(schema, 404)}


def _create() -> Schema:
    return {
        "operationId": "create_order",
        "parameters": [{"name": "Idempotency-Key", "in": "header", "schema": _TEXT}],
        "requestBody": {"required": True, "content": _content("NewOrder")},
        "responses": _answers("Order", 422, success=201),
    }
