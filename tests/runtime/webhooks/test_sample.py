"""Made-up events are what the wire's own scheme, challenge and rules accept."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from khotan_cli.errors import UsageError
from khotan_cli.runtime import Plug, Wire, signatures
from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.variables import DatabaseVarStore
from khotan_cli.runtime.webhooks.environment import WebhookEnvironment
from khotan_cli.runtime.webhooks.request import Headers, RequestRejected, WebhookRequest
from khotan_cli.runtime.webhooks.sample import signed_sample
from khotan_cli.runtime.webhooks.verify.locator import Rule
from khotan_cli.runtime.webhooks.verify.schemes import Scheme
from tests.support import migrated

BASE = "https://shop.example.test/api/khotan"


class Shop(Plug):
    base_url = "http://shop.invalid"


shop = Shop(name="shop")


@pytest.fixture
async def webhooks(sqlite_url: str, tmp_path: Path) -> AsyncIterator[WebhookEnvironment]:
    migrated.upgrade(sqlite_url, tmp_path)
    database = Database(sqlite_url, tmp_path)
    store = DatabaseVarStore(database, Cipher("samples-only-5f1c0b0d9a4e4f7d8b6a2c3e1f0a9b8c"))
    host = Environment(database, store, {"shop": shop}, {}, {}, {})
    yield WebhookEnvironment(host, {})
    host.run_queue.close()
    await database.dispose()


@pytest.mark.parametrize(
    "scheme",
    [
        signatures.stripe(),
        signatures.github(),
        signatures.shopify(),
        signatures.slack(),
        signatures.twilio(),
        signatures.standard_webhooks(),
        signatures.svix(),
        signatures.hmac(header="X-Sig", content="{method} {url} {body}"),
        signatures.linear(),
        signatures.hmac(header="X-Sig", timestamp_field="meta.at", timestamp_format="iso"),
        signatures.token(header="X-Gitlab-Token"),
        signatures.token(query="key"),
        signatures.token(json="value.0.clientState"),
    ],
    ids=lambda scheme: f"{scheme.name}-{getattr(scheme, 'rule', '')}",
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_sample_is_accepted_and_a_forged_one_is_not(
    webhooks: WebhookEnvironment, scheme: Scheme, method: str
) -> None:
    secret = scheme.make_secret()
    wire = Wire(shop, verify=scheme, methods=[method], event_id=Rule(header="X-Id"))
    await webhooks.base.vars.save(wire.owner, {"secret": secret})
    made = await _request(webhooks, wire, {"amount": 7, "note": "ünd"})
    scheme.verify(made, [secret], time.time())
    assert made.method == method
    assert (wire.type_rule is None) or wire.type_rule.find(made) == "order.paid"
    assert wire.id_rule is not None and (wire.id_rule.find(made) or "").startswith("evt_")
    if made.form:
        assert dict(made.form) == {"EventType": "order.paid", "amount": "7", "note": "ünd"}
    else:
        assert made.json["amount"] == 7
    forged = await _request(webhooks, wire, {}, forged=True)
    with pytest.raises(RequestRejected):
        scheme.verify(forged, [secret], time.time())


async def test_what_is_in_the_body_already_stays(webhooks: WebhookEnvironment) -> None:
    wire = Wire(shop, verify=signatures.unsigned(), event_type="data.0.type", event_id="id")
    made = await _request(webhooks, wire, {"id": "mine", "data": [{"type": "own"}]})
    assert made.json == {"id": "mine", "data": [{"type": "own"}]}
    made = await _request(webhooks, wire, {"data": {"not": "a list"}})
    assert made.json["data"] == {"not": "a list", "0": {"type": "order.paid"}}
    assert (await _request(webhooks, wire, None)).json["data"] == [{"type": "order.paid"}]


@pytest.mark.parametrize(
    ("rules", "body"),
    [
        ({"event_type": "type"}, [1]),
        ({"event_type": "type"}, "text"),
        ({"event_type": "data.type"}, {"data": 7}),
        ({"event_type": "type"}, {"type": {"of": "what"}}),
        ({"event_type": Rule(header="X-Type"), "event_id": "id"}, [1]),
        ({"event_type": Rule(form="EventType")}, [1]),
    ],
)
async def test_a_body_without_room_for_type_or_id_is_refused(
    webhooks: WebhookEnvironment, rules: dict[str, Any], body: Any
) -> None:
    wire = Wire(shop, verify=signatures.unsigned(), **rules)
    with pytest.raises(UsageError, match="cannot be set"):
        await _request(webhooks, wire, body)


async def test_a_body_of_any_kind_will_do_where_nothing_goes_into_it(webhooks: WebhookEnvironment) -> None:
    wire = Wire(shop, verify=signatures.unsigned(), event_type=Rule(header="X-Type"), event_id=Rule(header="X-Id"))
    assert (await _request(webhooks, wire, [1])).json == [1]
    wire = Wire(shop, verify=signatures.unsigned(), event_type=Rule(header="X-Type"), event_id="0.number")
    assert (await _request(webhooks, wire, [{"number": 7}])).json == [{"number": 7}]


async def _request(webhooks: WebhookEnvironment, wire: Wire, body: Any, *, forged: bool = False) -> WebhookRequest:
    made = await signed_sample(webhooks, wire, "order.paid", body, BASE, forged=forged)
    return WebhookRequest(made["method"], BASE + made["path"], Headers(made["headers"]), base64.b64decode(made["body"]))
