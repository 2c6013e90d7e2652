"""Challenges: requests by which a service validates an endpoint. `Wire(…, challenge=challenges.meta())`."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from khotan_cli.runtime.webhooks.request import WebhookRequest

VERIFY_TOKEN = "verify_token"


@dataclass(frozen=True)
class Answer:
    """The HTTP response to a challenge: status, body and content type."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Challenge(Protocol):
    @property
    def signed(self) -> bool:
        """Whether the challenge is signed like an event, and is answered only after verification."""
        ...

    @property
    def methods(self) -> frozenset[str]: ...

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        """Return the response, or None if the request is not a challenge.

        values: the wire's variables. For signed challenges, `secret` holds the signing secrets, one per line.
        """
        ...


@dataclass(frozen=True)
class SlackChallenge:
    signed: bool = True
    methods: frozenset[str] = frozenset({"POST"})

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        if b"url_verification" not in request.body:
            return None
        try:
            document = request.json
        except ValueError:
            return None
        if not isinstance(document, dict) or document.get("type") != "url_verification":
            return None
        return Answer(200, orjson.dumps({"challenge": str(document.get("challenge", ""))}))


@dataclass(frozen=True)
class MetaChallenge:
    signed: bool = False
    methods: frozenset[str] = frozenset({"GET"})

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        if request.method != "GET" or request.query.get("hub.mode") != "subscribe":
            return None
        expected, received = values.get(VERIFY_TOKEN, ""), request.query.get("hub.verify_token", "")
        if not expected or not hmac.compare_digest(expected.encode(), received.encode()):
            return Answer(403, b'{"ok":false,"error":"verify_token_invalid","message":"Invalid verify token"}')
        return Answer(200, request.query.get("hub.challenge", "").encode(), "text/plain")


@dataclass(frozen=True)
class GraphChallenge:
    signed: bool = False
    methods: frozenset[str] = frozenset({"POST", "GET"})

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        token = request.query.get("validationToken")
        return None if token is None else Answer(200, token.encode(), "text/plain")


@dataclass(frozen=True)
class DiscordPing:
    signed: bool = True
    methods: frozenset[str] = frozenset({"POST"})

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        document = _document(request)
        kind = document.get("type")
        if isinstance(kind, bool) or "event" in document or "data" in document:
            return None
        if kind == 1:
            return Answer(200, b'{"type":1}')
        return Answer(204, b"") if kind == 0 else None


@dataclass(frozen=True)
class ZoomChallenge:
    signed: bool = True
    methods: frozenset[str] = frozenset({"POST"})

    def answer(self, request: WebhookRequest, values: Mapping[str, str]) -> Answer | None:
        document = _document(request)
        payload = document.get("payload")
        if document.get("event") != "endpoint.url_validation" or not isinstance(payload, dict):
            return None
        token = str(payload.get("plainToken", ""))
        secret = next(iter(values.get("secret", "").splitlines()), "")
        encrypted = hmac.new(secret.encode(), token.encode(), hashlib.sha256).hexdigest()
        return Answer(200, orjson.dumps({"plainToken": token, "encryptedToken": encrypted}))


def _document(request: WebhookRequest) -> Mapping[str, Any]:
    """Return the JSON object in the body, or an empty dict."""
    try:
        document = request.json
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def slack() -> SlackChallenge:
    """`{"type": "url_verification", "challenge": …}`, signed (docs.slack.dev/reference/events/url_verification)."""
    return SlackChallenge()


def meta() -> MetaChallenge:
    """GET with hub.challenge, and hub.verify_token, which must be the wire's variable `verify_token`
    (developers.facebook.com/docs/graph-api/webhooks)."""
    return MetaChallenge()


def microsoft_graph() -> GraphChallenge:
    """A validationToken in the query, returned as text (learn.microsoft.com/graph/change-notifications-delivery-webhooks)."""
    return GraphChallenge()


def discord() -> DiscordPing:
    """PING: type 1 of an interaction is answered with type 1, type 0 of webhook events with 204
    (discord.com/developers/docs, Interactions overview and Webhook Events)."""
    return DiscordPing()


def zoom() -> ZoomChallenge:
    """`endpoint.url_validation`: plainToken, and its HMAC-SHA256 with the secret token
    (developers.zoom.us/docs/api/webhooks, Validate your webhook endpoint)."""
    return ZoomChallenge()
