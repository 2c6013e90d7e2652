"""The sandbox's records. Deterministic: made from the index and one seed, so that every start sends the same bytes.

Where a record is not what `document.py` says of it, a comment here says so: those places are what a contract check
is there to find.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Record = dict[str, Any]

PRODUCTS, ORDERS, CUSTOMERS = 240, 320, 280

_SEED = 1886
_START = datetime(2025, 1, 6, 8, 0, tzinfo=UTC)
_ADJECTIVES = ("Plain", "Amber", "Folding", "Quiet", "Double", "Pocket", "Nordic", "Linen", "Copper", "Travel")
_NOUNS = ("Lamp", "Kettle", "Notebook", "Chair", "Blanket", "Teapot", "Stool", "Mirror", "Vase", "Clock")
_TAGS = ("new", "sale", "handmade", "oversize", "gift")
_FIRST = ("Alba", "Bo", "Chidi", "Dana", "Emeka", "Freya", "Goran", "Hana", "Ines", "Jun")
_LAST = ("Abel", "Brandt", "Castro", "Dahl", "Eze", "Fontaine", "Grau", "Haddad", "Ito", "Jansen")
_CITIES = (("Leipzig", "DE", "04109"), ("Lyon", "FR", "69001"), ("Porto", "PT", "4050"), ("Boston", "US", "02108"))


@dataclass(frozen=True)
class Catalogue:
    """All records of one sandbox. Orders may be added to; each list is in the order in which it is served."""

    products: list[Record]
    orders: list[Record]
    customers: list[Record]


def catalogue() -> Catalogue:
    """Make the records afresh."""
    source = random.Random(_SEED)
    return Catalogue(
        products=[_product(index, source) for index in range(PRODUCTS)],
        orders=[_order(index, source) for index in range(ORDERS)],
        customers=[_customer(index, source) for index in range(CUSTOMERS)],
    )


def _stamp(hours: int) -> str:
    return (_START + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _product(index: int, source: random.Random) -> Record:
    adjective, noun = _ADJECTIVES[index % 10], _NOUNS[index // 10 % 10]
    record: Record = {
        "id": f"prod_{index + 1:04d}",
        "sku": f"{adjective[:3].upper()}-{noun[:3].upper()}-{index + 1:03d}",
        "name": f"{adjective} {noun}",
        "description": f"A {adjective.lower()} {noun.lower()}, made to be used every day.",
        "price_cents": str(source.randrange(495, 24_995, 50)),  # documented: integer; sent: string
        "currency": "EUR",
        "stock": source.randrange(0, 400),
        "status": "draft" if index % 11 == 5 else "active",
        "tags": sorted(source.sample(_TAGS, index % 3)),
        "dimensions": {"weight_g": source.randrange(80, 9_000), "width_mm": index % 40 + 100, "height_mm": 120},
        "created_at": _stamp(index * 5),
        "barcode": f"40{source.randrange(10**10, 10**11)}",  # not documented
    }
    if index % 7 == 3:
        del record["description"]  # documented: required
    if index % 6 == 4:
        record["stock"] = None  # documented: never null; made to order
    if index % 9 == 7:
        record["status"] = "archived"  # documented: active or draft
    if index % 8 == 6:
        record["created_at"] = record["created_at"][:10]  # documented: date-time; sent: date
    return record


def _order(index: int, source: random.Random) -> Record:
    lines: list[Record] = [
        {
            "product_id": f"prod_{source.randrange(PRODUCTS) + 1:04d}",
            "quantity": source.randrange(1, 5),
            "unit_cents": source.randrange(495, 24_995, 50),
        }
        for _ in range(index % 3 + 1)
    ]
    total = sum(line["quantity"] * line["unit_cents"] for line in lines)
    if index % 4 == 2:
        lines.append({"gift_card": f"GC-{index:05d}", "quantity": 1, "unit_cents": 0})  # documented: with product_id
    city, country, postcode = _CITIES[index % 4]
    record: Record = {
        "id": f"ord_{index + 1:05d}",
        "customer_id": f"cus_{index * 7 % CUSTOMERS + 1:04d}",
        "status": ("paid", "open", "paid", "shipped")[index % 4],
        "total": f"{total / 100:.2f}",  # documented: number; sent: string
        "currency": "EUR",
        "lines": lines,
        "shipping_address": {"city": city, "country": country, "postcode": postcode},
        "placed_at": _stamp(index * 3),
    }
    if index % 5 == 3:
        record["shipping_address"] = None  # documented: never null; picked up at the shop
    if index % 10 == 9:
        record["status"] = "refunded"  # documented: open, paid or shipped
        record["refund"] = {"reason": "returned", "cents": total}  # not documented
    return record


def _customer(index: int, source: random.Random) -> Record:
    first, last = _FIRST[index % 10], _LAST[index // 10 % 10]
    city, country, postcode = _CITIES[index % 4]
    record: Record = {
        "id": f"cus_{index + 1:04d}",
        "name": f"{first} {last}",
        "email": f"{first}.{last}.{index + 1}@example.com".lower(),
        "phone": f"+49 341 {source.randrange(100_000, 999_999)}",
        "vip": index % 12 == 0,
        "address": {"city": city, "country": country, "postcode": postcode},  # documented: integer; "04109" is not one
        "created_at": _stamp(index * 2),
    }
    if index % 4 == 1:
        del record["phone"]  # documented: required
    if index % 6 == 2:
        record["locale"] = "de-DE"  # not documented
    return record
