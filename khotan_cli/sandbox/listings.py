"""The plug of the demo: first as the sandbox documents itself, then as the sandbox really is."""

from __future__ import annotations

import difflib

_HEAD = '''\
"""The sandbox shop."""

from datetime import {dates}
from typing import Literal

from khotan_cli.runtime import (
    BearerAuth,
    CursorPaginator,
    OffsetPaginator,
    Plug,
    Var,
    get,
)
from pydantic import BaseModel


class Dimensions(BaseModel):
    weight_g: int
    width_mm: int
    height_mm: int


'''

_PRODUCT = """\
class Product(BaseModel):
    id: str
    sku: str
    name: str
    description: str
    price_cents: int
    currency: str
    stock: int
    status: Literal["active", "draft"]
    tags: list[str]
    dimensions: Dimensions
    created_at: datetime
"""

_TRUE_PRODUCT = """\
class Product(BaseModel):
    id: str
    sku: str
    name: str
    description: str | None = None  # absent in some products
    price_cents: str  # the documentation says integer
    currency: str
    stock: int | None  # null: made to order
    status: Literal["active", "draft", "archived"]
    tags: list[str]
    dimensions: Dimensions
    created_at: datetime | date  # some are days, not times
    barcode: str  # not documented
"""

_REST = '''\


class ProductPage(BaseModel):
    items: list[Product]
    total: int
    limit: int
    offset: int


class Line(BaseModel):
    product_id: str
    quantity: int
    unit_cents: int


class Address(BaseModel):
    city: str
    country: str
    postcode: int


class Order(BaseModel):
    id: str
    customer_id: str
    status: Literal["open", "paid", "shipped"]
    total: float
    currency: str
    lines: list[Line]
    shipping_address: Address
    placed_at: datetime


class OrderPage(BaseModel):
    orders: list[Order]
    next_cursor: str | None


class ErrorBody(BaseModel):
    code: str
    message: str
    param: str | None = None


class ShopError(BaseModel):
    error: ErrorBody


class Shop(Plug):
    """The sandbox shop."""

    base_url = "{base_url}"

    token = Var(label="API token", secret=True, env="SHOP_TOKEN")
    auth = BearerAuth(token)

    list_products = get(
        "/products",
        returns=ProductPage,
        paginator=OffsetPaginator(items="items", total="total"),
    )
    get_product = get("/products/{{id}}", returns=Product, responses={{404: ShopError}})

    # Your turn: these are still as the documentation has them.
    #   khotan plug shop --endpoint list_orders --compare
    list_orders = get(
        "/orders",
        returns=OrderPage,
        paginator=CursorPaginator(param="cursor", cursor="next_cursor", items="orders"),
    )


shop = Shop()
'''


def documented(base_url: str) -> str:
    """The module as somebody writes it who believes the documentation."""
    return _HEAD.format(dates="datetime") + _PRODUCT + _REST.format(base_url=base_url)


def corrected(base_url: str) -> str:
    """The module with its products as they really come."""
    return _HEAD.format(dates="date, datetime") + _TRUE_PRODUCT + _REST.format(base_url=base_url)


def product_as_documented() -> str:
    """The part of the module that the demo shows."""
    return _PRODUCT


def correction(base_url: str, path: str) -> str:
    """What changes between the two, as a unified diff."""
    before, after = documented(base_url).splitlines(), corrected(base_url).splitlines()
    lines = difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", n=1, lineterm="")
    return "\n".join(lines)
