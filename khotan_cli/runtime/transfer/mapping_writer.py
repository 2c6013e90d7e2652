"""Stores mapping refs while a flow reads records: each record's id in the system, and the system's field values."""

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
    """Writes the refs of a page of records that a plug returned."""

    def __init__(self, store: MappingStore, resource: Resource, plug: str) -> None:
        self._store, self.resource, self.plug = store, resource, plug

    @classmethod
    def of(cls, env: Environment, flow: Flow, plug: str) -> Self | None:
        """Return a writer if the flow names a resource that includes the plug, else None."""
        resource = env.resources.get(flow.resource or "")
        return None if resource is None or plug not in resource.plugs else cls(env.mappings, resource, plug)

    async def write(
        self, session: AsyncSession, records: Sequence[Any], *, skip: bool = False
    ) -> list[tuple[Any, MappingConflict]]:
        """Write refs in the caller's transaction. Records without key or id are ignored; for equal keys the last wins.

        Raises MappingConflict if an id belongs to another key. With `skip`, such records are returned instead.
        """
        known: dict[str, tuple[Any, str, dict[str, str]]] = {}
        for record in records:
            document = as_document(record)
            key, ref = self.resource.key_of(document), self.resource.ref_of(self.plug, document)
            if key is not None and ref is not None:
                known[key] = record, ref, field_digests(document)
        rejected: list[tuple[Any, MappingConflict]] = []
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
                conflicting = [key for key, (_, ref, _) in known.items() if ref == exc.details.get("ref")]
                if not conflicting:
                    raise
                rejected.append((known.pop(conflicting[-1])[0], exc))
        return rejected
