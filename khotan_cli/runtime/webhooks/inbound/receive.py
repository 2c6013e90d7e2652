"""Receiving an event: verify, tell what it is, store it with the runs of its handlers, and only then acknowledge."""

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
    """What became of a request: an event that is stored, or the answer to a challenge.

    Of several events in one body, `stored` is the first new one; where none is new, the first.
    """

    stored: Stored | None = None
    answer: Answer | None = None


class Receiver:
    """Takes requests for wires. `wake` is called when there is something for handlers to do."""

    def __init__(self, env: WebhookEnvironment, inbox: GroupCommit) -> None:
        self._env, self._inbox = env, inbox

    async def receive(self, wire: InboundEndpoint, request: WebhookRequest, now: float | None = None) -> Receipt:
        """Verify and store. A body that cannot be decoded is stored too, with the reason as its `problem`.

        Raises SignatureInvalid; BodyInvalid for an ingest; SecretMissing, StoreError where nothing can be stored.
        """
        if wire.envelope is not None:
            request = replace(request, envelope=wire.envelope)
        challenge = wire.challenge
        if challenge is not None and not challenge.signed:
            answer = challenge.answer(request, await self._env.values(wire))
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
        values = await self._env.values(wire) if wire.verify is not None else {}
        secrets = [line for name, value in values.items() if wire.vars[name].secret for line in value.splitlines()]
        events = [await wire.completed(event, self._env.base) for event in events_of(wire, request, secrets)]
        outcomes = await self._inbox.put_all(events)
        stored = next((one for one in outcomes if one.new), outcomes[0])
        if stored.altered and wire.strict_ids:
            raise KeyReused(
                "The idempotency key was used before with another body", hint="Send another record with another key."
            )
        for event, outcome in zip(events, outcomes, strict=True):
            if outcome.new:
                handlers = tuple(one.handler for one in event.handler_runs)
                info = EventInfo(str(outcome.id), wire.id, event.type, event.remote_id, handlers)
                await self._env.base.hooks.received(info)
        return Receipt(stored)

    async def _signed_values(self, wire: InboundEndpoint) -> dict[str, str]:
        """The wire's variables, with the secret that a signed challenge is answered with."""
        values = dict(await self._env.values(wire))
        if wire.scheme is not None and wire.verify is None:
            values[SECRET] = "\n".join(await self._env.secrets(wire))
        return values

    async def verify(self, wire: InboundEndpoint, request: WebhookRequest, now: float) -> None:
        """Raises SignatureInvalid. Where secrets that were read a while ago do not fit, they are read once more."""
        try:
            try:
                await self._verify(wire, request, now, fresh=False)
            except (RequestRejected, SecretMissing):
                if not self._env.read_before(wire, _REREAD_SECONDS):
                    raise
                await self._verify(wire, request, now, fresh=True)
        except RequestRejected as exc:
            logger.warning("Wire %s refused a request: %s", wire.id, exc)
            raise SignatureInvalid(
                "The request is not signed as this endpoint expects",
                hint="Check the secret on both sides, and the clock.",
            ) from None

    async def _verify(self, wire: InboundEndpoint, request: WebhookRequest, now: float, *, fresh: bool) -> None:
        if wire.verify is not None:
            values = await self._env.values(wire, fresh=fresh)
            try:
                accepted = await wire.verify(request, values)
            except Exception as exc:  # the user's code; what it says may hold a secret
                raise RequestRejected(f"on_verify raised {type(exc).__name__}") from None
            if accepted is not True:
                raise RequestRejected("on_verify did not accept it")
            return
        assert wire.scheme is not None
        wire.scheme.verify(request, await self._env.secrets(wire, fresh=fresh), now)


def refused_method(wire: str, method: str, allowed: Iterable[str]) -> KhotanError:
    allow = sorted(allowed)
    error = KhotanError(
        f"Events of wire {wire!r} do not come with {method}",
        code="method_not_allowed",
        hint=f"Send {' or '.join(allow)}.",
    )
    error.details["allow"] = allow  # RFC 9110 15.5.6
    return error
