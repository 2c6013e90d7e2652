"""Requests that the vendors' own libraries signed, and the vendors' verdicts on them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from khotan_cli.runtime.webhooks.request import Headers, RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.verify import signatures
from khotan_cli.runtime.webhooks.verify.schemes import Scheme
from tests.support.services import SHARED
from tests.support.vectors import VECTORS

FILES: dict[str, str] = {
    "stripe.json": "stripe",
    "stripe-node.json": "stripe",
    "localstripe.live.json": "stripe",
    "github.json": "github",
    "shopify.json": "shopify",
    "slack.json": "slack",
    "standardwebhooks.json": "standard_webhooks",
    "svix.json": "svix",
    "twilio.json": "twilio",
}


def accepted(name: str, request: WebhookRequest, secret: str, now: float) -> bool:
    scheme: Scheme = getattr(signatures, name)()
    try:
        scheme.verify(request, [secret], now)
    except RequestRejected:
        return False
    return True


NAMES = [(name, vector.id) for name, made in VECTORS.items() for vector in made(86_400)]


@pytest.mark.parametrize(("name", "case"), NAMES, ids=[f"{name}-{case}" for name, case in NAMES])
def test_a_request_gets_the_verdict_of_its_vendor(name: str, case: str) -> None:
    vector = next(vector for vector in VECTORS[name](int(time.time())) if vector.id == case)
    request = WebhookRequest("POST", vector.url, Headers(vector.headers), vector.body)
    assert accepted(name, request, vector.secret, vector.now) == vector.valid
    if vector.vendor is not None:
        assert vector.vendor() == vector.valid, "the vendor's library says the opposite"


def stored() -> list[Any]:
    """The vectors beside the repository, where there are any."""
    return [
        pytest.param(FILES[file.name], vector, id=vector["id"])
        for file in sorted((SHARED / "vectors").glob("*.json"))
        for vector in json.loads(file.read_text())["vectors"]
        if vector["expect"] != "either"
    ]


if stored():

    @pytest.mark.parametrize(("name", "vector"), stored())
    def test_a_stored_vector_gets_its_verdict(name: str, vector: dict[str, Any]) -> None:
        body = base64.b64decode(vector["body_b64"])
        request = WebhookRequest(vector["method"], vector["url"], Headers(vector["headers"]), body)
        assert accepted(name, request, vector["secret"], vector["now"]) == (vector["expect"] == "valid")
