"""What a service is known to have of what is pushed to it: in the resource's mappings, or privately for the flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.flows.definition import Flow
from khotan_cli.runtime.flows.host import Host
from khotan_cli.runtime.flows.pages import as_document
from khotan_cli.runtime.records.resources import Resource
from khotan_cli.runtime.store.caches import CacheStore
from khotan_cli.runtime.store.keys import key_text
from khotan_cli.runtime.store.mappings import KnownRef, MappingChanges, MappingStore

SENT = "_sent"
"""Cache that holds what flows sent, where no mapping does."""


@dataclass(frozen=True)
class Sent:
    """A record that a service took: its id there (empty where it told none) and the digests of what it has now."""

    key: str
    ref: str
    fields: dict[str, str]
    changed: bool


class Destination(Protocol):
    def key(self, record: Any, parts: Sequence[Any]) -> str:
        """The text that names a record."""
        ...

    async def known(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, KnownRef]: ...
    async def keep(self, session: AsyncSession, sent: Sequence[Sent]) -> None: ...


def destination_of(host: Host, flow: Flow, plug: str, kept_as: str) -> Destination:
    """What the flow keeps itself under that name; and where the plug is one of its resource's, the resource's mappings."""
    private = PrivateDestination(host.entries, f"{flow.name}/{kept_as}")
    resource = host.resources.get(flow.resource or "")
    if resource is not None and plug in resource.plugs:
        return MappedDestination(host.mappings, resource, plug, private)
    return private


class MappedDestination:
    """In a resource's mappings; records for which the service told no id, which a mapping cannot be without, privately."""

    def __init__(self, store: MappingStore, resource: Resource, plug: str, private: PrivateDestination) -> None:
        self._store, self._resource, self._plug, self._private = store, resource, plug, private

    def key(self, record: Any, parts: Sequence[Any]) -> str:
        """The resource's canonical key where the record has its fields, else the push's own key."""
        document = as_document(record)
        return self._resource.key_of(document) or key_text(parts)

    async def known(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, KnownRef]:
        mapped = await self._store.known(session, self._resource.name, self._plug, keys)
        rest = [key for key in keys if key not in mapped]
        return {**mapped, **(await self._private.known(session, rest) if rest else {})}

    async def keep(self, session: AsyncSession, sent: Sequence[Sent]) -> None:
        named = [one for one in sent if one.ref]
        if named:
            refs = {one.key: {self._plug: one.ref} for one in named}
            fields = {(one.key, self._plug): one.fields for one in named}
            changes = MappingChanges(self._resource.name, refs, origin="write", fields=fields)
            await self._store.write(session, changes)
        await self._private.keep(session, [one for one in sent if not one.ref])


class PrivateDestination:
    def __init__(self, store: CacheStore, owner: str) -> None:
        self._store, self._owner = store, owner

    def key(self, record: Any, parts: Sequence[Any]) -> str:
        return key_text(parts)

    async def known(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, KnownRef]:
        found = await self._store.get_in(session, SENT, self._owner, keys)
        return {key: KnownRef(value["ref"], value["fields"], "write") for key, value in found.items()}

    async def keep(self, session: AsyncSession, sent: Sequence[Sent]) -> None:
        if sent:
            values = {one.key: {"ref": one.ref, "fields": one.fields} for one in sent}
            await self._store.set_in(session, SENT, self._owner, values)
