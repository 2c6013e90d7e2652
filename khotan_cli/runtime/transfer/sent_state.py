"""Sent state: what a service holds of the pushed records. Stored in the resource's mappings, or privately for the flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.content.json_path import Path, dig
from khotan_cli.runtime.resources.mappings import Resource
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.caches import CacheStore
from khotan_cli.runtime.store.canonical_key import key_text
from khotan_cli.runtime.store.mappings import MappingChanges, MappingStore
from khotan_cli.runtime.transfer.records import as_document

SENT = "_sent"
"""Cache for the private sent state of flows."""


@dataclass(frozen=True)
class SentRecord:
    """The known state of a record at a service: its id (empty if unknown), and the ETag of the last response.

    `fields` are digests of the service's field values, or None if unknown.
    """

    ref: str
    fields: Mapping[str, str] | None = None
    etag: str = ""


@dataclass(frozen=True)
class Sent:
    """A record that a service accepted: its id there (empty if the response had none) and digests of its fields.

    answer: the response if no id was found in it, so that a corrected `ref` can read it later.
    """

    key: str
    ref: str
    fields: dict[str, str]
    changed: bool
    etag: str = ""
    answer: Any = None


class SentState(Protocol):
    def key(self, record: Any, parts: Sequence[Any]) -> str:
        """Return the key of a record as text."""
        ...

    async def known(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, SentRecord]: ...
    async def keep(self, session: AsyncSession, sent: Sequence[Sent]) -> None: ...
    async def all_sent(self, session: AsyncSession) -> Mapping[str, SentRecord]:
        """Return every record that was sent since `delete=` was declared."""
        ...

    async def forget(self, session: AsyncSession, keys: Sequence[str]) -> None: ...


def sent_state_of(env: Environment, flow: Flow, plug: str, kept_as: str, ref: Path, *, tracked: bool) -> SentState:
    """Return the flow's private state under that name, or mappings if the flow's resource includes the plug.

    tracked: the state must list all sent records, as `delete=` needs it.
    """
    private = FlowSentState(env.entries, f"{flow.name}/{kept_as}", ref)
    resource = env.resources.get(flow.resource or "")
    if resource is not None and plug in resource.plugs:
        return MappedSentState(env.mappings, resource, plug, private, tracked=tracked)
    return private


class FlowSentState:
    """State in an internal cache, for one flow, endpoint and source."""

    def __init__(self, store: CacheStore, owner: str, ref: Path) -> None:
        self._store, self._owner, self._ref = store, owner, ref

    def key(self, record: Any, parts: Sequence[Any]) -> str:
        return key_text(parts)

    async def known(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, SentRecord]:
        found = await self._store.get_in(session, SENT, self._owner, keys)
        return {key: self._record(value) for key, value in found.items() if not value.get("mapped")}

    async def etags(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the ETags of mapped keys."""
        found = await self._store.get_in(session, SENT, self._owner, keys)
        return {key: value.get("etag", "") for key, value in found.items()}

    def _record(self, value: Mapping[str, Any]) -> SentRecord:
        ref = value["ref"]
        if not ref and "answer" in value:
            answered = dig(value["answer"], self._ref)
            ref = "" if answered is None or isinstance(answered, (dict, list)) else str(answered)
        return SentRecord(ref, value["fields"], value.get("etag", ""))

    async def keep(self, session: AsyncSession, sent: Sequence[Sent], *, mapped: bool = False) -> None:
        """Store sent records. mapped: the mapping holds id and fields, so only the rest is stored here."""
        values: dict[str, dict[str, Any]] = {}
        for record in sent:
            value: dict[str, Any] = {"ref": "", "fields": {}, "mapped": True} if mapped else _private(record)
            values[record.key] = value | ({"etag": record.etag} if record.etag else {})
        await self._store.set_in(session, SENT, self._owner, values)

    async def all_sent(self, session: AsyncSession) -> Mapping[str, SentRecord]:
        found = await self._store.all_in(session, SENT, self._owner)
        return {key: self._record(value) for key, value in found.items()}

    async def forget(self, session: AsyncSession, keys: Sequence[str]) -> None:
        for key in keys:
            await self._store.delete_in(session, SENT, self._owner, key)


def _private(sent: Sent) -> dict[str, Any]:
    value: dict[str, Any] = {"ref": sent.ref, "fields": sent.fields}
    return value | ({"answer": sent.answer} if sent.answer is not None else {})


class MappedSentState:
    """State in a resource's mappings. Records without an id, which a mapping requires, are stored privately."""

    def __init__(
        self, store: MappingStore, resource: Resource, plug: str, private: FlowSentState, *, tracked: bool
    ) -> None:
        self._store, self._resource, self._plug, self._private = store, resource, plug, private
        self._tracked = tracked

    def key(self, record: Any, parts: Sequence[Any]) -> str:
        """Return the resource's canonical key if the record has its fields, else the push's own key."""
        document = as_document(record)
        return self._resource.key_of(document) or key_text(parts)

    async def known(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, SentRecord]:
        mapped = await self._store.known(session, self._resource.name, self._plug, keys)
        etags = await self._private.etags(session, list(mapped)) if mapped else {}
        found = {key: SentRecord(known.ref, known.fields, etags.get(key, "")) for key, known in mapped.items()}
        rest = [key for key in keys if key not in mapped]
        return {**found, **(await self._private.known(session, rest) if rest else {})}

    async def keep(self, session: AsyncSession, sent: Sequence[Sent]) -> None:
        with_id = [record for record in sent if record.ref]
        if with_id:
            refs = {record.key: {self._plug: record.ref} for record in with_id}
            fields = {(record.key, self._plug): record.fields for record in with_id}
            changes = MappingChanges(self._resource.name, refs, origin="write", fields=fields)
            await self._store.write(session, changes)
            extra = [record for record in with_id if record.etag or self._tracked]
            await self._private.keep(session, extra, mapped=True)
        await self._private.keep(session, [record for record in sent if not record.ref])

    async def all_sent(self, session: AsyncSession) -> Mapping[str, SentRecord]:
        private = await self._private.all_sent(session)
        mapped = await self._store.known(session, self._resource.name, self._plug, list(private)) if private else {}
        refs = {key: known.ref for key, known in mapped.items()}
        return {
            key: SentRecord(refs.get(key, record.ref), record.fields, record.etag) for key, record in private.items()
        }

    async def forget(self, session: AsyncSession, keys: Sequence[str]) -> None:
        await self._store.drop_refs(session, self._resource.name, self._plug, keys)
        await self._private.forget(session, keys)
