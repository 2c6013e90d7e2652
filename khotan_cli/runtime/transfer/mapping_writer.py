"""Mapping refs that a flow keeps as it reads: which id a system has for a record, and what the system holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import MappingConflict
from khotan_cli.runtime.resources.mappings import Resource
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.mappings import MappingChanges, MappingStore
from khotan_cli.runtime.transfer.field_digests import field_digests
from khotan_cli.runtime.transfer.records import as_document


class MappingWriter:
    """Writes the refs of a page of records that a plug's system sent."""

    def __init__(self, store: MappingStore, resource: Resource, plug: str) -> None:
        self._store, self.resource, self.plug = store, resource, plug

    @classmethod
    def of(cls, env: Environment, flow: Flow, plug: str) -> Self | None:
        """For a flow that names a resource which the plug knows."""
        resource = env.resources.get(flow.resource or "")
        return None if resource is None or plug not in resource.plugs else cls(env.mappings, resource, plug)

    async def write(
        self, session: AsyncSession, records: Sequence[Any], *, skip: bool = False
    ) -> list[tuple[Any, MappingConflict]]:
        """In the caller's transaction. Records without key or id are left out; of several with one key the last counts.

        An id that belongs to another key raises MappingConflict; with `skip` its record is left out, and returned.
        """
        known: dict[str, tuple[Any, str, dict[str, str]]] = {}
        for record in records:
            document = as_document(record)
            key, ref = self.resource.key_of(document), self.resource.ref_of(self.plug, document)
            if key is not None and ref is not None:
                known[key] = record, ref, field_digests(document)
        refused: list[tuple[Any, MappingConflict]] = []
        while known:
            refs = {key: {self.plug: ref} for key, (_, ref, _) in known.items()}
            fields = {(key, self.plug): digests for key, (_, _, digests) in known.items()}
            changes = MappingChanges(self.resource.name, refs, origin="read", fields=fields)
            if not skip:
                await self._store.write(session, changes)
                break
            try:
                async with session.begin_nested():
                    await self._store.write(session, changes)
                break
            except MappingConflict as exc:
                mine = [key for key, (_, ref, _) in known.items() if ref == exc.details.get("ref")]
                if not mine:
                    raise
                refused.append((known.pop(mine[-1])[0], exc))
        return refused
