"""Events from real senders: localstripe, each vendor's own library as the signer, a registry that sends until it is heard."""

from __future__ import annotations

import base64
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import slack_sdk.signature
import standardwebhooks
import stripe
import svix.webhooks
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from tests.support.flows import connection
from tests.support.project import Project
from tests.support.services import Service
from tests.support.webhooks import Served, served_app, wait_for, webhook_project

SECRET = "only-for-this-test-0123456789"
KEY = "whsec_" + base64.b64encode(b"only for this test, 24 b").decode()
WIRES = """
from typing import Any

from sqlalchemy import text
from khotan_cli.runtime import Event, Rule, Wire, challenges, signatures
from ..plugs.shop import shop

SCHEMES = {
    "stripe": signatures.stripe(),
    "svix": signatures.svix(),
    "standard": signatures.standard_webhooks(),
    "slack": signatures.slack(),
    "twilio": signatures.twilio(),
}
a = Wire(shop, name="stripe", verify=SCHEMES["stripe"])
b = Wire(shop, name="svix", verify=SCHEMES["svix"], event_type="type")
c = Wire(shop, name="standard", verify=SCHEMES["standard"], event_type="type")
d = Wire(shop, name="slack", verify=SCHEMES["slack"], challenge=challenges.slack())
e = Wire(shop, name="twilio", verify=SCHEMES["twilio"])
registry = Wire(shop, name="registry", verify=signatures.token(header="Authorization", prefix="Bearer "),
                event_type="events.0.action", event_id="events.0.id")


async def keep(event: Event[Any]) -> None:
    async def save(session: Any) -> None:
        values = {"id": f"{event.wire} {event.type} {event.remote_id}"}
        await session.execute(text("INSERT INTO seen (id, amount) VALUES (:id, 1)"), values)

    await event.ctx.write("save", save)


for wire in (a, b, c, d, e, registry):
    wire.catch()(keep)
"""
Sent = tuple[bytes, dict[str, str]]
JSON = {"Content-Type": "application/json"}


def by_stripe(moment: float, url: str) -> Sent:
    body = json.dumps({"id": "evt_1", "object": "event", "type": "invoice.paid"})
    header = stripe.WebhookSignature.generate_signature_header(body, SECRET, timestamp=int(moment))
    return body.encode(), {**JSON, "Stripe-Signature": header}


def by_svix(moment: float, url: str) -> Sent:
    body = json.dumps({"type": "user.created", "data": {"name": "Zoë"}})
    signature = svix.webhooks.Webhook(KEY).sign("msg_1", datetime.fromtimestamp(moment, UTC), body)
    fields = {"svix-id": "msg_1", "svix-timestamp": str(int(moment)), "svix-signature": signature}
    return body.encode(), {**JSON, **fields}


def by_standardwebhooks(moment: float, url: str) -> Sent:
    body = json.dumps({"type": "user.created", "data": {"name": "Zoë"}})
    signature = standardwebhooks.Webhook(KEY).sign("msg_2", datetime.fromtimestamp(moment, UTC), body)
    fields = {"webhook-id": "msg_2", "webhook-timestamp": str(int(moment)), "webhook-signature": signature}
    return body.encode(), {**JSON, **fields}


def by_slack(moment: float, url: str) -> Sent:
    body = json.dumps({"type": "event_callback", "event_id": "Ev1", "event": {"type": "message"}})
    stamp = str(int(moment))
    signature = slack_sdk.signature.SignatureVerifier(SECRET).generate_signature(timestamp=stamp, body=body)
    return body.encode(), {**JSON, "X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature or ""}


def by_twilio(moment: float, url: str) -> Sent:
    form = {"MessageSid": "SM1", "Body": "Grüße & more", "From": "+15550100"}
    signature = RequestValidator(SECRET).compute_signature(url, form)
    fields = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": signature}
    return urlencode(form).encode(), fields


SIGNERS: dict[str, tuple[Callable[[float, str], Sent], str, bool]] = {
    # name of the wire: the signer, the event as it is kept, whether the signature holds a time
    "stripe": (by_stripe, "invoice.paid evt_1", True),
    "svix": (by_svix, "user.created msg_1", True),
    "standard": (by_standardwebhooks, "user.created msg_2", True),
    "slack": (by_slack, "message Ev1", True),
    "twilio": (by_twilio, "", False),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("senders")
    made = webhook_project(folder, f"sqlite:///{folder}/khotan.db", whole=WIRES)
    for name, secret in (("STRIPE", SECRET), ("SVIX", KEY), ("STANDARD", KEY), ("SLACK", SECRET), ("TWILIO", SECRET)):
        made.env[f"SHOP_{name}_WEBHOOK_SECRET"] = secret
    made.env["SHOP_REGISTRY_WEBHOOK_SECRET"] = SECRET
    return made


@pytest.fixture(scope="module")
def app(project: Project) -> Iterator[Served]:
    with served_app(project) as served:
        yield served


def seen(project: Project, like: str) -> list[str]:
    with connection(project.env["DATABASE_URL"]) as run:
        return [row[0] for row in run("SELECT id FROM seen WHERE id LIKE $ ORDER BY id", like)]


@pytest.mark.parametrize("vendor", SIGNERS)
def test_what_the_vendors_library_signs_is_accepted_and_what_it_did_not_is_refused(
    app: Served, project: Project, vendor: str
) -> None:
    signer, kept, timed = SIGNERS[vendor]
    url = f"{app.url}/api/khotan/webhook/shop/{vendor}"
    body, fields = signer(time.time(), url)
    assert httpx.post(url, content=body, headers=fields).status_code == 202
    if kept:
        assert wait_for(lambda: seen(project, f"shop/{vendor} %"), "the event") == [f"shop/{vendor} {kept}"]
    else:
        assert len(wait_for(lambda: seen(project, f"shop/{vendor} %"), "the event")) == 1
    changed = body.replace(b"1", b"2").replace(b"Gr%C3%BC", b"Grue").replace(b"Zo", b"Zu").replace(b"created", b"gone")
    assert changed != body
    assert httpx.post(url, content=changed, headers=fields).status_code == 401
    if timed:
        old, stale = signer(time.time() - 3600, url)
        assert httpx.post(url, content=old, headers=stale).status_code == 401


@pytest.mark.xdist_group("localstripe")
def test_localstripes_own_webhooks_arrive(app: Served, project: Project, localstripe: Service) -> None:
    hook = {"url": f"{app.url}/api/khotan/webhook/shop/stripe", "secret": SECRET}
    with httpx.Client(base_url=localstripe.url, trust_env=False, auth=("sk_test_1", "")) as client:
        client.post("/_config/webhooks/khotan", json=hook).raise_for_status()
        made = [client.post("/v1/customers", data={"email": f"c{n}@example.com"}).json()["id"] for n in range(3)]
    found = wait_for(lambda: len(s := seen(project, "shop/stripe customer.created %")) == 3 and s, "three customers")
    assert len(set(found)) == 3
    stored = project.khotan("wire", "events", "shop/stripe", "--type", "customer.created").json["items"]
    bodies = [project.khotan("wire", "show", event["id"]).json["json"] for event in stored]
    assert {body["data"]["object"]["id"] for body in bodies} == set(made)


class Registry(threading.Thread):
    """Sends as a container registry does: one envelope after the other, each again after a pause until it is answered 2xx."""

    def __init__(self, url: Callable[[], str], count: int) -> None:
        super().__init__(daemon=True)
        self._url, self._count = url, count
        self.attempts: queue.Queue[int] = queue.Queue()
        self.tries = 0

    def run(self) -> None:
        fields = {
            "Content-Type": "application/vnd.docker.distribution.events.v1+json",
            "Authorization": f"Bearer {SECRET}",
        }
        for number in range(self._count):
            target: dict[str, Any] = {"repository": f"library/{number}", "tag": "latest"}
            envelope = {"events": [{"id": f"push-{number:02d}", "action": "push", "target": target}]}
            while not self._heard(json.dumps(envelope).encode(), fields):
                time.sleep(0.05)  # the registry's own backoff
            self.attempts.put(number)

    def _heard(self, body: bytes, fields: dict[str, str]) -> bool:
        self.tries += 1
        try:
            return httpx.post(self._url(), content=body, headers=fields, timeout=60).is_success
        except httpx.TransportError:
            return False


def test_a_registry_that_sends_until_it_is_heard_is_heard_once(tmp_path: Path, project: Project) -> None:
    count, path = 30, "/api/khotan/webhook/shop/registry"
    running = Served(project)
    try:
        registry = Registry(lambda: running.url + path, count)
        registry.start()
        for stop_after in (5, 15):
            while registry.attempts.get(timeout=120) < stop_after:
                pass
            running.kill()
            running = Served(project)
        registry.join(200)
        assert not registry.is_alive()
        found = wait_for(lambda: len(s := seen(project, "shop/registry %")) >= count and s, "thirty pushes")
        assert found == [f"shop/registry push push-{number:02d}" for number in range(count)]
        assert registry.tries > count  # it was not heard at once
    finally:
        running.kill()
