"""`khotan wire`, in-process and against a server: set up, look, send, replay."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.flows import connection, worker
from tests.support.loopback import Answer, Asked, as_json, threaded_loopback
from tests.support.project import Project
from tests.support.terminal import at_terminal
from tests.support.webhooks import SIGNING_SECRET, order, send, served_app, wait_for, webhook_project

MORE = """
@wire.pass_to(chat, "order.paid")
async def notify(event: Event[Any]) -> None:
    await chat.send({"text": f"order {event.data['id']}"})


@wire.catch("fails", retry=Retry(attempts=2, backoff=0.05))
async def fails(event: Event[Any]) -> None:
    raise ValueError("no " + str(event.data.get("why")))
"""
MANAGED = '''
from datetime import datetime
from typing import Any

from khotan_cli.runtime import Event, SubscribeContext, Subscription, Wire, signatures
from ..plugs.shop import shop

wire = Wire(shop, name="orders", events=["order.paid"], verify=signatures.stripe(), renew_before=60)


async def _made(path: str, ctx: SubscribeContext) -> Subscription:
    """What the service answers."""
    body = {"url": ctx.callback_url, "events": ctx.events, "id": ctx.remote_id, "data": ctx.data}
    made: Any = await shop.post(path, body=body)
    ends = datetime.fromisoformat(made["expires"])
    return Subscription(remote_id=made["id"], secret=made["secret"], expires_at=ends, data={"etag": "e1"})


@wire.on_subscribe
async def subscribe(ctx: SubscribeContext) -> Subscription:
    return await _made("/hooks", ctx)


@wire.on_renew
async def renew(ctx: SubscribeContext) -> Subscription:
    return await _made("/hooks/renew", ctx)


@wire.on_unsubscribe
async def unsubscribe(ctx: SubscribeContext) -> None:
    await shop.post("/hooks/delete", body={"id": ctx.remote_id})


@wire.catch()
async def anything(event: Event[Any]) -> None:
    """Take note."""
'''


@dataclass
class Service:
    """A service with subscriptions: what it was asked, and for how many seconds it grants one."""

    lifetime: float = 3600.0
    asked: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    credentials: list[str] = field(default_factory=list[str])
    broken: bool = False

    async def __call__(self, asked: Asked) -> Answer:
        self.asked.append((asked.path, asked.json()))
        self.credentials.append(asked.headers.get("authorization", ""))
        if self.broken:
            return as_json({"error": "no"}, 500)
        ends = datetime.now(UTC) + timedelta(seconds=self.lifetime)
        return as_json(
            {"id": f"hook_{len(self.asked)}", "secret": f"whsec_{len(self.asked)}", "expires": ends.isoformat()}
        )

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    made = Service()
    with threaded_loopback(made) as served:
        yield made, served.url


@pytest.fixture
def project(service: tuple[Service, str], tmp_path: Path) -> Project:
    return webhook_project(tmp_path, f"sqlite:///{tmp_path}/khotan.db", base_url=service[1], wire=MORE)


def test_send_signs_receives_and_shows_what_each_handler_did(project: Project, service: tuple[Service, str]) -> None:
    assert project.khotan("vars", "chat", "set", "token", "--stdin", stdin="chat-token-0123").code == 0
    done = project.khotan("wire", "send", "shop", "order.paid", "--body", '{"amount": 7}')
    assert done.code == 0, done.stdout
    assert done.json["status"] == "completed"
    assert {run["handler"]: run["status"] for run in done.json["runs"]} == {
        "shop.record": "completed",
        "shop.notify": "completed",
    }
    assert (service[0].paths(), service[0].credentials) == (["/chat"], ["Bearer chat-token-0123"])
    with connection(project.env["DATABASE_URL"]) as run:
        assert run("SELECT amount FROM seen") == [(7,)]
    text = project.khotan("wire", "send", "shop", "order.paid", "--body", '{"amount": 8}', json_mode=False)
    assert "✓ shop.record: completed" in text.stdout
    assert SIGNING_SECRET not in done.stdout + text.stdout + done.stderr
    (project.folder / "event.json").write_text('{"amount": 9}')
    for body in ("@event.json", "event.json"):
        assert project.khotan("wire", "send", "shop", "order.paid", "--body", body).json["json"]["amount"] == 9


def test_one_that_fails_is_shown_listed_and_replayed(project: Project) -> None:
    failed = project.khotan("wire", "send", "shop", "fails", "--body", '{"why": "way"}')
    assert (failed.code, failed.json["error"]) == (1, "run_failed")
    assert failed.json["message"] == "shop.fails failed and will be retried: ValueError: no way"
    event = failed.json["event"]["id"]
    url = project.env["DATABASE_URL"]
    with worker(project) as running:
        wait_for(lambda: _statuses(url, "fails") == ["failed"], "the second try")
        running.stop()
    listed = project.khotan("wire", "events", "shop", "--status", "failed")
    assert [item["id"] for item in listed.json["items"]] == [event]
    assert project.khotan("wire", "events", "--status", "completed").json["total"] == 0
    assert project.khotan("wire", "events", "--since", "2099-01-01").json["total"] == 0
    shown = project.khotan("wire", "show", event).json
    assert shown["json"]["why"] == "way" and "••••" in shown["headers"]["stripe-signature"]
    again = project.khotan("wire", "replay", "--failed", "--since", "1h")
    assert len(again.json["runs"]) == 1 and again.json["worker"] is False
    assert "wait" in again.json["message"] and again.json["next"] == ["khotan worker"]
    assert project.khotan("wire", "replay", "--failed").json["runs"] == [], "what was replayed is not replayed twice"
    source = Path(project.folder, "khotan", "wires", "shop.py")
    source.write_text(source.read_text().replace('raise ValueError("no "', 'str("now yes"'))
    fixed = project.khotan("wire", "replay", event, "--wait")
    assert fixed.code == 0, fixed.stdout
    statuses = _statuses(url, "fails")
    assert statuses.count("failed") == 1 and set(statuses) == {"completed", "failed"}, "a run that waits is not doubled"
    table = project.khotan("wire", "events", json_mode=False).stdout
    assert table.count("fails: ") == 1 and "fails: completed" in table, "of the runs of a handler the last one counts"
    assert "completed" in project.khotan("wire", "show", event, json_mode=False).stdout


def _statuses(url: str, handler: str) -> list[str]:
    with connection(url) as run:
        return [status for (status,) in run("SELECT status FROM khotan_runs WHERE flow = $", f"shop.{handler}")]


def test_what_is_disabled_waits_and_says_so(project: Project) -> None:
    project.khotan("wire", "disable", "shop.fails")
    waits = project.khotan("wire", "send", "shop", "fails", "--timeout", "60")
    assert (waits.code, waits.json["error"]) == (1, "wire_disabled")
    assert waits.json["message"] == f"shop.fails is disabled: event {waits.json['event']['id']} is stored and waits"
    assert waits.json["next"] == ["khotan wire enable shop.fails"]
    project.khotan("wire", "disable", "shop")
    waits = project.khotan("wire", "send", "shop", "order.odd", "--timeout", "60")
    assert (waits.json["error"], waits.json["next"]) == ("wire_disabled", ["khotan wire enable shop"])


def test_a_duplicate_runs_nothing_and_says_so(project: Project) -> None:
    words = ("wire", "send", "shop", "fails", "--body", '{"id": "evt_1"}')
    assert project.khotan(*words).json["error"] == "run_failed"
    again = project.khotan(*words)
    assert (again.code, again.json["duplicate"], len(again.json["runs"])) == (0, True, 1), again.stdout
    text = project.khotan(*words, json_mode=False).stdout
    assert "Event 1 is a duplicate: shop ran nothing" in text and "accepted" not in text


def test_a_challenge_is_told_from_an_event(project: Project) -> None:
    source = Path(project.folder, "khotan", "wires", "shop.py")
    slack = "Wire(chat, verify=signatures.slack(), challenge=challenges.slack())"
    source.write_text(f"{source.read_text()}\n\nslack = {slack}\n")
    body = '{"type": "url_verification", "challenge": "c"}'
    env = {"CHAT_WEBHOOK_SECRET": "slack-secret"}
    done = project.khotan("wire", "send", "chat", "url_verification", "--body", body, env=env)
    assert (done.code, done.json["message"]) == (1, "chat treated the request as a challenge"), done.stdout


def test_an_event_is_listed_by_the_status_that_it_is_shown_with(project: Project) -> None:
    with served_app(project, KHOTAN_ENGINE="off") as app:
        assert send(app.url, order(1)).status_code == 202
    listed = project.khotan("wire", "events").json["items"]
    assert [event["status"] for event in listed] == ["pending"]
    assert project.khotan("wire", "events", "--status", "pending").json["items"] == listed
    for wrong, words in (("paked", "Did you mean 'parked'?"), ("waiting", "pending, running")):
        refused = project.khotan("wire", "events", "--status", wrong).json
        assert words in refused["hint"] and refused["message"] == f"Unknown status {wrong!r}"


def test_an_event_that_is_not_as_declared_is_kept_and_can_be_replayed(project: Project) -> None:
    done = project.khotan("wire", "send", "shop", "order.odd", "--body", '{"amount": "many"}')
    assert done.code == 1 and "amount" in done.json["message"]
    (run,) = done.json["event"]["runs"]
    assert run["error"]["error"] == "event_invalid" and run["failures"] == 0
    shown = project.khotan("flows", "show", run["id"]).json
    assert (shown["counts"]["failed"], shown["rejects"], shown["kind"]) == (1, 1, "catch")


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["status", "shp"], 2, "unknown_wire"),
        (["disable", "shop.recrod"], 2, "unknown_handler"),
        (["replay", "99"], 2, "unknown_event"),
        (["replay", "nonsense"], 2, "unknown_event"),
        (["replay"], 2, "invalid_input"),
        (["replay", "1", "--failed"], 2, "invalid_input"),
        (["events", "--since", "soon"], 2, "invalid_input"),
        (["events", "--status", "odd"], 2, "invalid_input"),
        (["events", "--status", "paked"], 2, "invalid_input"),
        (["create", "shop"], 2, "public_url_missing"),
        (["renew", "shop"], 1, "wire_not_managed"),
        (["delete", "shop", "--yes"], 1, "wire_not_subscribed"),
        (["vars", "shop", "set", "other=1"], 2, "unknown_var"),
        (["vars", "shop", "set", "secret="], 2, "empty_value"),
        (["vars", "shop", "sit"], 2, "invalid_input"),
        (["vars", "shop", "set", "secret"], 2, "no_terminal"),
        (["vars", "shop", "set", "secrt"], 2, "unknown_var"),
        (["vars", "shop", "set", "secret", "--stdin"], 2, "empty_value"),
        (["vars", "shop", "set", "secret=1", "--stdin"], 2, "invalid_input"),
        (["send", "shop", "x", "--body", "{"], 2, "invalid_json"),
        (["send", "shop", "x", "--body", "event.json"], 2, "invalid_json"),
        (["send", "shop", "x", "--body", "[1]"], 2, "invalid_input"),
    ],
)
def test_mistakes_have_a_code_and_a_hint(project: Project, words: list[str], code: int, error: str) -> None:
    done = project.khotan("wire", *words)
    assert (done.code, done.json["error"]) == (code, error), done.stdout
    assert done.json["hint"]


def test_a_secret_is_asked_for_hidden_and_one_that_was_typed_openly_is_warned_of(
    project: Project, tmp_path: Path
) -> None:
    typed = project.khotan("wire", "vars", "shop", "set", "secret=whsec_typed_openly_0001")
    assert typed.code == 0 and "history" in typed.stderr and "0001" not in typed.stdout + typed.stderr
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in project.env.items()))
    words = [sys.executable, "-m", "khotan_cli", "wire", "vars", "shop", "set", "secret"]
    screen, code = at_terminal(words, tmp_path, [("shop.secret", "whsec_asked_hidden_0002\n")], hidden=True)
    assert code == 0 and "Stored secret of shop" in screen and "asked_hidden" not in screen, screen
    (var,) = project.khotan("wire", "vars", "shop").json["items"]
    assert (var["masked"], var["source"]) == ("••••0002", "database")
    screen, code = at_terminal([*words, "--stdin"], tmp_path, [("Ctrl-D", "whsec_a_0003\nwhsec_b_0004\n\x04")])
    assert code == 0 and "Stored secret of shop" in screen, screen


def test_a_wire_set_up_by_hand(project: Project) -> None:
    made = project.khotan("wire", "create", "shop", "--public-url", "https://shop.example.com/")
    assert made.json["callbackUrl"] == "https://shop.example.com/api/khotan/webhook/shop"
    assert made.json["subscribed"] is None and made.json["managed"] is False, "khotan cannot know"
    assert project.khotan("wire", "renew", "shop").json["error"] == "wire_not_managed"
    listed = project.khotan("wire", "list", json_mode=False)
    assert "shop" in listed.stdout and "stripe" in listed.stdout and "manual" in listed.stdout
    text = project.khotan("wire", "status", "shop", json_mode=False).stdout
    assert "manual" in text and "https://shop.example.com/api" in text and "subscribed" not in listed.stdout + text
    status = project.khotan("wire", "status", "shop").json
    assert status["vars"][0] | {"label": ""} == {
        "key": "secret",
        "label": "",
        "secret": True,
        "set": True,
        "source": "environment",
        "env": "SHOP_WEBHOOK_SECRET",
        "masked": "••••6789",
    }
    text = project.khotan("wire", "delete", "shop", "--yes", json_mode=False).stdout
    assert "in the service yourself" in " ".join(text.split())
    assert project.khotan("wire", "status", "shop").json["callbackUrl"] is None
    again = project.khotan("wire", "delete", "shop", "--yes").json
    assert again["error"] == "wire_not_subscribed" and "at the service" in again["hint"]


@pytest.mark.timeout(90)
def test_a_managed_wire_subscribes_renews_before_its_end_and_unsubscribes(
    service: tuple[Service, str], database_url: str, tmp_path: Path
) -> None:
    known, base_url = service
    project = webhook_project(tmp_path, database_url, base_url=base_url, whole=MANAGED)
    project.env["KHOTAN_PUBLIC_URL"] = "https://shop.example.com"
    known.lifetime = 6.0
    made = project.khotan("wire", "create", "shop/orders")
    assert made.code == 0, made.stdout
    assert made.json["remoteId"] == "hook_1" and made.json["expiresAt"]
    assert known.asked[0][1]["url"] == "https://shop.example.com/api/khotan/webhook/shop/orders"
    with served_app(project) as app:
        path = "/api/khotan/webhook/shop/orders"
        with connection(database_url) as run:
            assert "whsec" not in str(run("SELECT * FROM khotan_vars")), "the secret is stored encrypted"
        assert send(app.url, order(1), path, secret="whsec_1").status_code == 202, "the secret that the service chose"
        wait_for(lambda: "/hooks/renew" in known.paths(), "a renewal")
        renewal = next(body for asked, body in known.asked if asked == "/hooks/renew")
        assert (renewal["id"], renewal["data"]) == ("hook_1", {"etag": "e1"})
        renewed = f"whsec_{len(known.asked)}"
        wait_for(lambda: send(app.url, order(2), path, secret=renewed).status_code == 202, "the renewed secret")
        assert send(app.url, order(3), path, secret="whsec_1").status_code == 202, (
            "what is under way has the former one"
        )
        known.broken = True
        wait_for(lambda: project.khotan("wire", "status", "shop/orders").json["error"], "a renewal that fails")
        known.broken = False
    assert project.khotan("wire", "renew", "shop/orders").json["error"] is None
    assert project.khotan("wire", "delete", "shop/orders", "--yes").code == 0
    assert known.paths()[-1] == "/hooks/delete"
    with connection(database_url) as run:
        stored = json.dumps([[str(value) for value in row] for row in run("SELECT * FROM khotan_wires")])
        assert "whsec" not in stored
        assert run("SELECT key FROM khotan_vars") == []


def test_over_http_as_in_process(project: Project) -> None:
    with served_app(project, KHOTAN_DEBUG="1") as app:
        project.url = app.url
        done = project.khotan("wire", "send", "shop", "order.paid", "--body", '{"amount": 1}')
        assert done.code == 0, done.stdout
        assert project.khotan("wire", "list").json["items"][0]["events"] == 1
        assert project.khotan("wire", "disable", "shop").json["enabled"] is False
