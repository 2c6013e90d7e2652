"""`@ingest`: a typed endpoint that other systems post records to."""

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
from khotan_cli.runtime.store.unassigned import Settled, set_parked
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
UNRESOLVED = "No organisation was found for it"
_PATH = re.compile(r"/[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_MOST_FIELDS = 20
_RESOLVE_SECONDS = 5.0
"""In which `organisation` must answer before the record is stored."""

Resolve = Callable[[Event[Any]], Awaitable[str | None]]


class RecordInvalid(KhotanError):
    """A record that is not what the endpoint declares; `details["fields"]` says where."""

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
            raise ConfigError(f"{path!r} is no path for @ingest", hint='Like @ingest("/orders", …).')
        if (plug is None) != (resource is None):
            raise ConfigError(
                f"@ingest({path!r}) has a {'plug' if plug else 'resource'} and no {'resource' if plug else 'plug'}",
                hint="Mappings tie a resource's key to the id that a plug's records have: give both, or neither.",
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
        """Ask whose the record is: that is part of its identity. Where nobody can say it yet, it is asked again later; until
        then the same key with another body may be another organisation's, and is another record."""
        if self.organisation is None:
            return event
        undecided = replace(event, tenant=undecided_tenant(event.body))
        handler = next(iter(self.handlers.values()))
        recorder = StepRecorder(env, handler, "", 0)  # of no run: what is written with it is refused
        ctx = FlowContext(env, handler, recorder, variant="", source="webhook")
        row = SimpleNamespace(**vars(event), id="", received_at=utc_now())
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await self.organisation(StoredEvent(cast("Any", row)).event(self.adapter, ctx, 1))
        except Exception as exc:  # the user's code; its run says more, with secrets masked
            logger.warning("Ingest %s: the organisation is asked again later: %s", self.id, type(exc).__name__)
            return undecided
        if not found or not isinstance(found, str):
            return undecided
        return replace(event, tenant=found, organisation=found)

    def type_of(self, request: WebhookRequest, found: str | None) -> str:
        return self._path[1:]

    def check(self) -> None:
        super().check()
        if self.scheme is not None and self.scheme.secret is not None and self.plug is None:
            raise ConfigError(
                f"Ingest {self.id!r} is verified with a plug's variable, and has no plug",
                hint="Give it plug=… and resource=…, or a scheme with a secret of its own.",
            )

    def check_body(self, request: WebhookRequest) -> None:
        """Raises KhotanError: unsupported_media_type, idempotency_key_missing; RecordInvalid, which names the fields."""
        if request.content_type != "application/json" and not request.content_type.endswith("+json"):
            raise KhotanError(
                f"Records come as JSON, not as {request.content_type or 'content without a type'}",
                code="unsupported_media_type",
                hint="Send Content-Type: application/json.",
            )
        try:
            content = request.content
        except Undecodable as exc:
            raise BodyInvalid(f"The body cannot be decoded. {exc}", hint="Send JSON, in UTF-8.") from None
        rule = self.id_rule
        assert rule is not None
        if self.key_required and not rule.of_json and not rule.find(request):
            raise KhotanError(
                f"{str(rule)[0].upper()}{str(rule)[1:]} is missing",
                code="idempotency_key_missing",
                hint="Send one that is the same for every attempt to send this record.",
            )
        try:
            self.adapter.validate_json(content)
        except ValidationError as exc:
            raise record_invalid(exc) from None
        with suppress(ValueError):  # what only Pydantic takes for JSON is refused later on
            if self.key_required and rule.json is not None and not rule.find(request):
                raise RecordInvalid(
                    f"The record has no {rule.json}, which is its key",
                    hint="Send one that is the same for every attempt to send this record.",
                    details={"fields": [{"path": rule.json, "message": "Field required"}]},
                )


def record_invalid(exc: ValidationError) -> RecordInvalid:
    """Where the record is wrong and what is expected; not what it holds."""
    found = exc.errors(include_url=False, include_context=False, include_input=False)
    fields = [
        {"path": ".".join(str(part) for part in one["loc"]) or "$", "message": one["msg"]}
        for one in found[:_MOST_FIELDS]
    ]
    first, more = fields[0], f" and {len(found) - 1} more" if len(found) > 1 else ""
    return RecordInvalid(
        f"The record is not as declared: {first['path']}: {first['message']}{more}",
        hint="Correct the record, then send it again.",
        details={"fields": fields},
    )


class IngestHandler(Handler):
    """Finds out whose record it is, ties its ids, and calls the function. A record that nobody's is found for is parked."""

    wire: Ingest

    async def _run(self, ctx: FlowContext) -> RunResult | None:
        event: Event[Any] = self.event_of(ctx)
        if self.wire.organisation is not None and not event._settled:
            found = event.organisation or await self.wire.organisation(event)
            if found and not isinstance(found, str):
                raise ConfigError(
                    f"The organisation of {self.name} is {type(found).__name__}, not a text or None",
                    hint="return a text, or None for a record that is to be parked.",
                )
            known = await self._settle(ctx, event, found or None)
            settled = known.organisation
            if known.twin is not None and known.altered:
                raise KeyReused(
                    f"{settled} used this idempotency key before with another body, for event {known.twin}",
                    hint="Have the sender send another record with another key.",
                )
            if known.twin is not None:
                return RunResult(
                    message=f"A duplicate: {settled} sent the same key before, as event {known.twin}", skipped=1
                )
            if settled is None:
                return RunResult(message=f"Parked: {UNRESOLVED[0].lower()}{UNRESOLVED[1:]}", skipped=1)
            if settled != found:
                # Who said so meanwhile has made a run of its own for it.
                return RunResult(message=f"It is of {settled}: that was said meanwhile, for a later run", skipped=1)
            event = replace(event, organisation=settled)
            ctx.event = event
        if self.wire.resource is not None and self.wire.plug is not None:
            await self._tie(ctx, event, self.wire.plug)
        done = await self.handler(event)
        return done if isinstance(done, RunResult) else None

    async def _settle(self, ctx: FlowContext, event: Event[Any], found: str | None) -> Settled:
        """Note whose the record is, or that it is parked; returns whose it is, which somebody may have said meanwhile."""
        settled = Settled(found)

        async def work(session: AsyncSession) -> Outcome:
            nonlocal settled
            settled = await set_parked(session, int(event.id), None if found else UNRESOLVED, found)
            return Outcome()

        await ctx.write("organisation" if found else "park", work)
        return settled

    async def _tie(self, ctx: FlowContext, event: Event[Any], plug: Plug) -> None:
        """Keep the mapping of each record that has both a key and an id."""
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
    """Declare an endpoint at `/api/khotan/ingest/<path>` and the function that processes what is posted there, durably.

        @ingest("/orders", model=Order, verify=signatures.token())
        async def orders(event: Event[Order]) -> None: ...

    model: what a body must be, `list[Order]` for several records in one; another is refused with 422 and its fields. verify:
    as for a wire; the secret is the variable `secret` (environment: `INGEST_<PATH>_SECRET`). key: where the sender puts
    what is the same for each attempt, by default the header Idempotency-Key; the same key with another body is refused
    with 422, and without a key equal bodies are taken for one. organisation: `async def …(event) -> str | None`, asked
    before the record is stored, because it belongs to the record's identity: the same key of two organisations are two
    records. It is asked again in a run where it failed, took longer than 5 seconds or found nobody; a record that still
    belongs to nobody is parked, until it is replayed. plug and resource: the mapping of
    each record's key to the plug's id is kept before the function runs. Other options as for `Wire.catch`. Raises ConfigError.
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
