"""Push outcomes: stored per record as soon as known, so that a resumed run does not send a record again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.runs.steps import StepRecorder
from khotan_cli.runtime.store.runs import Reject
from khotan_cli.runtime.transfer.sent_state import Sent, SentState


class PushOutcomes:
    """The outcomes of one page. `counts`: stored outcomes (created, updated, failed, deleted) of all executions."""

    def __init__(self, recorder: StepRecorder, sent_state: SentState, page: str) -> None:
        self._recorder, self._sent_state, self._page = recorder, sent_state, page
        self._noted = recorder.texts(page)
        self.counts: Counter[str] = Counter()
        self._done: list[Sent] = []
        self._failed: list[tuple[str, Reject]] = []
        self._deleted: list[str] = []
        self._storing = asyncio.Lock()

    def sent(self, sent: Sent) -> None:
        """Note that the service accepted a record."""
        self._done.append(sent)

    def failed(self, key: str, reason: str, record: object) -> None:
        """Note that the service rejected a record."""
        self._failed.append((key, Reject(self._page, reason, record)))

    def deleted(self, key: str) -> None:
        """Note that the record no longer exists at the service."""
        self._deleted.append(key)

    async def earlier(self, session: AsyncSession) -> set[str]:
        """Return the keys of records whose outcome an earlier execution stored. They count for the page."""
        keys: set[str] = set()
        for noted in await self._noted.all(session):
            outcome, _, key = noted.partition(" ")
            self.counts[outcome] += 1
            keys.add(key)
        return keys

    async def store(self) -> None:
        """Store the noted outcomes. Callers that wait meanwhile store theirs together."""
        async with self._storing:
            done, failed, deleted = self._done, self._failed, self._deleted
            self._done, self._failed, self._deleted = [], [], []
            try:
                await self._store(done, failed, deleted)
            except KhotanError as exc:
                if exc.code != "mapping_conflict":
                    raise
                # Store them one by one to find the record with the conflict.
                for sent in done:
                    await self._store_one(sent)
                await self._store([], failed)

    async def clear(self, session: AsyncSession) -> None:
        """Delete the single outcomes: the step of the page records the totals."""
        await self._noted.clear(session)

    async def _store_one(self, sent: Sent) -> None:
        try:
            await self._store([sent], [])
        except KhotanError as exc:
            if exc.code != "mapping_conflict":
                raise
            reject = Reject(self._page, exc.message, {"key": sent.key, "ref": sent.ref})
            await self._store([], [(sent.key, reject)])

    async def _store(
        self, done: Sequence[Sent], failed: Sequence[tuple[str, Reject]], deleted: Sequence[str] = ()
    ) -> None:
        noted = [f"{'updated' if sent.changed else 'created'} {sent.key}" for sent in done]
        noted += [f"failed {key}" for key, _ in failed] + [f"deleted {key}" for key in deleted]
        if not noted:
            return

        async def work(session: AsyncSession) -> None:
            await self._noted.note(session, noted)
            await self._sent_state.keep(session, done)
            await self._sent_state.forget(session, deleted)
            await self._recorder.store.reject(session, self._recorder.run_id, [reject for _, reject in failed])

        async def done_before(session: AsyncSession) -> bool:
            return bool(await self._noted.known(session, noted[:1]))

        counts = Counter(key.partition(" ")[0] for key in noted)
        await self._recorder.add(counts, work, done_before)
        self.counts.update(counts)
