"""Receiving an event: verify, tell what it is, store it with the runs of its handlers, and only then acknowledge."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from khotan_cli.errors import KhotanError, SecretMissing
from khotan_cli.runtime.flows.hooks import EventInfo
from khotan_cli.runtime.plugs.masking import Masker, mask_secret
from khotan_cli.runtime.store.events import Delivery, Incoming, Stored
from khotan_cli.runtime.webhooks.challenges import Answer
from khotan_cli.runtime.webhooks.host import WebhookHost
from khotan_cli.runtime.webhooks.inbox import Inbox
from khotan_cli.runtime.webhooks.receiving import SECRET, ReceivingEndpoint
from khotan_cli.runtime.webhooks.request import WebhookRequest
from khotan_cli.runtime.webhooks.schemes import PublicKey, Refused, Scheme, Token

logger = logging.getLogger("khotan.webhooks")

_CREDENTIALS = ("authorization", "cookie", "token", "secret", "signature", "api-key", "apikey", "hmac", "password")
_REREAD_SECONDS = 1.0


class SignatureInvalid(KhotanError):
    default_code = "signature_invalid"


@dataclass(frozen=True)
class Receipt:
    """What became of a request: an event that is stored, or the answer to a challenge."""

    stored: Stored | None = None
    answer: Answer | None = None


class Receiver:
    """Takes requests for wires. `wake` is called when there is something for handlers to do."""

    def __init__(self, host: WebhookHost, inbox: Inbox) -> None:
        self._host, self._inbox = host, inbox

    async def receive(self, wire: ReceivingEndpoint, request: WebhookRequest, now: float | None = None) -> Receipt:
        """Verify and store. A body that cannot be decoded is stored too, with the reason as its `problem`.

        Raises SignatureInvalid; BodyInvalid for an ingest; SecretMissing, StoreError where nothing can be stored.
        """
        request = replace(request, envelope=wire.envelope)
        challenge = wire.challenge
        if challenge is not None and not challenge.signed:
            answer = challenge.answer(request, await self._host.values(wire))
            if answer is not None:
                return Receipt(answer=answer)
        if request.method not in wire.event_methods:
            raise refused_method(wire.id, request.method, wire.event_methods)
        await self.verify(wire, request, time.time() if now is None else now)
        if challenge is not None and challenge.signed:
            answer = challenge.answer(request, await self._signed_values(wire))
            if answer is not None:
                return Receipt(answer=answer)
        wire.check_body(request)
        # A scheme says which field it reads; a function of the user's may read any, and compares it with a variable.
        values = await self._host.values(wire) if wire.verify is not None else {}
        secrets = [line for name, value in values.items() if wire.vars[name].secret for line in value.splitlines()]
        event = await wire.completed(incoming(wire, request, secrets), self._host)
        stored = await self._inbox.put(event)
        if stored.altered and wire.strict_ids:
            raise KhotanError(
                "This idempotency key came before, with another body",
                code="idempotency_key_reused",  # draft-ietf-httpapi-idempotency-key-header 2.7
                hint="Send another record with another key.",
            )
        if stored.new:
            handlers = tuple(one.handler for one in event.deliveries)
            info = EventInfo(str(stored.id), wire.id, event.type, event.remote_id, handlers)
            await self._host.host.hooks.received(info)
        return Receipt(stored)

    async def _signed_values(self, wire: ReceivingEndpoint) -> dict[str, str]:
        """The wire's variables, with the secret that a signed challenge is answered with."""
        values = dict(await self._host.values(wire))
        if wire.scheme is not None and wire.verify is None:
            values[SECRET] = "\n".join(await self._host.secrets(wire))
        return values

    async def verify(self, wire: ReceivingEndpoint, request: WebhookRequest, now: float) -> None:
        """Raises SignatureInvalid. Where secrets that were read a while ago do not fit, they are read once more."""
        try:
            try:
                await self._verify(wire, request, now, fresh=False)
            except (Refused, SecretMissing):
                if not self._host.read_before(wire, _REREAD_SECONDS):
                    raise
                await self._verify(wire, request, now, fresh=True)
        except Refused as exc:
            logger.warning("Wire %s refused a request: %s", wire.id, exc)
            raise SignatureInvalid(
                "The request is not signed as this endpoint expects",
                hint="Check the secret on both sides, and the clock.",
            ) from None

    async def _verify(self, wire: ReceivingEndpoint, request: WebhookRequest, now: float, *, fresh: bool) -> None:
        if wire.verify is not None:
            values = await self._host.values(wire, fresh=fresh)
            try:
                accepted = await wire.verify(request, values)
            except Exception as exc:  # the user's code; what it says may hold a secret
                raise Refused(f"on_verify raised {type(exc).__name__}") from None
            if accepted is not True:
                raise Refused("on_verify did not accept it")
            return
        assert wire.scheme is not None
        wire.scheme.verify(request, await self._host.secrets(wire, fresh=fresh), now)


def refused_method(wire: str, method: str, allowed: Iterable[str]) -> KhotanError:
    allow = sorted(allowed)
    error = KhotanError(
        f"Events of wire {wire!r} do not come with {method}",
        code="method_not_allowed",
        hint=f"Send {' or '.join(allow)}.",
    )
    error.details["allow"] = allow  # RFC 9110 15.5.6
    return error


def incoming(wire: ReceivingEndpoint, request: WebhookRequest, secrets: Sequence[str] = ()) -> Incoming:
    """The event that a verified request is; `secrets` are masked in its header fields."""
    problem = request.problem(json_needed=any(rule.of_json for rule in (wire.type_rule, wire.id_rule) if rule))
    event_type, remote_id = _found(wire, request)
    window: float | None = None
    if remote_id is None:
        window = wire.duplicates_within
        remote_id = f"none:{uuid.uuid4()}" if window == 0 else _digest(request)
    deliveries = [
        Delivery(handler.name, handler.kind, handler.order_key(request))
        for handler in wire.handlers.values()
        if handler.takes(event_type)
    ]
    return Incoming(
        wire.id,
        remote_id,
        event_type,
        request.method,
        masked_headers(request.headers.items(), _read_by(wire.scheme), Masker(secrets)),
        request.headers.get("content-type", ""),
        request.body,
        deliveries,
        problem=problem,
        path=dict(request.path),
        window=window,
    )


def _digest(request: WebhookRequest) -> str:
    """The id of an event whose sender gives none. A request that differs in path, query or body is another event."""
    below = "".join(f"{name}={value}\n" for name, value in sorted(request.path.items()))
    query = request.url.partition("?")[2]
    return "sha256:" + hashlib.sha256(f"{below}{query}\n".encode() + request.body).hexdigest()


def _found(wire: ReceivingEndpoint, request: WebhookRequest) -> tuple[str, str | None]:
    """Type and id, as far as they can be found: a body that cannot be read holds neither."""
    values: list[str | None] = []
    for rule in (wire.type_rule, wire.id_rule):
        try:
            values.append(None if rule is None else rule.find(request))
        except ValueError:
            values.append(None)
    event_type, remote_id = values
    return wire.type_of(request, event_type), remote_id


def _read_by(scheme: Scheme | None) -> Collection[str]:
    """Where a scheme finds what lets a sender in: names of header fields, in lower case."""
    if isinstance(scheme, Token):
        return [scheme.rule.header.lower()] if scheme.rule.header else []
    if isinstance(scheme, PublicKey):
        return [scheme.header.lower()]
    return [name.lower() for name in getattr(scheme, "headers", ())]


def masked_headers(fields: Any, credentials: Collection[str], masker: Masker) -> dict[str, str]:
    """Header fields to be stored: what lets somebody in, or signs, is masked. PostgreSQL's JSON holds no NUL."""
    return {
        name: mask_secret(value)
        if name in credentials or any(part in name for part in _CREDENTIALS)
        else masker.text(value).replace("\x00", "")
        for name, value in fields
    }
