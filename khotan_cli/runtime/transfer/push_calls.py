"""The calls of a push: sends records and reads the outcomes from the responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic_core import to_jsonable_python

from khotan_cli.errors import FlowError, PlugError, ResponseInvalid
from khotan_cli.runtime.content.codec import decode_document
from khotan_cli.runtime.content.json_path import Path, path_keys, path_text
from khotan_cli.runtime.http.dry_run import MissingResponse
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint
from khotan_cli.runtime.runs.steps import StepRecorder
from khotan_cli.runtime.transfer.push_options import PushOptions, by_record
from khotan_cli.runtime.transfer.push_outcomes import PushOutcomes
from khotan_cli.runtime.transfer.records import answer_value
from khotan_cli.runtime.transfer.sent_state import Sent, SentRecord

NOT_ABOUT_ONE_RECORD = (401, 429, 502, 503, 504)
"""Statuses for invalid credentials, rate limits and outages (RFC 9110 15, RFC 6585 4): other records would fail too."""
_PRECONDITION_FAILED = 412
_LONGEST_ANSWER = 4000
"""Maximum length of a response without an id that is stored until `ref` is corrected."""
_LONGEST_REASON = 600


@dataclass
class Item:
    """A record to send: its key as text, the payload, and what is known of it at the service."""

    key: str
    record: Any
    payload: dict[str, Any]
    digests: dict[str, str]
    known: SentRecord | None


@dataclass(frozen=True)
class Answer:
    """A response: the declared model, or raw JSON if the body does not match it (`mismatch` gives the reason)."""

    value: Any
    etag: str = ""
    mismatch: str = ""


class PushCalls:
    """Makes the calls of one push."""

    def __init__(
        self, endpoint: BoundEndpoint[Any], options: PushOptions, ref: Path, recorder: StepRecorder, name: str
    ) -> None:
        self._endpoint, self._options, self._ref = endpoint, options, ref
        self._ref_param = options.ref_param(options.update, "update")
        self._recorder, self._name = recorder, name
        self._mismatches = 0

    async def make(self, call: Sequence[Item], push_outcomes: PushOutcomes) -> None:
        """Send a record or a batch, and note the outcomes.

        Raises PlugError for errors that do not concern one record, and with on_error="fail" for a rejected record; FlowError
        if the id that updates need is missing from the response.
        """
        options, known = self._options, call[0].known
        changes = options.update is not None and known is not None and bool(known.ref)
        if options.update is not None and known is not None and not known.ref:
            self._fail_unknown_id(call[0], push_outcomes)
            return
        try:
            answer = await self._answer(call, changes)
        except PlugError as exc:
            self._fail_call(exc, call, push_outcomes)
            return
        if answer.mismatch:
            await self._report(answer.mismatch)
        reasons = self._reasons(answer, call)
        missing = ""
        for index, (item, reason) in enumerate(zip(call, reasons, strict=True)):
            if reason is not None:
                push_outcomes.failed(item.key, f"record {item.key[:100]}: {reason}"[:_LONGEST_REASON], item.payload)
                continue
            before: str = item.known.ref if item.known is not None else ""
            ref: str = before if changes else (self._answered_ref(answer.value, index) or before)
            kept = None
            if not ref and options.needs_ref and not isinstance(answer.value, MissingResponse):
                missing, kept = missing or item.key, _bounded(answer.value)
            etag = answer.etag if options.etag else ""
            push_outcomes.sent(
                Sent(item.key, ref, item.digests, changed=changes or bool(before), etag=etag, answer=kept)
            )
        if missing:
            await push_outcomes.store()  # the record was sent: store that before the run fails
            raise self._no_ref(missing)

    def _fail_unknown_id(self, item: Item, push_outcomes: PushOutcomes) -> None:
        """Fail a record that was sent but whose id is unknown: sending it again would create a duplicate."""
        reason = (
            f"record {item.key[:100]} was sent before, but its id at the service is unknown: correct ref=…, "
            "or set the id with `khotan mappings upsert`"
        )
        push_outcomes.failed(item.key, reason, item.payload)

    def _fail_call(self, exc: PlugError, call: Sequence[Item], push_outcomes: PushOutcomes) -> None:
        status = exc.status
        if status is None or status in NOT_ABOUT_ONE_RECORD or self._options.on_error == "fail":
            raise exc
        for item in call:
            if status == _PRECONDITION_FAILED:
                reason = (
                    f"{status}: record {item.key[:100]} was changed at the service after it was sent: {exc.message}"
                )
                theirs = to_jsonable_python(exc.body, fallback=repr)
                record = {"ours": item.payload, "theirs": theirs, "etag": item.known.etag if item.known else ""}
                push_outcomes.failed(item.key, reason[:_LONGEST_REASON], record)
            else:
                push_outcomes.failed(
                    item.key, f"{status}: record {item.key[:100]}: {exc.message}"[:_LONGEST_REASON], item.payload
                )

    async def _answer(self, call: Sequence[Item], changes: bool) -> Answer:
        options, item = self._options, call[0]
        bound = self._endpoint
        params: dict[str, Any] = by_record(options.ids, item.record, item.known) if options.batch == 1 else {}
        body: Any = item.payload
        if options.batch > 1:
            payloads = [entry.payload for entry in call]
            body = {options.batch_key: payloads} if options.batch_key else payloads
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
        """Return for each record None, or why the service rejected it."""
        outcomes = self._options.outcomes
        if outcomes is None or isinstance(answer.value, MissingResponse) or answer.mismatch:
            return [None] * len(call)
        reasons = outcomes(answer.value, [item.record for item in call])
        if len(reasons) != len(call):
            raise FlowError(
                f"outcomes=… returned {len(reasons)} outcomes for {len(call)} records",
                hint="Return one outcome for each record, in the same order.",
            )
        return reasons

    async def _report(self, mismatch: str) -> None:
        """Log once that responses do not match their declaration."""
        self._mismatches += 1
        if self._mismatches == 1:
            await self._recorder.log(
                "warning",
                f"{self._name}: a successful response does not match its declaration; the records count as sent. {mismatch}",
            )

    def _answered_ref(self, answer: Any, index: int) -> str:
        if isinstance(answer, MissingResponse) or answer is None:
            return ""
        prefix: tuple[str | int, ...] = ()
        if self._options.batch > 1:
            prefix = (self._options.batch_key, index) if self._options.batch_key else (index,)
        try:
            ref = answer_value(answer, (*prefix, *path_keys(self._ref)))
        except ValueError:
            ref = None
        return "" if ref is None or isinstance(ref, (dict, list)) else str(ref)

    def _no_ref(self, key: str) -> FlowError:
        name = f"{self._endpoint.plug.name}.{self._endpoint.endpoint.name}"
        return FlowError(
            f"{self._name}: the response of {name} for record {key[:100]} has no id at {path_text(self._ref)!r}",
            code="ref_missing",
            hint="The record was sent and will not be sent again. Set the path of the id in the response, such as "
            "ref='objectId' or ref='data.id'; the next run then reads the id from the stored response.",
            next=[f"khotan plug {self._endpoint.plug.name} --info"],
        )


async def answer_of(bound: BoundEndpoint[Any], **params: Any) -> Answer:
    """Call the endpoint and read the response. An invalid body alone does not make a successful call an error.

    Raises PlugError for an error status, and for a body that the plug declares as an error.
    """
    try:
        response = await bound.raw(**params)
    except PlugError as exc:
        # The response was too long, could not be decompressed, or was cut off, but its status is a success.
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
    """Return a response to search for an id later, or None if it is too long to store."""
    if isinstance(answer, httpx.Response):
        return None
    value = to_jsonable_python(answer, by_alias=True, fallback=repr, inf_nan_mode="strings")
    return value if isinstance(value, (dict, list)) and len(str(value)) <= _LONGEST_ANSWER else None
