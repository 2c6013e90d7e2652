"""Resources, mappings and caches on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from khotan_cli.runtime.api.models.common import ApiModel, Listing, Ok

KeyIn = str | int | list[str | int]


class ResourceInfo(ApiModel):
    """A resource: the fields of its key, each plug's field of the id, and how many mappings there are."""

    name: str
    connect_field: list[str]
    plugs: dict[str, str]
    mappings: int


class ResourceShown(ResourceInfo):
    ok: bool = True


class MappingInfo(ApiModel):
    id: str
    resource: str
    key: list[str]
    refs: dict[str, str]
    created_at: datetime
    updated_at: datetime


class MappingShown(MappingInfo):
    ok: bool = True


class MappingItem(ApiModel):
    key: KeyIn
    refs: dict[str, str | int]


class MappingUpsert(ApiModel):
    """One mapping (`key`, `refs`), or many (`items`)."""

    resource: str
    key: KeyIn | None = None
    refs: dict[str, str | int] = {}
    items: list[MappingItem] | None = Field(default=None, max_length=100_000)
    replace: bool = False


class MappingsUpserted(Ok):
    created: int
    updated: int
    unchanged: int
    mapping: MappingInfo | None = None


class MappingLookup(ApiModel):
    """By `key`, by `plug` and `ref`, or many of either."""

    resource: str
    key: KeyIn | None = None
    keys: list[KeyIn] | None = None
    plug: str | None = None
    ref: str | int | None = None
    refs: list[str | int] | None = None


class MappingsFound(Ok):
    """`items` are those that are there."""

    items: list[MappingInfo]


class MappingChange(ApiModel):
    refs: dict[str, str | int]
    replace: bool = False


class Deleted(Ok):
    deleted: int


class CacheInfo(ApiModel):
    """A cache; ttl in seconds, null: entries stay until they are deleted."""

    name: str
    scope: str
    ttl: float | None
    entries: int


class CacheListing(Listing[CacheInfo]):
    """The declared caches. `cursors` and `sent` count what flows keep besides: GET /flows/{flow}/state of these `flows`."""

    cursors: int
    sent: int
    flows: list[str]


class EntryInfo(ApiModel):
    cache: str
    owner: str
    key: str
    value: Any = None
    expires_at: datetime | None
    updated_at: datetime


class EntryShown(EntryInfo):
    ok: bool = True


class EntryValue(ApiModel):
    """ttl: seconds, or a text such as 30m; null: the cache's own."""

    value: Any
    ttl: float | str | None = None
