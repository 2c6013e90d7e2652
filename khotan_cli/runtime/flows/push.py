"""`ctx.push`: records to an endpoint, resumable, each outcome stored when it is known."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import ConfigError, FlowError, PlugError
from khotan_cli.runtime.flows.definition import Flow
from khotan_cli.runtime.flows.destination import Sent, destination_of
from khotan_cli.runtime.flows.host import Host
from khotan_cli.runtime.flows.ledger import Ledger
from khotan_cli.runtime.flows.pages import answer_value, as_document, as_mapping, reason_of, shown
from khotan_cli.runtime.flows.recorder import Finished, Outcome, Recorder
from khotan_cli.runtime.flows.refs import RefWriter
from khotan_cli.runtime.flows.sources import Chunk, EndpointSource, source_of
from khotan_cli.runtime.flows.sync import OnInvalid
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint
from khotan_cli.runtime.plugs.hold import HeldAnswer
from khotan_cli.runtime.records.digests import field_digests, holds
from khotan_cli.runtime.store.base import utc_now
from khotan_cli.runtime.store.mappings import KnownRef
from khotan_cli.runtime.store.runs import Reject

_OF_NO_RECORD = (401, 429, 502, 503, 504)
"""Statuses that tell of credentials or of an outage (RFC 9110 15, RFC 6585 4): whatever else is sent would fail too."""

Body = Callable[[Any], Mapping[str, Any] | BaseModel | None]
Ids = Callable[[Any], Mapping[str, Any]]
Outcomes = Callable[[Any, Sequence[Any]], Sequence[str | None]]


@dataclass(frozen=True)
class PushResult:
    """What a push did. `skipped`: what the service had already, and what `body` left out."""

    extracted: int = 0
    created: int = 0
    updated: int = 0
    skipped: int = 0
    failed: int = 0
    pages: int = 0


@dataclass
class _Item:
    """A record on its way: its key as text, what is sent, and what the service is known to have."""

    key: str
    record: Any
    payload: dict[str, Any]
    digests: dict[str, str]
    known: KnownRef | None


class Push:
    """One call of `ctx.push`; see there for the options."""

    def __init__(
        self,
        host: Host,
        flow: Flow,
        recorder: Recorder,
        source: Any,
        endpoint: BoundEndpoint[Any],
        *,
        name: str,
        key: tuple[str, ...],
        body: Body | None,
        update: BoundEndpoint[Any] | None,
        ref: str,
        ids: Ids | None,
        params: Mapping[str, Any],
        batch: int,
        batch_key: str | None,
        outcomes: Outcomes | None,
        concurrency: int,
        page: int,
        skip_unchanged: bool,
        on_error: OnInvalid,
    ) -> None:
        self._host, self._recorder, self._endpoint, self._update = host, recorder, endpoint, update
        self._key, self._body, self._ref, self._ids = key, body, ref, ids
        self._batch, self._batch_key, self._outcomes = batch, batch_key, outcomes
        self._concurrency, self._skip, self._on_error = concurrency, skip_unchanged, on_error
        self._check(page)
        self._source = source_of(source, host.database, key, page, params, skip_invalid=on_error == "skip")
        reads = isinstance(source, BoundEndpoint)
        self._read_refs = RefWriter.of(host, flow, source.plug.name) if reads else None
        self._ref_param = self._find_ref_param()
        self.name = recorder.name(f"push {endpoint.plug.name}.{endpoint.endpoint.name}")
        kept_as = f"{endpoint.plug.name}.{endpoint.endpoint.name} {name or self._source.name}"
        self._destination = destination_of(host, flow, endpoint.plug.name, kept_as)

    def _check(self, page: int) -> None:
        if not isinstance(self._endpoint, BoundEndpoint):
            raise ConfigError("push needs an endpoint of a plug to send to", hint="ctx.push(select(…), shop.create, …)")
        if not self._key:
            raise ConfigError("push needs a key: the field, or fields, that name a record", hint='key="id"')
        if min(self._batch, self._concurrency, page) < 1 or self._on_error not in ("fail", "skip"):
            raise ConfigError("push: batch, concurrency and page are 1 or more, on_error is fail or skip")
        if self._batch > 1 and (self._update is not None or self._ids is not None):
            raise ConfigError("push: a batch is one call for many records: update and ids name one", hint="batch=1")
        if self._batch == 1 and (self._batch_key or self._outcomes):
            raise ConfigError("push: batch_key and outcomes have a meaning only with batch above 1")

    def _find_ref_param(self) -> str:
        if self._update is None:
            return ""
        names = [name for name in self._update.endpoint.path.names if name not in self._update.plug.declared_vars()]
        if len(names) != 1 and self._ids is None:
            raise ConfigError(
                f"push: {self._update.endpoint.name} has {len(names)} path parameters, and the id is one value",
                hint="Give the others with ids=….",
            )
        return names[-1] if names else ""

    async def run(self) -> PushResult:
        position, pages, counts = None, 0, Counter[str]()
        while True:
            name = f"{self.name} page {pages + 1}"
            done = self._recorder.finished(name)
            if done is None:
                await self._recorder.ready()
                done = await self._page(name, position)
            pages += 1
            counts.update(done.counts)
            position = done.result["next"]
            if position is None:
                kept = {name: counts[name] for name in PushResult.__dataclass_fields__ if name != "pages"}
                return PushResult(**kept, pages=pages)
            self._source.passed(position)

    # -- one page ----------------------------------------------------------------------------------------------------

    async def _page(self, name: str, position: Any) -> Finished:
        started = utc_now()
        chunk = await self._source.read(position)
        ledger = Ledger(self._recorder, self._destination, name)
        rejects = [Reject(name, reason, raw) for raw, reason in chunk.invalid]
        items, skipped = await self._items(name, chunk, ledger, rejects)
        sent_before = ledger.counts.total()
        try:
            await self._send(self._calls(items), ledger)
        finally:
            await ledger.store()
        sent, failed = ledger.counts, len(rejects)
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
                await self._read_refs.write(session, chunk.records, skip=self._on_error == "skip")
            await ledger.clear(session)
            return Outcome({"next": chunk.following}, counts, rejects, counted=sent)

        return await self._recorder.commit(name, work, started_at=started)

    async def _items(self, name: str, chunk: Chunk, ledger: Ledger, rejects: list[Reject]) -> tuple[list[_Item], int]:
        """What is to be sent, and how many records were left out."""
        keyed: dict[str, Any] = {}
        with_key = 0
        for record in chunk.records:
            fields = as_mapping(record) if not hasattr(record, "__table__") else None
            parts = tuple(getattr(record, k) if fields is None else fields.get(k) for k in self._key)
            if None in parts:
                rejects.append(Reject(name, f"has no {self._key[parts.index(None)]!r}", shown(record)))
                continue
            with_key += 1
            keyed[self._destination.key(record, parts)] = record
        async with self._host.database.session() as session:
            known = await self._destination.known(session, list(keyed))
            earlier = await ledger.earlier(session)
        items: list[_Item] = []
        skipped = with_key - len(keyed)
        for key, record in keyed.items():
            if key in earlier:
                continue
            try:
                made = record if self._body is None else self._body(record)
                payload = None if made is None else as_document(made)
            except Exception as exc:
                if self._on_error == "fail":
                    raise
                rejects.append(Reject(name, reason_of(exc), shown(record)))
                continue
            digests = {} if payload is None else field_digests(payload)
            before = known.get(key)
            if payload is None or (self._skip and before is not None and holds(before.fields, digests)):
                skipped += 1
                continue
            items.append(_Item(key, record, payload, digests, before))
        return items, skipped

    # -- calls -------------------------------------------------------------------------------------------------------

    def _calls(self, items: Sequence[_Item]) -> list[Sequence[_Item]]:
        return [items[start : start + self._batch] for start in range(0, len(items), self._batch)]

    async def _send(self, calls: Sequence[Sequence[_Item]], ledger: Ledger) -> None:
        waiting = iter(calls)

        async def worker() -> None:
            for call in waiting:
                self._recorder.go_on()
                await self._call(call, ledger)
                await ledger.store()

        workers = [asyncio.create_task(worker()) for _ in range(min(self._concurrency, len(calls)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _call(self, call: Sequence[_Item], ledger: Ledger) -> None:
        changes = self._update is not None and call[0].known is not None and bool(call[0].known.ref)
        try:
            answer = await self._answer(call, changes)
        except PlugError as exc:
            if exc.response is None or exc.response.status_code in _OF_NO_RECORD or self._on_error == "fail":
                raise
            for item in call:
                reason = f"{exc.response.status_code}: record {item.key[:100]}: {exc.message}"[:600]
                ledger.failed(item.key, reason, item.payload)
            return
        reasons: Sequence[str | None] = [None] * len(call)
        if self._outcomes is not None and not isinstance(answer, HeldAnswer):
            reasons = self._outcomes(answer, [item.record for item in call])
            if len(reasons) != len(call):
                raise FlowError(
                    f"outcomes= gave {len(reasons)} outcomes for {len(call)} records",
                    hint="One for each, in their order.",
                )
        for index, (item, refused) in enumerate(zip(call, reasons, strict=True)):
            if refused is not None:
                ledger.failed(item.key, refused, item.payload)
                continue
            before: str = item.known.ref if item.known is not None else ""
            ref: str = before if changes else (self._answered_ref(answer, index) or before)
            ledger.sent(Sent(item.key, ref, item.digests, changed=changes or bool(before)))

    async def _answer(self, call: Sequence[_Item], changes: bool) -> Any:
        item = call[0]
        if self._batch > 1:
            body: Any = [one.payload for one in call]
            return await self._endpoint(body={self._batch_key: body} if self._batch_key else body)
        more = dict(self._ids(item.record)) if self._ids is not None else {}
        if changes:
            assert self._update is not None and item.known is not None
            if self._ref_param:
                more.setdefault(self._ref_param, item.known.ref)
            return await self._update(body=item.payload, **more)
        return await self._endpoint(body=item.payload, **more)

    def _answered_ref(self, answer: Any, index: int) -> str:
        if isinstance(answer, HeldAnswer):
            return ""
        path = self._ref
        if self._batch > 1:
            path = f"{self._batch_key}.{index}.{path}" if self._batch_key else f"{index}.{path}"
        try:
            found = answer_value(answer, path)
        except ValueError:
            found = None
        return "" if found is None else str(found)
