"""GET /caches · GET, DELETE /caches/{cache} · GET, PUT, DELETE /caches/{cache}/{key}."""

from __future__ import annotations

from dataclasses import asdict

from khotan_cli.errors import KhotanError, UnknownName
from khotan_cli.runtime.api.access import CurrentServices
from khotan_cli.runtime.api.models.common import Listing, listing
from khotan_cli.runtime.api.models.resources import CacheInfo, CacheListing, Deleted, EntryInfo, EntryShown, EntryValue
from khotan_cli.runtime.api.operations import Router
from khotan_cli.runtime.api.routes.plugs import Limit, Offset
from khotan_cli.runtime.resources.caches import CacheHandle
from khotan_cli.runtime.runs.cursors import CURSORS
from khotan_cli.runtime.services import Services
from khotan_cli.runtime.transfer.sent_state import SENT

router = Router("/caches", tags=["caches"])


@router.get("")
async def list_caches(services: CurrentServices, limit: Limit = 100, offset: Offset = 0) -> CacheListing:
    counts = await services.caches.counts()
    found = [
        CacheInfo(name=cache.name, scope=cache.scope, ttl=cache.ttl, entries=counts.get(cache.name, 0))
        for cache in services.registry.caches.values()
    ]
    owners = [
        *await services.caches.owners(CURSORS),
        *[owner.partition("/")[0] for owner in await services.caches.owners(SENT)],
    ]
    return CacheListing(
        **listing(found, limit, offset).model_dump(),
        cursors=counts.get(CURSORS, 0),
        sent=counts.get(SENT, 0),
        flows=sorted(set(owners)),
    )


@router.get("/{cache}")
async def list_entries(
    cache: str,
    services: CurrentServices,
    owner: str | None = None,
    prefix: str = "",
    limit: Limit = 100,
    offset: Offset = 0,
) -> Listing[EntryInfo]:
    """Entries that have not expired, ordered by owner and key."""
    _handle(services, cache)
    found, total = await services.caches.entries(cache, owner, prefix, limit=limit, offset=offset)
    return Listing(items=[EntryInfo(**asdict(entry)) for entry in found], total=total, limit=limit, offset=offset)


@router.delete("/{cache}")
async def clear(cache: str, services: CurrentServices, owner: str | None = None) -> Deleted:
    """Remove all entries, or those of one owner."""
    _handle(services, cache)
    return Deleted(deleted=await services.caches.clear(cache, owner))


@router.get("/{cache}/{key:path}")
async def show_entry(cache: str, key: str, services: CurrentServices, owner: str = "") -> EntryShown:
    _handle(services, cache)
    found, _ = await services.caches.entries(cache, owner, key)
    same = next((entry for entry in found if entry.key == key), None)
    if same is None:
        raise _unknown(cache, key)
    return EntryShown(**asdict(same))


@router.put("/{cache}/{key:path}")
async def set_entry(cache: str, key: str, given: EntryValue, services: CurrentServices, owner: str = "") -> EntryShown:
    await _handle(services, cache, owner).set(key, given.value, given.ttl)
    return await show_entry(cache, key, services, owner)


@router.delete("/{cache}/{key:path}")
async def delete_entry(cache: str, key: str, services: CurrentServices, owner: str = "") -> Deleted:
    if not await _handle(services, cache, owner).delete(key):
        raise _unknown(cache, key)
    return Deleted(deleted=1)


def _handle(services: Services, cache: str, owner: str = "") -> CacheHandle:
    known = services.registry.caches
    if cache not in known:
        raise UnknownName("cache", cache, known)
    return CacheHandle(known[cache], services.caches, owner)


def _unknown(cache: str, key: str) -> KhotanError:
    return KhotanError(
        f"Cache {cache!r} has no entry {key!r}",
        code="unknown_key",
        hint="The entry may have expired, or belong to another owner.",
        next=[f"khotan caches show {cache}"],
    )
