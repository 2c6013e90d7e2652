"""Mapping refs that a flow keeps as it reads: which id a system has for a record, and what the system holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.flows.definition import Flow
from khotan_cli.runtime.flows.host import Host
from khotan_cli.runtime.flows.pages import as_document
from khotan_cli.runtime.records.digests import field_digests
from khotan_cli.runtime.records.resources import Resource
from khotan_cli.runtime.store.mappings import MappingChanges, MappingStore


class RefWriter:
    """Writes the refs of a page of records that a plug's system sent."""

    def __init__(self, store: MappingStore, resource: Resource, plug: str) -> None:
        self._store, self.resource, self.plug = store, resource, plug

    @classmethod
    def of(cls, host: Host, flow: Flow, plug: str) -> Self | None:
        """For a flow that names a resource which the plug knows."""
        resource = host.resources.get(flow.resource or "")
        return None if resource is None or plug not in resource.plugs else cls(host.mappings, resource, plug)

    async def write(self, session: AsyncSession, records: Sequence[Any]) -> None:
        """In the caller's transaction. Records without key or id are left out; of several with one key the last counts.

        Raises MappingConflict.
        """
        refs: dict[str, dict[str, str]] = {}
        fields: dict[tuple[str, str], dict[str, str]] = {}
        for record in records:
            document = as_document(record)
            key, ref = self.resource.key_of(document), self.resource.ref_of(self.plug, document)
            if key is not None and ref is not None:
                refs[key] = {self.plug: ref}
                fields[key, self.plug] = field_digests(document)
        if refs:
            await self._store.write(session, MappingChanges(self.resource.name, refs, origin="read", fields=fields))
