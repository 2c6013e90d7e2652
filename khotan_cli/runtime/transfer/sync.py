"""`ctx.sync`: writes the pages of an endpoint into a table. Each page is one durable step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.bulk.row_plan import Upserted
from khotan_cli.runtime.bulk.table_schema import check_key
from khotan_cli.runtime.bulk.upsert import Unset
from khotan_cli.runtime.database.errors import translate_error
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint
from khotan_cli.runtime.plugs.page_iterator import FetchedPage, PageIterator, PagePosition
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.steps import Finished, Outcome, StepRecorder
from khotan_cli.runtime.runs.user_code import user_code_guard
from khotan_cli.runtime.store.runs import Reject
from khotan_cli.runtime.transfer.deferred import Deferred, points_at_itself
from khotan_cli.runtime.transfer.deletion import DeleteOptions, Deletion
from khotan_cli.runtime.transfer.gc_pause import gc_paused
from khotan_cli.runtime.transfer.mapping_writer import MappingWriter
from khotan_cli.runtime.transfer.records import PageReader, of_record, reason_of, shown, without_secrets
from khotan_cli.runtime.transfer.sync_result import RunningTotals, SyncResult, fingerprint
from khotan_cli.runtime.transfer.table_batch import Batch, Rejected, Rows

_PREFETCHED = 1
"""Prepared pages that wait for the current write. One more page is being fetched."""
_SENT_SECONDS = 0.0003
"""Time after which a statement has been sent and the database is executing it."""

Dedupe = Literal["first", "last"]
OnInvalid = Literal["fail", "skip"]
Transform = Callable[[Any], Mapping[str, Any] | BaseModel | None]


@dataclass(frozen=True)
class _Ready:
    """A fetched page, prepared for the table."""

    name: str
    following: PagePosition | None
    cut: bool
    items: list[Any]
    batch: Batch
    rejects: list[Reject]
    extracted: int
    skipped: int
    keys: int
    doubt: str


class Sync:
    """One call of `ctx.sync`; see there for the options."""

    def __init__(
        self,
        env: Environment,
        flow: Flow,
        recorder: StepRecorder,
        endpoint: BoundEndpoint[Any],
        *,
        into: type[Any],
        key: tuple[str, ...],
        params: Mapping[str, Any],
        transform: Transform | None,
        exclude_on_update: Sequence[str],
        dedupe: Dedupe,
        deletion: DeleteOptions,
        prefetch: bool,
        on_invalid: OnInvalid,
        unset: Unset,
    ) -> None:
        if not isinstance(endpoint, BoundEndpoint):
            raise ConfigError("sync needs an endpoint of a plug", hint="Use ctx.sync(shop.list_products, …).")
        if dedupe not in ("first", "last") or on_invalid not in ("fail", "skip"):
            raise ConfigError("sync: dedupe must be first or last, and on_invalid must be fail or skip")
        if unset not in ("keep", "default"):
            raise ConfigError(f"sync: invalid unset={unset!r}", hint="Use keep or default.")
        check_key(into, key)
        self._env, self._recorder, self._endpoint = env, recorder, endpoint
        self._into, self._key, self._params = into, key, params
        self._transform = transform
        self._dedupe: Dedupe = dedupe
        self._delete_missing = deletion.enabled
        self._prefetch, self._on_invalid = prefetch, on_invalid
        self._walk = PageIterator(endpoint, (), params)
        deletion.check(params, self._walk.paginator)
        self._reader = PageReader(self._walk, skip_invalid=on_invalid == "skip")
        model = None if transform else self._reader.model
        self._rows = Rows(
            into, key, model, tuple(exclude_on_update), sqlite=env.database.sqlite, unset=unset, wins=dedupe
        )
        self._filter = fingerprint({"params": params, "key": key, "into": self._rows.name})
        self._refs = MappingWriter.of(env, flow, endpoint.plug.name)
        self.name = recorder.name(f"sync {endpoint.plug.name}.{endpoint.endpoint.name}")
        self._seen = recorder.seen(self.name, into, key)
        self._deletion = Deletion(self.name, self._rows.name, recorder, self._seen, deletion, flow.name)
        self._deferred = Deferred(self.name, self._rows, recorder, skip=on_invalid == "skip")
        self._defers = deletion.enabled or points_at_itself(into)
        self._last_page: tuple[PagePosition, list[Any]] | None = None
        self._free = asyncio.Event()  # set while pages may be prepared: not while the database waits for this thread
        self._free.set()
        self._written: _Ready | None = None

    async def run(self) -> SyncResult:
        totals = RunningTotals()
        position = self._resume(totals)
        if self._remembers and totals.counts.get("extracted") and not await self._keys_are_there():
            totals.void("the keys of the earlier pages are no longer stored")
        if position is not None:
            await self._recorder.ensure_owner()
            await self._pages(position, totals)
        if self._delete_missing:
            totals.counts["deleted"] = await self._deletion.run(totals)
        if totals.deferred:
            totals.add_deferred(await self._deferred.run(totals.deferred))
        return totals.result

    @property
    def _remembers(self) -> bool:
        """Whether the keys of the pass are stored."""
        return self._delete_missing or self._dedupe == "first"

    async def _keys_are_there(self) -> bool:
        """Whether the keys of finished pages are stored. A completed run deletes them, so its retry has none."""
        if self._recorder.finished(self._deletion.name) is not None:
            return True  # no longer needed
        async with self._env.database.session() as session:
            return await self._seen.any(session)

    def _resume(self, totals: RunningTotals) -> PagePosition | None:
        """Add the pages of earlier executions. Returns the next position, or None after the last page."""
        position: PagePosition | None = self._walk.start
        while (done := self._recorder.finished(self._page_name(totals.pages))) is not None:
            totals.add_page(done)
            if done.result["filter"] != self._filter:
                totals.void("its pages were read with different params")
            position = None if done.result["next"] is None else PagePosition.from_json(done.result["next"])
            if position is None:
                return None
            self._walk.passed(position)
        return position

    def _page_name(self, index: int) -> str:
        return f"{self.name} page {index + 1}"

    async def _pages(self, position: PagePosition, totals: RunningTotals) -> None:
        if not self._prefetch:
            following: PagePosition | None = position
            while following is not None:
                ready = await self._fetch(self._page_name(totals.pages), following, first=following is position)
                totals.add_page(await self._page(ready))
                following = ready.following
            return
        # While the database writes a page, the next pages are fetched, validated and prepared. The same thread drives the
        # database, so a page validated between two statements would keep the database waiting.
        coming: asyncio.Queue[_Ready | Exception] = asyncio.Queue(maxsize=_PREFETCHED)
        fetching = asyncio.create_task(self._fetch_ahead(position, totals.pages, coming))
        try:
            while True:
                ahead = await coming.get()
                if isinstance(ahead, Exception):
                    raise ahead
                totals.add_page(await self._page(ahead))
                if ahead.following is None:
                    return
                self._written = ahead
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)

    async def _fetch_ahead(self, position: PagePosition, index: int, coming: asyncio.Queue[_Ready | Exception]) -> None:
        following: PagePosition | None = position
        try:
            while following is not None:
                name = self._page_name(index)
                with user_code_guard(f"Step {name!r}"):
                    ready = await self._fetch(name, following, first=following is position)
                await coming.put(ready)
                index, following = index + 1, ready.following
        except Exception as exc:
            await coming.put(exc)

    async def _fetch(self, name: str, position: PagePosition, *, first: bool = False) -> _Ready:
        if self._walk.paginator.delay and not first:
            await asyncio.sleep(self._walk.paginator.delay)
        fetched = await self._walk.fetch(position)
        doubt = fetched.doubt or await self._moved(position, fetched)
        while not self._free.is_set():
            await self._free.wait()
        with gc_paused():
            ready = self._ready(name, fetched, doubt)
            del fetched  # free it before the garbage collector runs
        return ready

    async def _moved(self, position: PagePosition, fetched: FetchedPage) -> str:
        """Return why items may have moved between the previous page and this one, or "".

        If positions count records and there is no total to compare, the previous page is read again: if the service deleted
        an earlier record, the previous page ends with another item, and one item was skipped.
        """
        if not (self._delete_missing and self._walk.paginator.positional):
            return ""
        before = self._last_page
        self._last_page = position, [] if fetched.end else self._walk.paginator.items(fetched.data)[:]
        if position.index == 0 or position.total is not None:
            return ""
        if before is None:
            return "the run was interrupted between two pages, and the service returns no total to compare"
        if not await self._walk.is_unmoved(*before):
            return "the previous page changed during the pass, so items may have moved between pages"
        return ""

    def _ready(self, name: str, fetched: FetchedPage, doubt: str) -> _Ready:
        page = self._reader.read(fetched)
        rejects = [Reject(name, of_record(reason, raw, self._key), raw) for raw, reason in page.invalid]
        extracted = len(page.items) + len(rejects)
        items, left_out = self._transformed(name, page.items, rejects)
        if self._on_invalid == "skip":
            items = self._reject_without_key(name, items, rejects)
        batch = self._rows.batch(items)
        skipped, keys = left_out + batch.repeated(self._dedupe), len(batch.keys)
        keep = self._recorder.dry or self._dedupe == "first" or self._on_invalid == "skip" or self._defers
        batch.prepare(keep_records=keep, keep_keys=self._remembers)
        for_refs = page.items if self._refs is not None else []
        return _Ready(name, fetched.following, fetched.cut, for_refs, batch, rejects, extracted, skipped, keys, doubt)

    async def _page(self, ready: _Ready) -> Finished:
        started, batch = utc_now(), ready.batch
        following = None
        if ready.following is not None:
            following = (await without_secrets(ready.following, self._endpoint.plug)).to_json()

        deferred: list[Rejected] = []

        async def work(session: AsyncSession) -> Outcome:
            skipped = ready.skipped
            if self._dedupe == "first":
                batch.leave_out(await self._seen.met(session, batch.keys))
                skipped += ready.keys - len(batch.keys)
            done, rejected = await self._write(session, batch)
            done, rejected, deferred[:] = await self._put_off(session, done, rejected)
            keyed = len(rejected)
            if self._remembers:
                await self._seen.add(session, batch.keys, ready.name)
            if self._refs is not None:
                rejected += await self._refs.write(session, ready.items, skip=self._on_invalid == "skip")
            rejects = [*ready.rejects, *[self._reject(ready.name, record, exc) for record, exc in rejected]]
            self._recorder.wrote(self._rows.name, done._asdict(), batch.records)
            counts = {
                "extracted": ready.extracted,
                "created": done.created,
                "updated": done.updated,
                "skipped": skipped + done.unchanged,
                "failed": len(rejects),
            }
            if self._transform is not None:
                counts["transformed"] = done.total
            result = {"next": following, "filter": self._filter, "unchanged": done.unchanged, "cut": ready.cut}
            result |= {"doubt": ready.doubt, "keyed": keyed, "deferred": len(deferred)}
            return Outcome(result, counts, rejects)

        self._free.clear()
        try:
            finished = await self._recorder.commit(ready.name, work, started_at=started, relaxed=True)
            self._deferred.add(deferred)
            return finished
        finally:
            self._free.set()

    async def _write(self, session: AsyncSession, batch: Batch) -> tuple[Upserted, list[Rejected]]:
        """Write the batch. While the database works, the next page is prepared and the previous one is freed."""
        await session.connection()

        def meanwhile() -> None:
            self._free.set()
            self._written = None

        sent = asyncio.get_running_loop().call_later(_SENT_SECONDS, meanwhile)
        try:
            if self._on_invalid == "skip" or self._defers:
                return await batch.write_accepted(session)
            return await batch.write(session), []
        finally:
            sent.cancel()
            self._free.clear()

    async def _put_off(
        self, session: AsyncSession, done: Upserted, rejected: list[Rejected]
    ) -> tuple[Upserted, list[Rejected], list[Rejected]]:
        """Select the rejected records to defer: those that depend on other rows. With on_invalid="fail", raises for others."""
        deferred: list[Rejected] = []
        if rejected and self._defers:
            some, rejected, deferred = await self._deferred.retry(session, rejected)
            done = done.plus(some)
        if rejected and self._on_invalid == "fail":
            raise rejected[0][1]
        return done, rejected, deferred

    def _transformed(self, name: str, items: list[Any], rejects: list[Reject]) -> tuple[list[Any], int]:
        """Transform the items. Returns the results, and the number of items for which the transform returned None."""
        if self._transform is None:
            return items, 0
        results: list[Any] = []
        left_out = 0
        for item in items:
            try:
                result = self._transform(item)
            except Exception as exc:
                if self._on_invalid == "fail":
                    raise
                rejects.append(Reject(name, of_record(reason_of(exc), item, self._key), shown(item)))
                continue
            if result is None:
                left_out += 1
            else:
                results.append(result)
        return results, left_out

    def _reject_without_key(self, name: str, items: list[Any], rejects: list[Reject]) -> list[Any]:
        """Return the records that have a key. The others are rejected."""
        kept: list[Any] = []
        for item in items:
            missing = self._rows.missing(item)
            if missing is None:
                kept.append(item)
            else:
                rejects.append(Reject(name, f"has no {missing!r}, which is part of the key", shown(item)))
        return kept

    def _reject(self, name: str, record: Any, exc: Exception) -> Reject:
        message = translate_error(exc, self._env.database.url).message
        return Reject(name, of_record(message, record, self._key), shown(record))
