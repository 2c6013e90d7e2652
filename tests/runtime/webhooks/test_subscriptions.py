"""Subscriptions whose service, or whose code, does not do as expected: none is lost, doubled, or tells a secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from khotan_cli.errors import KhotanError
from khotan_cli.runtime import Plug, SubscribeContext, Subscription, Var, Wire, signatures
from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.store.variables import DatabaseVarStore
from khotan_cli.runtime.webhooks.environment import WebhookEnvironment
from khotan_cli.runtime.webhooks.subscriptions import Subscriptions
from tests.support import migrated

URL = "https://shop.example.test/api/khotan/webhook/shop"
SECRETS = ("whsec_of_the_wire_0123456789", "key_of_the_wire_0123456789")


class Shop(Plug):
    base_url = "http://shop.invalid"


class Service:
    """A service with subscriptions: `alive`, the ids of those that send events. `answer`: what on_subscribe returns besides."""

    def __init__(self, wire: Wire) -> None:
        self.alive: list[str] = []
        self.made = 0
        self.answer: dict[str, Any] = {}
        self.broken = False
        wire.on_subscribe(self.subscribe)
        wire.on_unsubscribe(self.unsubscribe)

    async def subscribe(self, ctx: SubscribeContext) -> Subscription:
        self.made += 1
        self.alive.append(f"hook_{self.made}")
        given = {"remote_id": f"hook_{self.made}", "expires_at": utc_now() + timedelta(hours=1), **self.answer}
        return Subscription(**given)

    async def unsubscribe(self, ctx: SubscribeContext) -> None:
        if self.broken:
            raise RuntimeError(f"the service is down {ctx.secret}")
        assert ctx.remote_id
        self.alive.remove(ctx.remote_id)


@pytest.fixture
def wire() -> Wire:
    return Wire(Shop(name="shop"), verify=signatures.stripe(), vars={"key": Var(secret=True)})


@pytest.fixture
async def webhooks(wire: Wire, sqlite_url: str, tmp_path: Path) -> AsyncIterator[WebhookEnvironment]:
    migrated.upgrade(sqlite_url, tmp_path)
    database = Database(sqlite_url, tmp_path)
    store = DatabaseVarStore(database, Cipher("subscriptions-5f1c0b0d9a4e4f7d8b6a2c3e1f0a9b"))
    host = Environment(database, store, {"shop": wire.plug}, {}, {}, {})
    yield WebhookEnvironment(host, {"shop": wire})
    host.run_queue.close()
    await database.dispose()


async def test_a_renewal_that_subscribes_anew_ends_the_former_subscription(
    wire: Wire, webhooks: WebhookEnvironment
) -> None:
    service, subscriptions = Service(wire), Subscriptions(webhooks)
    await subscriptions.create(wire, URL)
    await subscriptions.renew(wire)
    assert service.alive == ["hook_2"]
    service.answer = {"remote_id": "hook_2"}
    service.alive.clear()  # the service has one subscription per URL, and tells its id again
    await subscriptions.renew(wire)
    assert service.alive == ["hook_3"], "the same id is not ended"


async def test_a_former_subscription_that_cannot_be_ended_is_noted_and_not_renewed_again(
    wire: Wire, webhooks: WebhookEnvironment
) -> None:
    service, subscriptions = Service(wire), Subscriptions(webhooks)
    await subscriptions.create(wire, URL)
    await webhooks.rows.save("shop", {"renew_at": utc_now()})
    service.broken = True
    await subscriptions.renew_due()
    row = await webhooks.rows.get("shop")
    assert row is not None and row.remote_id == "hook_2"
    assert "hook_1" in row.error["message"] and "the service is down" in row.error["message"]
    assert row.renew_at > utc_now() + timedelta(minutes=5), "in good time before its end, not at once"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"expires_at": datetime(2099, 1, 1)}, "time zone"),
        ({"expires_at": "2099-01-01T00:00:00Z"}, "time zone"),
        ({"vars": {"nope": "x"}}, "nope"),
        ({"data": object()}, "data"),
    ],
)
async def test_a_subscription_that_cannot_be_kept_is_ended(
    wire: Wire, webhooks: WebhookEnvironment, answer: dict[str, Any], said: str
) -> None:
    service, subscriptions = Service(wire), Subscriptions(webhooks)
    service.answer = {"secret": "whsec_new", **answer}
    with pytest.raises(KhotanError, match=said):
        await subscriptions.create(wire, URL)
    assert service.made == 1 and service.alive == []
    service.answer = {}
    await subscriptions.create(wire, URL)
    service.answer = answer
    with pytest.raises(KhotanError, match=said):
        await subscriptions.renew(wire)
    assert service.alive == ["hook_2"], "the former one stays"
    assert await webhooks.values(wire, fresh=True) == {}, "nothing is left half written"
    row = await webhooks.rows.get("shop")
    assert row is not None and (row.subscribed, row.remote_id) == (True, "hook_2")


async def test_an_id_that_is_no_text_is_refused(wire: Wire, webhooks: WebhookEnvironment) -> None:
    Service(wire).answer = {"remote_id": 7}
    ended: list[Any] = []

    async def unsubscribe(ctx: SubscribeContext) -> None:
        ended.append(ctx.remote_id)

    wire.on_unsubscribe(unsubscribe)
    with pytest.raises(KhotanError, match="remote_id"):
        await Subscriptions(webhooks).create(wire, URL)
    assert ended == [7]


async def test_a_renewal_that_tells_no_end_is_tried_again(wire: Wire, webhooks: WebhookEnvironment) -> None:
    service, subscriptions = Service(wire), Subscriptions(webhooks)
    told: list[Subscription | None] = [None, Subscription(secret="whsec_new"), Subscription(expires_at=_later())]

    @wire.on_renew
    async def renew(ctx: SubscribeContext) -> Subscription | None:
        return told.pop(0)

    first = await subscriptions.create(wire, URL)
    assert first is not None
    for failures in (1, 2):
        await webhooks.rows.save("shop", {"renew_at": utc_now()})
        await Subscriptions(webhooks).renew_due()
        row = await webhooks.rows.get("shop")
        assert row is not None and "expires_at" in row.error["message"]
        assert (row.expires_at, row.failures, row.remote_id) == (first.expires_at, failures, "hook_1")
        assert utc_now() < row.renew_at < utc_now() + timedelta(minutes=5)
    assert "whsec_new" in (await webhooks.values(wire, fresh=True))["secret"], "what it did tell is kept"
    with pytest.raises(KhotanError, match="expires_at"):
        told.insert(0, None)
        await subscriptions.renew(wire)
    row = await subscriptions.renew(wire)
    assert row is not None and row.error is None and row.expires_at > first.expires_at + timedelta(days=100)
    assert service.alive == ["hook_1"]


def _later() -> datetime:
    return datetime.now(UTC) + timedelta(days=1000)


@pytest.mark.parametrize("stored", [True, False])
async def test_what_goes_wrong_does_not_tell_the_secret(
    wire: Wire, webhooks: WebhookEnvironment, stored: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if stored:
        await webhooks.base.vars.save(wire.owner, dict(zip(("secret", "key"), SECRETS, strict=True)))
    service, subscriptions = Service(wire), Subscriptions(webhooks)
    await subscriptions.create(wire, URL)
    given: list[str] = []

    class Refusal(KhotanError):
        def __init__(self, text: str) -> None:
            super().__init__(text, hint=text, details={"body": text})

    for kind in (ValueError, Refusal):

        async def subscribe(ctx: SubscribeContext, kind: type[Exception] = kind) -> Subscription:
            given[:] = [ctx.secret, *ctx.vars.values()]
            raise kind(f"400: cannot take {given}")

        wire.on_subscribe(subscribe)
        for call in (subscriptions.create(wire, URL), subscriptions.renew(wire)):
            with pytest.raises(KhotanError) as raised:
                await call
            assert len(given[0]) > 20 and "400: cannot take" in raised.value.message
            _tells_none_of(given, str(raised.value), str(raised.value.to_json()))
        await webhooks.rows.save("shop", {"renew_at": utc_now()})
        await Subscriptions(webhooks).renew_due()
        row = await webhooks.rows.get("shop")
        assert row is not None and "400: cannot take" in row.error["message"]
        _tells_none_of(given, str(row.error), caplog.text)
    service.broken = True
    with pytest.raises(KhotanError, match="the service is down") as raised:
        await subscriptions.delete(wire)
    _tells_none_of([*given, *SECRETS], str(raised.value))


def _tells_none_of(secrets: list[str], *texts: str) -> None:
    assert not any(secret in text for secret in secrets for text in texts if len(secret) > 8), texts
