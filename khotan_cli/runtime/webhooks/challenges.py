"""How a service asks whether an endpoint is ours before it sends events there: `Wire(…, challenge=challenges.meta())`."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson

from khotan_cli.runtime.webhooks.request import WebhookRequest

VERIFY_TOKEN = "verify_token"


@dataclass(frozen=True)
class Answer:
    """What a request gets: a status, a body and its type."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Challenge(Protocol):
    @property
    def signed(self) -> bool:
        """Whether the challenge is signed as events are: it is answered only after verification."""
        ...

    @property
    def methods(self) -> frozenset[str]: ...

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        """The answer, None where the request is no challenge. values: the wire's variables."""
        ...


@dataclass(frozen=True)
class SlackChallenge:
    signed: bool = True
    methods: frozenset[str] = frozenset({"POST"})

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        if b"url_verification" not in request.body:
            return None
        try:
            asked = request.json
        except ValueError:
            return None
        if not isinstance(asked, dict) or asked.get("type") != "url_verification":
            return None
        return Answer(200, orjson.dumps({"challenge": str(asked.get("challenge", ""))}))


@dataclass(frozen=True)
class MetaChallenge:
    signed: bool = False
    methods: frozenset[str] = frozenset({"GET"})

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        if request.method != "GET" or request.query.get("hub.mode") != "subscribe":
            return None
        expected, given = values.get(VERIFY_TOKEN, ""), request.query.get("hub.verify_token", "")
        if not expected or not hmac.compare_digest(expected.encode(), given.encode()):
            return Answer(403, b'{"ok":false,"error":"verify_token_invalid","message":"The verify token is not ours"}')
        return Answer(200, request.query.get("hub.challenge", "").encode(), "text/plain")


@dataclass(frozen=True)
class GraphChallenge:
    signed: bool = False
    methods: frozenset[str] = frozenset({"POST", "GET"})

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        token = request.query.get("validationToken")
        return None if token is None else Answer(200, token.encode(), "text/plain")


def slack() -> SlackChallenge:
    """`{"type": "url_verification", "challenge": …}`, signed (docs.slack.dev/reference/events/url_verification)."""
    return SlackChallenge()


def meta() -> MetaChallenge:
    """GET with hub.challenge, and hub.verify_token, which must be the wire's variable `verify_token`
    (developers.facebook.com/docs/graph-api/webhooks)."""
    return MetaChallenge()


def microsoft_graph() -> GraphChallenge:
    """A validationToken in the query, sent back as text (learn.microsoft.com/graph/change-notifications-delivery-webhooks)."""
    return GraphChallenge()
