"""POST /mappings · /mappings/lookup · GET, PUT, DELETE /mappings/{mapping}."""

from __future__ import annotations

from khotan_cli.errors import KhotanError, UsageError
from khotan_cli.runtime.api.access import CurrentServices
from khotan_cli.runtime.api.models.resources import (
    Deleted,
    MappingChange,
    MappingLookup,
    MappingsFound,
    MappingShown,
    MappingsUpserted,
    MappingUpsert,
)
from khotan_cli.runtime.api.operations import Router
from khotan_cli.runtime.api.routes.resources import mapping_info, mappings_of
from khotan_cli.runtime.resources.mappings import Mappings
from khotan_cli.runtime.services import Services
from khotan_cli.runtime.store.mappings import MappingEntry

router = Router("/mappings", tags=["mappings"])


@router.post("")
async def upsert(asked: MappingUpsert, services: CurrentServices) -> MappingsUpserted:
    """Store the ids of one or many keys, all or none. Ids of other plugs stay, unless `replace` is set."""
    mappings = mappings_of(services, asked.resource)
    if (asked.key is None) == (asked.items is None):
        raise UsageError(
            "Give either a key with its refs, or items", hint='Send {"resource": …, "key": …, "refs": {…}}.'
        )
    items = [(item.key, item.refs) for item in asked.items or []]
    if asked.key is not None:
        items = [(asked.key, asked.refs)]
    done = await mappings.upsert_many(items, replace=asked.replace)
    found = None if asked.key is None else await mappings.lookup(asked.key)
    return MappingsUpserted(**done._asdict(), mapping=None if found is None else mapping_info(found))


@router.post("/lookup")
async def lookup(asked: MappingLookup, services: CurrentServices) -> MappingsFound:
    """The existing mappings for one or many keys or ids of a plug."""
    mappings = mappings_of(services, asked.resource)
    by_key = asked.keys or ([] if asked.key is None else [asked.key])
    by_ref = asked.refs or ([] if asked.ref is None else [asked.ref])
    if bool(by_key) == bool(by_ref):
        raise UsageError("Look up by key or by ref", hint="Give key, keys, or plug with ref or refs.")
    if by_ref and not asked.plug:
        raise UsageError("Missing plug: a ref needs the plug it belongs to", hint="Give plug with ref.")
    if by_key:
        found = list((await mappings.lookup_many(by_key)).values())
    else:
        found = list((await mappings.lookup_refs(asked.plug or "", by_ref)).values())
    return MappingsFound(items=[mapping_info(entry) for entry in found])


@router.get("/{mapping}")
async def show(mapping: str, services: CurrentServices) -> MappingShown:
    return _shown(await _named(services, mapping))


@router.put("/{mapping}")
async def change(mapping: str, asked: MappingChange, services: CurrentServices) -> MappingShown:
    """Set ids. With `replace`, ids of other plugs are removed."""
    entry = await _named(services, mapping)
    known: Mappings = mappings_of(services, entry.resource)
    await known.upsert_many([(entry.key, asked.refs)], replace=asked.replace)
    return _shown(await _named(services, mapping))


@router.delete("/{mapping}")
async def delete(mapping: str, services: CurrentServices) -> Deleted:
    await _named(services, mapping)
    return Deleted(deleted=int(await services.mappings.delete(mapping)))


async def _named(services: Services, mapping: str) -> MappingEntry:
    found = await services.mappings.get(mapping)
    if found is None:
        raise KhotanError(
            f"Unknown mapping {mapping!r}",
            code="unknown_mapping",
            hint="The mapping may have been deleted. Look it up by key or id.",
        )
    return found


def _shown(entry: MappingEntry) -> MappingShown:
    return MappingShown(**mapping_info(entry).model_dump())
