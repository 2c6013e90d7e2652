"""`ctx.push`: sends records to an endpoint. Resumable; each outcome is stored as soon as it is known."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.runtime.content.present import jsonable
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.steps import Finished, Outcome, StepRecorder
from khotan_cli.runtime.store.runs import Reject
from khotan_cli.runtime.transfer.field_digests import field_digests, holds
from khotan_cli.runtime.transfer.mapping_writer import MappingWriter
from khotan_cli.runtime.transfer.push_calls import Item, PushCalls
from khotan_cli.runtime.transfer.push_options import DEFAULT_REF, PushOptions
from khotan_cli.runtime.transfer.push_outcomes import PushOutcomes
from khotan_cli.runtime.transfer.records import as_document, as_mapping, of_record, reason_of, shown
from khotan_cli.runtime.transfer.sent_state import sent_state_of
from khotan_cli.runtime.transfer.sources import Chunk, EndpointSource, source_of
from khotan_cli.runtime.transfer.vanished import Vanished


@dataclass(frozen=True)
class PushResult:
    """The result of a push. `skipped`: records that the service already has, and records for which `body` returned None."""

    extracted: int = 0
    created: int = 0
    updated: int = 0
    skipped: int = 0
    deleted: int = 0
    failed: int = 0
    pages: int = 0


class Push:
    """One call of `ctx.push`; see there for the options."""

    def __init__(
        self,
        env: Environment,
        flow: Flow,
        recorder: StepRecorder,
        source: Any,
        endpoint: BoundEndpoint[Any],
        options: PushOptions,
    ) -> None:
        options.check(endpoint)
        ref = options.ref if options.ref is not None else _declared_ref(env, flow, endpoint.plug.name)
        options.check_ref(endpoint, ref)
        self._env, self._recorder, self._options = env, recorder, options
        skip = options.on_error == "skip"
        self._source = source_of(source, env.database, options.key, options.page, options.params, skip_invalid=skip)
        reads = isinstance(source, BoundEndpoint)
        self._read_refs = MappingWriter.of(env, flow, source.plug.name) if reads else None
        self.name = recorder.name(f"push {endpoint.plug.name}.{endpoint.endpoint.name}")
        self._sender = PushCalls(endpoint, options, ref, recorder, self.name)
        kept_as = f"{endpoint.plug.name}.{endpoint.endpoint.name} {options.name or self._source.name}"
        tracked = options.delete is not None
        self._sent_state = sent_state_of(env, flow, endpoint.plug.name, kept_as, ref, tracked=tracked)
        self._source_keys = recorder.texts(f"{self.name} source keys")
        self._vanished = (
            Vanished(self.name, recorder, self._sent_state, self._source_keys, options) if tracked else None
        )

    async def run(self) -> PushResult:
        position, pages, counts, gap = None, 0, Counter[str](), ""
        while True:
            name = f"{self.name} page {pages + 1}"
            done = self._recorder.finished(name)
            if done is None:
                await self._recorder.ensure_owner()
                done = await self._page(name, position)
            pages += 1
            counts.update(done.counts)
            gap = gap or done.result.get("gap", "")
            position = done.result["next"]
            if position is None:
                if self._vanished is not None:
                    counts["deleted"] = await self._vanished.run(gap)
                kept = {name: counts[name] for name in PushResult.__dataclass_fields__ if name != "pages"}
                return PushResult(**kept, pages=pages)
            self._source.passed(position)

    # -- one page ----------------------------------------------------------------------------------------------------

    async def _page(self, name: str, position: Any) -> Finished:
        started = utc_now()
        chunk = await self._source.read(position)
        push_outcomes = PushOutcomes(self._recorder, self._sent_state, name)
        key = self._options.key
        rejects = [Reject(name, of_record(reason, raw, key), raw) for raw, reason in chunk.invalid]
        keyed = self._by_key(name, chunk, rejects)
        gap = chunk.gap or (f"{len(rejects)} records have no key" if rejects else "")
        items, skipped = await self._items(name, chunk, keyed, push_outcomes, rejects)
        sent_before = push_outcomes.counts.total()
        try:
            await self._send(items, push_outcomes)
        finally:
            await push_outcomes.store()
        sent, failed = push_outcomes.counts, len(rejects)
        counts = {
            "extracted": len(chunk.records) + len(chunk.invalid),
            "transformed": sent_before + len(items),
            "created": sent["created"],
            "updated": sent["updated"],
            "skipped": skipped,
            "failed": sent["failed"] + failed,
        }

        async def work(session: AsyncSession) -> Outcome:
            if self._read_refs is not None and isinstance(self._source, EndpointSource):
                await self._read_refs.write(session, chunk.records, skip=self._options.on_error == "skip")
            await push_outcomes.clear(session)
            if self._vanished is not None:
                await self._source_keys.note(session, list(keyed), name)
            return Outcome({"next": chunk.following, "gap": gap}, counts, rejects, counted=sent)

        return await self._recorder.commit(name, work, started_at=started)

    def _by_key(self, name: str, chunk: Chunk, rejects: list[Reject]) -> dict[str, Any]:
        """Map records by the text of their key; for equal keys the last wins. Records without a key are rejected."""
        keyed: dict[str, Any] = {}
        for record in chunk.records:
            fields = as_mapping(record) if not hasattr(record, "__table__") else None
            key = self._options.key
            parts = tuple(getattr(record, k) if fields is None else fields.get(k) for k in key)
            if None in parts:
                rejects.append(Reject(name, f"has no {key[parts.index(None)]!r}", shown(record)))
            else:
                keyed[self._sent_state.key(record, parts)] = record
        return keyed

    async def _items(
        self, name: str, chunk: Chunk, keyed: Mapping[str, Any], push_outcomes: PushOutcomes, rejects: list[Reject]
    ) -> tuple[list[Item], int]:
        """Return the items to send, and the number of skipped records."""
        without_key = len(rejects) - len(chunk.invalid)
        async with self._env.database.session() as session:
            known = await self._sent_state.known(session, list(keyed))
            earlier = await push_outcomes.earlier(session)
        items: list[Item] = []
        skipped = len(chunk.records) - without_key - len(keyed)
        for key, record in keyed.items():
            if key in earlier:
                continue
            try:
                body = record if self._options.body is None else self._options.body(record)
                payload = None if body is None else _payload(body)
            except Exception as exc:
                if self._options.on_error == "fail":
                    raise
                rejects.append(Reject(name, f"record {key[:100]}: {reason_of(exc)}", shown(record)))
                continue
            digests = {} if payload is None else field_digests(payload)
            before = known.get(key)
            if payload is None or (
                self._options.skip_unchanged and before is not None and holds(before.fields, digests)
            ):
                skipped += 1
                continue
            items.append(Item(key, record, payload, digests, before))
        return items, skipped

    # -- calls -------------------------------------------------------------------------------------------------------

    async def _send(self, items: Sequence[Item], push_outcomes: PushOutcomes) -> None:
        size = self._options.batch
        calls = [items[start : start + size] for start in range(0, len(items), size)]
        waiting = iter(calls)

        async def worker() -> None:
            for call in waiting:
                self._recorder.raise_if_cancelled()
                await self._sender.make(call, push_outcomes)
                await push_outcomes.store()

        workers = [asyncio.create_task(worker()) for _ in range(min(self._options.concurrency, len(calls)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def _payload(body: Any) -> dict[str, Any]:
    """Convert a body to JSON. For a model, unset fields are omitted; fields set to None are sent as null."""
    if isinstance(body, BaseModel) and not hasattr(body, "__table__"):
        payload: dict[str, Any] = jsonable(body)
        return payload
    return as_document(body)


def _declared_ref(env: Environment, flow: Flow, plug: str) -> str:
    """Return the default path of the id in a response: the path that the flow's resource declares for the plug."""
    resource = env.resources.get(flow.resource or "")
    return DEFAULT_REF if resource is None else resource.plugs.get(plug, DEFAULT_REF)
