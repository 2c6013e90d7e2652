"""What a service is known to have of what is pushed to it: in the resource's mappings, or privately for the flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.http.json_path import Path, dig
from khotan_cli.runtime.resources.mappings import Resource
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.caches import CacheStore
from khotan_cli.runtime.store.canonical_key import key_text
from khotan_cli.runtime.store.mappings import MappingChanges, MappingStore
from khotan_cli.runtime.transfer.records import as_document

SENT = "_sent"
"""Cache that holds what flows sent, where no mapping does."""


@dataclass(frozen=True)
class SentRecord:
    """What is known of a record at a service: its id there (empty where none is known), and the ETag of the last answer.

    `fields` are digests of what the service has, None where that is not known.
    """

    ref: str
    fields: Mapping[str, str] | None = None
    etag: str = ""


@dataclass(frozen=True)
class Sent:
    """A record that a service took: its id there (empty where it told none) and the digests of what it has now.

    answer: what the service answered where no id was found in it, so that a corrected `ref` finds it later.
    """

    key: str
    ref: str
    fields: dict[str, str]
    changed: bool
    etag: str = ""
    answer: Any = None


class SentState(Protocol):
    def key(self, record: Any, parts: Sequence[Any]) -> str:
        """The text that names a record."""
        ...

    async def known(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, SentRecord]: ...
    async def keep(self, session: AsyncSession, sent: Sequence[Sent]) -> None: ...
    async def all_sent(self, session: AsyncSession) -> Mapping[str, SentRecord]:
        """Every record that was sent since `delete=` is declared."""
        ...

    async def forget(self, session: AsyncSession, keys: Sequence[str]) -> None: ...


def sent_state_of(env: Environment, flow: Flow, plug: str, kept_as: str, ref: Path, *, tracked: bool) -> SentState:
    """What the flow keeps itself under that name; and where the plug is one of its resource's, the resource's mappings.

    tracked: which records were sent has to be known, not only what the service has of one.
    """
    private = FlowSentState(env.entries, f"{flow.name}/{kept_as}", ref)
    resource = env.resources.get(flow.resource or "")
    if resource is not None and plug in resource.plugs:
        return MappedSentState(env.mappings, resource, plug, private, tracked=tracked)
    return private


class FlowSentState:
    """In a cache of khotan's own, for this flow, endpoint and source."""

    def __init__(self, store: CacheStore, owner: str, ref: Path) -> None:
        self._store, self._owner, self._ref = store, owner, ref

    def key(self, record: Any, parts: Sequence[Any]) -> str:
        return key_text(parts)

    async def known(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, SentRecord]:
        found = await self._store.get_in(session, SENT, self._owner, keys)
        return {key: self._record(value) for key, value in found.items() if not value.get("mapped")}

    async def etags(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, str]:
        """The ETags kept beside the mappings of these keys."""
        found = await self._store.get_in(session, SENT, self._owner, keys)
        return {key: value.get("etag", "") for key, value in found.items()}

    def _record(self, value: Mapping[str, Any]) -> SentRecord:
        ref = value["ref"]
        if not ref and "answer" in value:
            found = dig(value["answer"], self._ref)
            ref = "" if found is None or isinstance(found, (dict, list)) else str(found)
        return SentRecord(ref, value["fields"], value.get("etag", ""))

    async def keep(self, session: AsyncSession, sent: Sequence[Sent], *, mapped: bool = False) -> None:
        """mapped: the mapping has the id and the fields; here is only what it has no place for."""
        values: dict[str, dict[str, Any]] = {}
        for one in sent:
            value: dict[str, Any] = {"ref": "", "fields": {}, "mapped": True} if mapped else _private(one)
            values[one.key] = value | ({"etag": one.etag} if one.etag else {})
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
    """In a resource's mappings; records for which the service told no id, which a mapping cannot be without, privately."""

    def __init__(
        self, store: MappingStore, resource: Resource, plug: str, private: FlowSentState, *, tracked: bool
    ) -> None:
        self._store, self._resource, self._plug, self._private = store, resource, plug, private
        self._tracked = tracked

    def key(self, record: Any, parts: Sequence[Any]) -> str:
        """The resource's canonical key where the record has its fields, else the push's own key."""
        document = as_document(record)
        return self._resource.key_of(document) or key_text(parts)

    async def known(self, session: AsyncSession, keys: Sequence[str]) -> Mapping[str, SentRecord]:
        mapped = await self._store.known(session, self._resource.name, self._plug, keys)
        etags = await self._private.etags(session, list(mapped)) if mapped else {}
        found = {key: SentRecord(known.ref, known.fields, etags.get(key, "")) for key, known in mapped.items()}
        rest = [key for key in keys if key not in mapped]
        return {**found, **(await self._private.known(session, rest) if rest else {})}

    async def keep(self, session: AsyncSession, sent: Sequence[Sent]) -> None:
        named = [one for one in sent if one.ref]
        if named:
            refs = {one.key: {self._plug: one.ref} for one in named}
            fields = {(one.key, self._plug): one.fields for one in named}
            changes = MappingChanges(self._resource.name, refs, origin="write", fields=fields)
            await self._store.write(session, changes)
            beside = [one for one in named if one.etag or self._tracked]
            await self._private.keep(session, beside, mapped=True)
        await self._private.keep(session, [one for one in sent if not one.ref])

    async def all_sent(self, session: AsyncSession) -> Mapping[str, SentRecord]:
        private = await self._private.all_sent(session)
        mapped = await self._store.known(session, self._resource.name, self._plug, list(private)) if private else {}
        refs = {key: known.ref for key, known in mapped.items()}
        return {key: SentRecord(refs.get(key, one.ref), one.fields, one.etag) for key, one in private.items()}

    async def forget(self, session: AsyncSession, keys: Sequence[str]) -> None:
        await self._store.drop_refs(session, self._resource.name, self._plug, keys)
        await self._private.forget(session, keys)
