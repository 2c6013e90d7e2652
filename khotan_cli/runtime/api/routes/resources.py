"""GET /resources · /resources/{resource} · /resources/{resource}/mappings."""

from __future__ import annotations

from typing import Any

from khotan_cli.errors import UnknownName
from khotan_cli.runtime.api.access import CurrentServices
from khotan_cli.runtime.api.models.common import Listing, listing
from khotan_cli.runtime.api.models.resources import MappingInfo, ResourceInfo, ResourceShown
from khotan_cli.runtime.api.operations import Router
from khotan_cli.runtime.api.routes.plugs import Limit, Offset
from khotan_cli.runtime.resources.mappings import Mappings, Resource
from khotan_cli.runtime.services import Services
from khotan_cli.runtime.store.mappings import MappingEntry

router = Router("/resources", tags=["resources"])


@router.get("")
async def list_resources(services: CurrentServices, limit: Limit = 100, offset: Offset = 0) -> Listing[ResourceInfo]:
    counts = await services.mappings.counts()
    found = [ResourceInfo(**_facts(one, counts)) for one in services.registry.resources.values()]
    return listing(found, limit, offset)


@router.get("/{resource}")
async def show_resource(resource: str, services: CurrentServices) -> ResourceShown:
    found = mappings_of(services, resource).resource
    return ResourceShown(**_facts(found, await services.mappings.counts()))


@router.get("/{resource}/mappings")
async def list_mappings(
    resource: str, services: CurrentServices, search: str = "", limit: Limit = 100, offset: Offset = 0
) -> Listing[MappingInfo]:
    """Mappings in key order. With `search`, those whose key or ids contain the text."""
    found, total = await mappings_of(services, resource).search(search, limit=limit, offset=offset)
    return Listing(items=[mapping_info(entry) for entry in found], total=total, limit=limit, offset=offset)


def mappings_of(services: Services, resource: str) -> Mappings:
    """The mappings of a resource. Raises UnknownName."""
    known = services.registry.resources
    if resource not in known:
        raise UnknownName("resource", resource, known)
    return Mappings(known[resource], services.mappings)


def mapping_info(entry: MappingEntry) -> MappingInfo:
    return MappingInfo(
        id=entry.id,
        resource=entry.resource,
        key=list(entry.key),
        refs=entry.refs,
        created_at=entry.created_at,
        updated_at=entry.updated_at,
    )


def _facts(resource: Resource, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "name": resource.name,
        "connect_field": list(resource.connect_field),
        "plugs": resource.plugs,
        "mappings": counts.get(resource.name, 0),
    }
