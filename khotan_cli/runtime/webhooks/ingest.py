"""`@ingest`: a typed endpoint that receives records from other systems."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import ConfigError, KhotanError
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.flows.context import FlowContext
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.resources.mappings import Resource
from khotan_cli.runtime.runs.definition import RunResult
from khotan_cli.runtime.runs.hooks import Hooks
from khotan_cli.runtime.runs.steps import Outcome, StepRecorder
from khotan_cli.runtime.store.event_identity import undecided_tenant
from khotan_cli.runtime.store.incoming import Incoming
from khotan_cli.runtime.store.unassigned import Assignment, set_parked
from khotan_cli.runtime.webhooks.decoding import Undecodable
from khotan_cli.runtime.webhooks.endpoint import BodyInvalid, InboundEndpoint, KeyReused, coroutine
from khotan_cli.runtime.webhooks.event import Event, StoredEvent
from khotan_cli.runtime.webhooks.handler import DEFAULT_RETRY, DEFAULT_TIMEOUT, Handler, HandlerFunction
from khotan_cli.runtime.webhooks.request import WebhookRequest
from khotan_cli.runtime.webhooks.verify.locator import Rule, rule_of
from khotan_cli.runtime.webhooks.verify.schemes import Scheme

if TYPE_CHECKING:
    from khotan_cli.runtime.runs.environment import Environment

logger = logging.getLogger("khotan.webhooks")

IDEMPOTENCY_KEY = Rule(header="Idempotency-Key")
"""draft-ietf-httpapi-idempotency-key-header."""
UNRESOLVED = "No organisation was found for the record"
_PATH = re.compile(r"/[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_MAX_FIELDS = 20
_RESOLVE_SECONDS = 5.0
"""Time limit for `organisation` before the record is stored."""

Resolve = Callable[[Event[Any]], Awaitable[str | None]]


class RecordInvalid(KhotanError):
    """The record does not match the endpoint's model. `details["fields"]` lists the invalid fields."""

    default_code = "record_invalid"


class Ingest(InboundEndpoint):
    """The endpoint that `@ingest` declares, at `/ingest/…`."""

    kind = "ingest"

    def __init__(
        self,
        path: str,
        *,
        module: str,
        model: Any,
        verify: Scheme | None,
        key: Rule,
        key_required: bool,
        plug: Plug | None,
        resource: str | None,
        organisation: Resolve | None,
    ) -> None:
        if not _PATH.fullmatch(path):
            raise ConfigError(f"Invalid path {path!r} for @ingest", hint='Use a path such as @ingest("/orders", …).')
        if (plug is None) != (resource is None):
            raise ConfigError(
                f"@ingest({path!r}) has a {'plug' if plug else 'resource'} but no {'resource' if plug else 'plug'}",
                hint="Mappings link a resource's key to a plug's id: set both options, or neither.",
            )
        super().__init__(
            module=module,
            verify=verify,
            type_rule=None,
            id_rule=key,
            challenge=None,
            methods=("POST", "PUT"),
            vars=None,
        )
        self._path, self._plug = path, plug
        self.adapter: TypeAdapter[Any] = TypeAdapter(model)
        self.key_required, self.resource = key_required, resource
        self.organisation = None if organisation is None else coroutine(organisation)

    @property
    def id(self) -> str:
        return f"ingest{self._path}"

    @property
    def path(self) -> str:
        return f"/ingest{self._path}"

    @property
    def plug(self) -> Plug | None:
        return self._plug

    def env_name(self, var: str) -> str:
        declared = self.vars[var].env
        return declared or re.sub(r"[^A-Z0-9]+", "_", f"{self.id}_{var}".upper())

    @property
    def strict_ids(self) -> bool:
        return True

    async def completed(self, event: Incoming, env: Environment) -> Incoming:
        """Resolve the record's organisation, which is part of its identity.

        If it cannot be resolved yet, the run resolves it later. Until then, the same key with a different body may belong to
        another organisation and counts as another record.
        """
        if self.organisation is None:
            return event
        undecided = replace(event, tenant=undecided_tenant(event.body))
        handler = next(iter(self.handlers.values()))
        recorder = StepRecorder(env, handler, "", 0)  # without a run: its writes fail
        ctx = FlowContext(env, handler, recorder, variant="", source="webhook")
        row = SimpleNamespace(**vars(event), id="", received_at=utc_now())
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                organisation = await self.organisation(StoredEvent(cast("Any", row)).event(self.adapter, ctx, 1))
        except Exception as exc:  # the user's code; the error of its run has details, with secrets masked
            logger.warning(
                "Ingest %s: organisation raised %s; it is called again in the run", self.id, type(exc).__name__
            )
            return undecided
        if not organisation or not isinstance(organisation, str):
            return undecided
        return replace(event, tenant=organisation, organisation=organisation)

    def type_of(self, request: WebhookRequest, found: str | None) -> str:
        return self._path[1:]

    def check(self) -> None:
        super().check()
        if self.scheme is not None and self.scheme.secret is not None and self.plug is None:
            raise ConfigError(
                f"Ingest {self.id!r} is verified with a plug's variable but has no plug",
                hint="Add plug=… and resource=…, or use a scheme with its own secret.",
            )

    def check_body(self, request: WebhookRequest) -> None:
        """Raises KhotanError (unsupported_media_type, idempotency_key_missing), BodyInvalid, RecordInvalid."""
        if request.content_type != "application/json" and not request.content_type.endswith("+json"):
            raise KhotanError(
                f"Records must be JSON, not {request.content_type or 'content without a type'}",
                code="unsupported_media_type",
                hint="Send Content-Type: application/json.",
            )
        try:
            content = request.content
        except Undecodable as exc:
            raise BodyInvalid(f"The body cannot be decoded. {exc}", hint="Send JSON in UTF-8.") from None
        rule = self.id_rule
        assert rule is not None
        if self.key_required and not rule.of_json and not rule.find(request):
            raise KhotanError(
                f"{str(rule)[0].upper()}{str(rule)[1:]} is missing",
                code="idempotency_key_missing",
                hint="Send a key that is the same for every attempt to send this record.",
            )
        try:
            self.adapter.validate_json(content)
        except ValidationError as exc:
            raise record_invalid(exc) from None
        with suppress(ValueError):  # JSON that only Pydantic accepts is rejected later
            if self.key_required and rule.json is not None and not rule.find(request):
                raise RecordInvalid(
                    f"The key field {rule.json} is missing",
                    hint="Send a key that is the same for every attempt to send this record.",
                    details={"fields": [{"path": rule.json, "message": "Field required"}]},
                )


def record_invalid(exc: ValidationError) -> RecordInvalid:
    """Build an error that names the invalid fields and the rules, without the record's values."""
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    fields = [
        {"path": ".".join(str(part) for part in error["loc"]) or "$", "message": error["msg"]}
        for error in errors[:_MAX_FIELDS]
    ]
    first, more = fields[0], f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return RecordInvalid(
        f"Invalid record: {first['path']}: {first['message']}{more}",
        hint="Correct the record, then send it again.",
        details={"fields": fields},
    )


class IngestHandler(Handler):
    """Resolves the record's organisation, stores its mappings and calls the function.

    A record without an organisation is parked.
    """

    wire: Ingest

    async def _run(self, ctx: FlowContext) -> RunResult | None:
        event: Event[Any] = self.event_of(ctx)
        if self.wire.organisation is not None and not event._settled:
            resolved = event.organisation or await self.wire.organisation(event)
            if resolved and not isinstance(resolved, str):
                raise ConfigError(
                    f"The organisation function of {self.name} returned {type(resolved).__name__}, not a str or None",
                    hint="Return a str, or None to park the record.",
                )
            assignment = await self._assign(ctx, event, resolved or None)
            organisation = assignment.organisation
            if assignment.twin is not None and assignment.altered:
                raise KeyReused(
                    f"Organisation {organisation} already used this idempotency key with a different body, "
                    f"for event {assignment.twin}",
                    hint="Ask the sender to use a new key for a different record.",
                )
            if assignment.twin is not None:
                return RunResult(
                    message=f"Duplicate: organisation {organisation} already sent this key as event {assignment.twin}",
                    skipped=1,
                )
            if organisation is None:
                return RunResult(message=f"Parked: {UNRESOLVED[0].lower()}{UNRESOLVED[1:]}", skipped=1)
            if organisation != resolved:
                # The replay that assigned the organisation created its own run.
                return RunResult(
                    message=f"The record was assigned to organisation {organisation} meanwhile; a later run processes it",
                    skipped=1,
                )
            event = replace(event, organisation=organisation)
            ctx.event = event
        if self.wire.resource is not None and self.wire.plug is not None:
            await self._store_mappings(ctx, event, self.wire.plug)
        result = await self.handler(event)
        return result if isinstance(result, RunResult) else None

    async def _assign(self, ctx: FlowContext, event: Event[Any], organisation: str | None) -> Assignment:
        """Store the record's organisation, or park the record. Returns the stored state: another process may be first."""
        assignment = Assignment(organisation)

        async def work(session: AsyncSession) -> Outcome:
            nonlocal assignment
            reason = None if organisation else UNRESOLVED
            assignment = await set_parked(session, int(event.id), reason, organisation)
            return Outcome()

        await ctx.write("organisation" if organisation else "park", work)
        return assignment

    async def _store_mappings(self, ctx: FlowContext, event: Event[Any], plug: Plug) -> None:
        """Store the mapping of each record that has both a key and an id."""
        mappings = ctx.mapping(self.wire.resource or "")
        resource: Resource = mappings.resource
        content = TypeAdapter(Any).dump_python(event.data, mode="json")
        records = content if isinstance(content, list) else [content]
        refs: list[tuple[tuple[str, ...], dict[str, str]]] = []
        for record in records:
            parts = resource.parts_of(record) if isinstance(record, dict) else None
            ref = resource.ref_of(plug.name, record) if isinstance(record, dict) else None
            if parts is not None and ref is not None:
                refs.append((parts, {plug.name: ref}))
        if refs:
            await mappings.upsert_many(refs)


def ingest(
    path: str,
    *,
    model: Any,
    verify: Scheme | None = None,
    key: str | Rule = IDEMPOTENCY_KEY,
    key_required: bool = False,
    organisation: Resolve | None = None,
    plug: Plug | None = None,
    resource: str | None = None,
    retry: Retry = DEFAULT_RETRY,
    timeout: float | None = DEFAULT_TIMEOUT,
    ordered_by: str | Rule | None = None,
    hooks: Hooks | None = None,
) -> Callable[[HandlerFunction], Handler]:
    """Declare an endpoint at `/api/khotan/ingest/<path>` and the function that processes its records durably.

        @ingest("/orders", model=Order, verify=signatures.token())
        async def orders(event: Event[Order]) -> None: ...

    model: type of the body, `list[Order]` for several records in one; an invalid body gets 422 with the invalid fields.
    verify: as for a wire; the secret is the variable `secret` (environment: `INGEST_<PATH>_SECRET`). key: location of the
    idempotency key, by default the header Idempotency-Key. The same key with a different body gets 422; without a key, equal
    bodies are one record. organisation: `async def …(event) -> str | None`, called before the record is stored, because it
    is part of the record's identity: the same key from two organisations identifies two records. It is called again in the
    run if it raised, took longer than 5 seconds or returned None; a record that still has no organisation is parked until it
    is replayed. plug and resource: store the mapping of each record's key to the plug's id before the function runs. Other
    options as for `Wire.catch`. Raises ConfigError.
    """
    if plug is not None and not isinstance(plug, Plug):
        raise ConfigError(f"@ingest needs a plug, not {type(plug).__name__}", hint="Import the plug.")

    def decorate(function: HandlerFunction) -> Handler:
        rule = rule_of(key)
        assert rule is not None
        endpoint = Ingest(
            path,
            module=getattr(function, "__module__", ""),
            model=model,
            verify=verify,
            key=rule,
            key_required=key_required,
            plug=plug,
            resource=resource,
            organisation=organisation,
        )
        handler = IngestHandler(
            function,
            endpoint,
            "ingest",
            (),
            model=model,
            retry=retry,
            timeout=timeout,
            ordered_by=rule_of(ordered_by),
            hooks=hooks,
        )
        return endpoint.add(handler)

    return decorate
