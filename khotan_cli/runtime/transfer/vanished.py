"""`delete=`: deletes records at the service that were sent and are no longer in the source. Does nothing if in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import FlowError, PlugError
from khotan_cli.runtime.bulk.key_set import StepTexts
from khotan_cli.runtime.http.dry_run import MissingResponse
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint
from khotan_cli.runtime.runs.steps import Outcome, StepRecorder
from khotan_cli.runtime.transfer.deletion import ALWAYS_ALLOWED, DEFAULT_MAX_SHARE
from khotan_cli.runtime.transfer.push_calls import NOT_ABOUT_ONE_RECORD
from khotan_cli.runtime.transfer.push_options import PushOptions
from khotan_cli.runtime.transfer.push_outcomes import PushOutcomes
from khotan_cli.runtime.transfer.sent_state import SentRecord, SentState

_GONE = (404, 410)
"""The record does not exist at the service, which is the goal."""


class Vanished:
    """The deletion step of one push. `source_keys`: keys of the records in the source, stored by the pages."""

    def __init__(
        self, name: str, recorder: StepRecorder, sent_state: SentState, source_keys: StepTexts, options: PushOptions
    ) -> None:
        self._push, self.name = name, f"{name} delete vanished"
        self._recorder, self._sent_state, self._keys = recorder, sent_state, source_keys
        self._options = options
        assert options.delete is not None
        self._endpoint: BoundEndpoint[Any] = options.delete
        self._param = options.ref_param(options.delete, "delete")

    async def run(self, why_not: str) -> int:
        """Delete vanished records, once. Returns their number.

        why_not: why the source may have more records than it returned, or "". Raises FlowError if the limit is exceeded.
        """
        done = self._recorder.finished(self.name)
        if done is not None:
            return int(done.counts.get("deleted", 0))
        if why_not:
            await self._recorder.log("warning", f"{self._push}: nothing was deleted at the service: {why_not}")
        await self._recorder.ensure_owner()
        push_outcomes = PushOutcomes(self._recorder, self._sent_state, self.name)
        async with self._recorder.database.session() as session:
            earlier = await push_outcomes.earlier(session)
            gone = {} if why_not else await self._gone(session, earlier)
        try:
            await self._delete(gone, push_outcomes)
        finally:
            await push_outcomes.store()
        counts = {"deleted": push_outcomes.counts["deleted"], "failed": push_outcomes.counts["failed"]}

        async def work(session: AsyncSession) -> Outcome:
            await push_outcomes.clear(session)
            await self._keys.clear(session)
            return Outcome(None, counts, counted=push_outcomes.counts)

        done = await self._recorder.commit(self.name, work)
        return int(done.counts.get("deleted", 0))

    async def _gone(self, session: AsyncSession, earlier: set[str]) -> dict[str, SentRecord]:
        sent = await self._sent_state.all_sent(session)
        source_keys = set(await self._keys.all(session))
        gone = {key: known for key, known in sent.items() if key not in source_keys and key not in earlier}
        deleted = sum(1 for key in earlier if key not in source_keys)
        self._check_limit(len(gone) + deleted, len(sent) + deleted, bool(source_keys))
        return gone

    def _check_limit(self, gone: int, sent: int, some_came: bool) -> None:
        """Raises FlowError if the deletions exceed the limit."""
        share = self._options.max_delete
        if not gone:
            return
        too_many = gone > (DEFAULT_MAX_SHARE if share is None else share) * sent and (
            share is not None or gone > ALWAYS_ALLOWED
        )
        if (some_came or share == 1) and not too_many:
            return
        enough = min(1.0, round(gone / sent + 0.05, 2)) if some_came else 1.0
        raise FlowError(
            f"{self._push}: {gone} of {sent} records that were sent are no longer in the source"
            f"{'' if some_came else ', which is empty,'} and would be deleted at the service",
            code="too_many_deletions",
            hint=f"Nothing was deleted. If the source is right, raise the limit: ctx.push(…, max_delete={enough}).",
            details={"missing": gone, "sent": sent, "maxDelete": share},
        )

    async def _delete(self, gone: dict[str, SentRecord], push_outcomes: PushOutcomes) -> None:
        waiting = iter(gone.items())

        async def worker() -> None:
            for key, known in waiting:
                self._recorder.raise_if_cancelled()
                await self._call(key, known, push_outcomes)
                await push_outcomes.store()

        workers = [asyncio.create_task(worker()) for _ in range(min(self._options.concurrency, len(gone)))]
        try:
            await asyncio.gather(*workers)
        finally:
            await _end(workers)

    async def _call(self, key: str, known: SentRecord, push_outcomes: PushOutcomes) -> None:
        if not known.ref:
            push_outcomes.failed(
                key, f"record {key[:100]} was not deleted: its id at the service is unknown", {"key": key}
            )
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
            if exc.status is None or exc.status in NOT_ABOUT_ONE_RECORD:
                raise
            if self._options.on_error == "fail":
                raise
            push_outcomes.failed(key, f"{exc.status}: record {key[:100]}: {exc.message}"[:600], {"key": key})
            return
        push_outcomes.deleted(key)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
