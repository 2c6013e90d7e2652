"""Receives requests: verifies, identifies and stores events with their handler runs, and only then acknowledges."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from khotan_cli.errors import KhotanError, SecretMissing
from khotan_cli.runtime.runs.hooks import EventInfo
from khotan_cli.runtime.store.incoming import Stored
from khotan_cli.runtime.webhooks.endpoint import SECRET, InboundEndpoint, KeyReused
from khotan_cli.runtime.webhooks.environment import WebhookEnvironment
from khotan_cli.runtime.webhooks.inbound.group_commit import GroupCommit
from khotan_cli.runtime.webhooks.inbound.identify import events_of
from khotan_cli.runtime.webhooks.request import RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify.challenges import Answer

logger = logging.getLogger("khotan.webhooks")

_REREAD_SECONDS = 1.0


class SignatureInvalid(KhotanError):
    default_code = "signature_invalid"


@dataclass(frozen=True)
class Receipt:
    """The result of a request: a stored event, or the answer to a challenge.

    For several events in one body, `stored` is the first new event, or the first event if none is new.
    """

    stored: Stored | None = None
    answer: Answer | None = None


class Receiver:
    """Receives the requests of wires and ingests."""

    def __init__(self, env: WebhookEnvironment, inbox: GroupCommit) -> None:
        self._env, self._inbox = env, inbox

    async def receive(self, wire: InboundEndpoint, request: WebhookRequest, now: float | None = None) -> Receipt:
        """Verify a request and store its events. An undecodable body is stored with the reason as its `problem`.

        Raises SignatureInvalid; BodyInvalid for an ingest; SecretMissing or StoreError if nothing can be stored.
        """
        if wire.envelope is not None:
            request = replace(request, envelope=wire.envelope)
        challenge = wire.challenge
        if challenge is not None and not challenge.signed:
            answer = challenge.answer(request, await self._env.values(wire))
            if answer is not None:
                return Receipt(answer=answer)
        if request.method not in wire.event_methods:
            raise method_not_allowed(wire.id, request.method, wire.event_methods)
        await self.verify(wire, request, time.time() if now is None else now)
        if challenge is not None and challenge.signed:
            answer = challenge.answer(request, await self._signed_values(wire))
            if answer is not None:
                return Receipt(answer=answer)
        wire.check_body(request)
        # A scheme declares the field it reads. A user's function may compare any field with any variable.
        values = await self._env.values(wire) if wire.verify is not None else {}
        secrets = [line for name, value in values.items() if wire.vars[name].secret for line in value.splitlines()]
        events = [await wire.completed(event, self._env.base) for event in events_of(wire, request, secrets)]
        outcomes = await self._inbox.put_all(events)
        stored = next((outcome for outcome in outcomes if outcome.new), outcomes[0])
        if stored.altered and wire.strict_ids:
            raise KeyReused(
                "The idempotency key was already used with a different body",
                hint="Use a new key for a different record.",
            )
        for event, outcome in zip(events, outcomes, strict=True):
            if outcome.new:
                handlers = tuple(run.handler for run in event.handler_runs)
                info = EventInfo(str(outcome.id), wire.id, event.type, event.remote_id, handlers)
                await self._env.base.hooks.received(info)
        return Receipt(stored)

    async def _signed_values(self, wire: InboundEndpoint) -> dict[str, str]:
        """Return the wire's variables, including the secret that answers a signed challenge."""
        values = dict(await self._env.values(wire))
        if wire.scheme is not None and wire.verify is None:
            values[SECRET] = "\n".join(await self._env.secrets(wire))
        return values

    async def verify(self, wire: InboundEndpoint, request: WebhookRequest, now: float) -> None:
        """Raises SignatureInvalid. If cached secrets do not match, they are read again once."""
        try:
            try:
                await self._verify(wire, request, now, fresh=False)
            except (RequestRejected, SecretMissing):
                if not self._env.read_before(wire, _REREAD_SECONDS):
                    raise
                await self._verify(wire, request, now, fresh=True)
        except RequestRejected as exc:
            logger.warning("Wire %s rejected a request: %s", wire.id, exc)
            raise SignatureInvalid(
                "Invalid signature",
                hint="Check that both sides use the same secret and that the clock is right.",
            ) from None

    async def _verify(self, wire: InboundEndpoint, request: WebhookRequest, now: float, *, fresh: bool) -> None:
        if wire.verify is not None:
            values = await self._env.values(wire, fresh=fresh)
            try:
                accepted = await wire.verify(request, values)
            except Exception as exc:  # the user's code; its message may contain a secret
                raise RequestRejected(f"on_verify raised {type(exc).__name__}") from None
            if accepted is not True:
                raise RequestRejected("on_verify did not return True")
            return
        assert wire.scheme is not None
        wire.scheme.verify(request, await self._env.secrets(wire, fresh=fresh), now)


def method_not_allowed(wire: str, method: str, allowed: Iterable[str]) -> KhotanError:
    allow = sorted(allowed)
    error = KhotanError(
        f"Wire {wire!r} does not accept {method} requests",
        code="method_not_allowed",
        hint=f"Send {' or '.join(allow)}.",
    )
    error.details["allow"] = allow  # RFC 9110 15.5.6
    return error
