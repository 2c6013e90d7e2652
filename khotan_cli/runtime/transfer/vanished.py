"""`delete=`: what was sent and is no longer in the source is deleted at the service, and nothing in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import FlowError, PlugError
from khotan_cli.runtime.bulk.key_set import StepTexts
from khotan_cli.runtime.http.dry_run import MissingResponse
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint
from khotan_cli.runtime.runs.steps import Outcome, Recorder
from khotan_cli.runtime.transfer.deletion import MOST, SPARED
from khotan_cli.runtime.transfer.push_calls import OF_NO_RECORD
from khotan_cli.runtime.transfer.push_options import PushOptions
from khotan_cli.runtime.transfer.push_outcomes import Ledger
from khotan_cli.runtime.transfer.sent_state import Destination, SentRecord

_GONE = (404, 410)
"""The service does not have it: that is what was wanted."""


class Vanished:
    """The step of one push that deletes. `source_keys`: keys of the records that the source has, noted by its pages."""

    def __init__(
        self, name: str, recorder: Recorder, destination: Destination, source_keys: StepTexts, options: PushOptions
    ) -> None:
        self._push, self.name = name, f"{name} delete vanished"
        self._recorder, self._destination, self._keys = recorder, destination, source_keys
        self._options = options
        assert options.delete is not None
        self._endpoint: BoundEndpoint[Any] = options.delete
        self._param = options.ref_param(options.delete, "delete")

    async def run(self, why_not: str) -> int:
        """Delete what has vanished, once; how many records. why_not: why the source may have more than came, or "".

        Raises FlowError where they are more than may be deleted.
        """
        done = self._recorder.finished(self.name)
        if done is not None:
            return int(done.counts.get("deleted", 0))
        if why_not:
            await self._recorder.log("warning", f"{self._push}: nothing was deleted at the service, {why_not}")
        await self._recorder.ready()
        ledger = Ledger(self._recorder, self._destination, self.name)
        async with self._recorder.database.session() as session:
            earlier = await ledger.earlier(session)
            gone = {} if why_not else await self._gone(session, earlier)
        try:
            await self._delete(gone, ledger)
        finally:
            await ledger.store()
        counts = {"deleted": ledger.counts["deleted"], "failed": ledger.counts["failed"]}

        async def work(session: AsyncSession) -> Outcome:
            await ledger.clear(session)
            await self._keys.clear(session)
            return Outcome(None, counts, counted=ledger.counts)

        done = await self._recorder.commit(self.name, work)
        return int(done.counts.get("deleted", 0))

    async def _gone(self, session: AsyncSession, earlier: set[str]) -> dict[str, SentRecord]:
        sent = await self._destination.all_sent(session)
        there = set(await self._keys.all(session))
        gone = {key: known for key, known in sent.items() if key not in there and key not in earlier}
        deleted = sum(1 for key in earlier if key not in there)
        self._bound(len(gone) + deleted, len(sent) + deleted, bool(there))
        return gone

    def _bound(self, gone: int, sent: int, some_came: bool) -> None:
        """Raises FlowError where more would be deleted than may be."""
        share = self._options.max_delete
        if not gone:
            return
        too_many = gone > (MOST if share is None else share) * sent and (share is not None or gone > SPARED)
        if (some_came or share == 1) and not too_many:
            return
        enough = min(1.0, round(gone / sent + 0.05, 2)) if some_came else 1.0
        raise FlowError(
            f"{self._push}: {gone} of {sent} records that were sent are no longer in the source"
            f"{'' if some_came else ', which is empty,'} and would be deleted at the service",
            code="too_many_deletions",
            hint=f"Nothing was deleted. If the source is right, allow it: ctx.push(…, max_delete={enough}).",
            details={"missing": gone, "sent": sent, "maxDelete": share},
        )

    async def _delete(self, gone: dict[str, SentRecord], ledger: Ledger) -> None:
        waiting = iter(gone.items())

        async def worker() -> None:
            for key, known in waiting:
                self._recorder.go_on()
                await self._call(key, known, ledger)
                await ledger.store()

        workers = [asyncio.create_task(worker()) for _ in range(min(self._options.concurrency, len(gone)))]
        try:
            await asyncio.gather(*workers)
        finally:
            await _end(workers)

    async def _call(self, key: str, known: SentRecord, ledger: Ledger) -> None:
        if not known.ref:
            ledger.failed(key, f"record {key[:100]} was not deleted: its id at the service is not known", {"key": key})
            return
        try:
            response = await self._endpoint.raw(**{self._param: known.ref})
            if (
                not isinstance(response, MissingResponse)
                and response.status_code not in _GONE
                and not response.is_success
            ):
                self._endpoint.result(response)  # raises
        except PlugError as exc:
            if exc.status is None or exc.status in OF_NO_RECORD:
                raise
            if self._options.on_error == "fail":
                raise
            ledger.failed(key, f"{exc.status}: record {key[:100]}: {exc.message}"[:600], {"key": key})
            return
        ledger.deleted(key)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
