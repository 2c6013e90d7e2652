"""One call of a push: what is sent, and what the answer says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic_core import to_jsonable_python

from khotan_cli.errors import FlowError, PlugError, ResponseInvalid
from khotan_cli.runtime.http.codec import decode_document
from khotan_cli.runtime.http.dry_run import MissingResponse
from khotan_cli.runtime.http.json_path import Path, path_keys, path_text
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint
from khotan_cli.runtime.runs.steps import Recorder
from khotan_cli.runtime.transfer.push_options import PushOptions, by_record
from khotan_cli.runtime.transfer.push_outcomes import Ledger
from khotan_cli.runtime.transfer.records import answer_value
from khotan_cli.runtime.transfer.sent_state import Sent, SentRecord

OF_NO_RECORD = (401, 429, 502, 503, 504)
"""Statuses that tell of credentials or of an outage (RFC 9110 15, RFC 6585 4): whatever else is sent would fail too."""
_PRECONDITION_FAILED = 412
_LONGEST_ANSWER = 4000
"""Characters of an answer without the id that is looked for, which are kept until `ref` is corrected."""
_LONGEST_REASON = 600


@dataclass
class Item:
    """A record on its way: its key as text, what is sent, and what the service is known to have."""

    key: str
    record: Any
    payload: dict[str, Any]
    digests: dict[str, str]
    known: SentRecord | None


@dataclass(frozen=True)
class Answer:
    """What a service answered: the declared model, or raw JSON where the body is not as declared (`mismatch` says why)."""

    value: Any
    etag: str = ""
    mismatch: str = ""


class PushCalls:
    """Makes the calls of one push."""

    def __init__(
        self, endpoint: BoundEndpoint[Any], options: PushOptions, ref: Path, recorder: Recorder, name: str
    ) -> None:
        self._endpoint, self._options, self._ref = endpoint, options, ref
        self._ref_param = options.ref_param(options.update, "update")
        self._recorder, self._name = recorder, name
        self._mismatches = 0

    async def make(self, call: Sequence[Item], ledger: Ledger) -> None:
        """Send a record, or a batch of them, and note what came of it.

        Raises PlugError for what is of no single record, and with on_error="fail" for a refused one; FlowError where the id
        that updates need is not in the answer.
        """
        options, known = self._options, call[0].known
        changes = options.update is not None and known is not None and bool(known.ref)
        if options.update is not None and known is not None and not known.ref:
            self._refuse_unknown(call[0], ledger)
            return
        try:
            answer = await self._answer(call, changes)
        except PlugError as exc:
            self._refused(exc, call, ledger)
            return
        if answer.mismatch:
            await self._report(answer.mismatch)
        reasons = self._reasons(answer, call)
        missing = ""
        for index, (item, refused) in enumerate(zip(call, reasons, strict=True)):
            if refused is not None:
                ledger.failed(item.key, f"record {item.key[:100]}: {refused}"[:_LONGEST_REASON], item.payload)
                continue
            before: str = item.known.ref if item.known is not None else ""
            ref: str = before if changes else (self._answered_ref(answer.value, index) or before)
            kept = None
            if not ref and options.needs_ref and not isinstance(answer.value, MissingResponse):
                missing, kept = missing or item.key, _bounded(answer.value)
            etag = answer.etag if options.etag else ""
            ledger.sent(Sent(item.key, ref, item.digests, changed=changes or bool(before), etag=etag, answer=kept))
        if missing:
            await ledger.store()  # it was sent: that must be known before the run fails
            raise self._no_ref(missing)

    def _refuse_unknown(self, item: Item, ledger: Ledger) -> None:
        """A record that the service has under an id that is not known: sending it again would make another."""
        reason = (
            f"record {item.key[:100]} was sent before, and its id at the service is not known: correct ref=…, "
            "or enter the id with `khotan mappings upsert`"
        )
        ledger.failed(item.key, reason, item.payload)

    def _refused(self, exc: PlugError, call: Sequence[Item], ledger: Ledger) -> None:
        status = exc.status
        if status is None or status in OF_NO_RECORD or self._options.on_error == "fail":
            raise exc
        for item in call:
            if status == _PRECONDITION_FAILED:
                reason = (
                    f"{status}: record {item.key[:100]} was changed at the service since it was sent: {exc.message}"
                )
                theirs = to_jsonable_python(exc.body, fallback=repr)
                record = {"ours": item.payload, "theirs": theirs, "etag": item.known.etag if item.known else ""}
                ledger.failed(item.key, reason[:_LONGEST_REASON], record)
            else:
                ledger.failed(
                    item.key, f"{status}: record {item.key[:100]}: {exc.message}"[:_LONGEST_REASON], item.payload
                )

    async def _answer(self, call: Sequence[Item], changes: bool) -> Answer:
        options, item = self._options, call[0]
        bound = self._endpoint
        params: dict[str, Any] = by_record(options.ids, item.record, item.known) if options.batch == 1 else {}
        body: Any = item.payload
        if options.batch > 1:
            listed = [one.payload for one in call]
            body = {options.batch_key: listed} if options.batch_key else listed
        if changes:
            assert options.update is not None and item.known is not None
            bound = options.update
            if self._ref_param:
                params.setdefault(self._ref_param, item.known.ref)
        headers = {name: str(value) for name, value in by_record(options.headers, item.record, item.known).items()}
        if changes and options.etag and item.known is not None and item.known.etag:
            headers.setdefault("If-Match", item.known.etag)
        if headers:
            bound = BoundEndpoint(bound.endpoint, bound.plug.with_options(headers=headers))
        return await answer_of(bound, body=body, **params)

    def _reasons(self, answer: Answer, call: Sequence[Item]) -> Sequence[str | None]:
        """For each record None, or why the service did not take it."""
        outcomes = self._options.outcomes
        if outcomes is None or isinstance(answer.value, MissingResponse) or answer.mismatch:
            return [None] * len(call)
        reasons = outcomes(answer.value, [item.record for item in call])
        if len(reasons) != len(call):
            raise FlowError(
                f"outcomes= gave {len(reasons)} outcomes for {len(call)} records", hint="One for each, in their order."
            )
        return reasons

    async def _report(self, mismatch: str) -> None:
        """Say once in the run's log that answers are not as declared."""
        self._mismatches += 1
        if self._mismatches == 1:
            await self._recorder.log(
                "warning",
                f"{self._name}: a successful answer is not as declared; what was sent counts as sent. {mismatch}",
            )

    def _answered_ref(self, answer: Any, index: int) -> str:
        if isinstance(answer, MissingResponse) or answer is None:
            return ""
        place: tuple[str | int, ...] = ()
        if self._options.batch > 1:
            place = (self._options.batch_key, index) if self._options.batch_key else (index,)
        try:
            found = answer_value(answer, (*place, *path_keys(self._ref)))
        except ValueError:
            found = None
        return "" if found is None or isinstance(found, (dict, list)) else str(found)

    def _no_ref(self, key: str) -> FlowError:
        name = f"{self._endpoint.plug.name}.{self._endpoint.endpoint.name}"
        return FlowError(
            f"{self._name}: the answer of {name} for record {key[:100]} has no id at {path_text(self._ref)!r}",
            code="ref_missing",
            hint="The record was sent, and is not sent again. Name the path of the id in the answer: ref='objectId', "
            "ref='data.id'; the next run then takes the id from the answer that was kept.",
            next=[f"khotan plug {self._endpoint.plug.name} --info"],
        )


async def answer_of(bound: BoundEndpoint[Any], **params: Any) -> Answer:
    """Call, and read the answer. A successful one is never an error for its body alone: what it did is done.

    Raises PlugError for an error status, and for a body that says that it is an error.
    """
    try:
        response = await bound.raw(**params)
    except PlugError as exc:
        # The answer was too long, could not be decompressed, or broke off: its status says that the call succeeded.
        if exc.status is None or not 200 <= exc.status < 300 or exc.code == "service_error":
            raise
        return Answer(None, "", exc.message)
    if isinstance(response, MissingResponse):
        return Answer(response)
    etag = response.headers.get("etag", "")
    try:
        return Answer(bound.result(response), etag)
    except ResponseInvalid as exc:
        return Answer(_raw(bound, response), etag, exc.message)


def _raw(bound: BoundEndpoint[Any], response: httpx.Response) -> Any:
    try:
        return decode_document(response, bound.plug.parsers)
    except ResponseInvalid:
        return None


def _bounded(answer: Any) -> Any:
    """An answer to look for an id in later; None for one that is too long to keep."""
    if isinstance(answer, httpx.Response):
        return None
    value = to_jsonable_python(answer, by_alias=True, fallback=repr, inf_nan_mode="strings")
    return value if isinstance(value, (dict, list)) and len(str(value)) <= _LONGEST_ANSWER else None
