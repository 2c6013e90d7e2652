"""The management API as it is served: who gets in, what errors look like, what is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from khotan_cli.client import CliSignature
from khotan_cli.errors import AppImportError, ConfigError
from khotan_cli.request_signing import Verifier, sign
from khotan_cli.runtime.registry import Registry
from khotan_cli.runtime.store import migrate
from khotan_cli.settings import Settings
from tests.support.loopback import Answer, Asked, as_json, loopback
from tests.support.project import SECRET

Make = Callable[..., Any]


@asynccontextmanager
async def served(app: FastAPI, auth: httpx.Auth | None = None) -> AsyncIterator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app.test", auth=auth) as client:
            yield client


API = "/api/khotan"
JSON = {"Content-Type": "application/json"}
GUARDED = [
    ("GET", "/openapi.json"),
    ("GET", "/plugs"),
    ("GET", "/plugs/shop"),
    ("PATCH", "/plugs/shop"),
    ("GET", "/variables"),
    ("GET", "/variables/shop"),
    ("POST", "/variables/shop"),
    ("DELETE", "/variables/shop"),
    ("POST", "/variables/rotate"),
    ("GET", "/debug"),
    ("GET", "/debug/shop"),
    ("POST", "/debug/shop"),
    ("POST", "/plugs/shop/oauth/start"),
    ("POST", "/plugs/shop/oauth/finish"),
]


async def test_everything_but_health_is_denied_by_default(make: Make) -> None:
    async with served(make().asgi()) as client:
        for method, path in GUARDED:
            answer = await client.request(method, API + path, json={})
            assert answer.status_code == 401, path
            assert answer.json()["error"] == "unauthorized" and "authorize" in answer.json()["hint"]
        health = (await client.get(f"{API}/health")).json()
    assert health["ok"] and health["database"] == {"reachable": True, "migrated": True}
    assert "shop" not in str(health)


async def test_authorize_decides(make: Make) -> None:
    async def by_header(request: Request) -> bool:
        return request.headers.get("x-admin") == "yes"

    for authorize in (by_header, lambda request: request.headers.get("x-admin") == "yes"):
        async with served(make(authorize).asgi()) as client:
            assert (await client.get(f"{API}/plugs", headers={"X-Admin": "yes"})).status_code == 200
            refused = await client.get(f"{API}/plugs", headers={"X-Admin": "no"})
            assert refused.status_code == 401 and refused.json()["error"] == "unauthorized"
    async with served(make(lambda request: "truthy").asgi()) as client:
        assert (await client.get(f"{API}/plugs")).status_code == 401, "only True lets anybody in"
    async with served(make(False).asgi()) as client:
        assert (await client.get(f"{API}/plugs")).status_code == 200


async def test_production_needs_an_authorize(make: Make) -> None:
    for authorize, env in ((None, "production"), (False, "production")):
        app = make(authorize, KHOTAN_ENV=env).asgi()
        with pytest.raises(ConfigError) as caught:
            async with served(app):
                pass
        assert caught.value.code == "not_authorized_setup" and "authorize=" in caught.value.hint
    async with served(make(lambda request: True, KHOTAN_ENV="production").asgi()) as client:
        assert (await client.get(f"{API}/plugs")).status_code == 200
        debug = await client.post(f"{API}/debug/shop", json={"method": "GET", "path": "/"})
        assert (debug.status_code, debug.json()["error"]) == (403, "debug_disabled")
        assert (await client.get(f"{API}/variables/shop?reveal=true")).status_code == 403


def test_not_set_counts_as_production() -> None:
    assert Settings().env == "production"


async def test_the_command_lines_signature(make: Make) -> None:
    async with served(make().asgi(), CliSignature(SECRET)) as client:
        assert (await client.get(f"{API}/plugs?limit=5")).status_code == 200
        assert (await client.post(f"{API}/variables/shop", json={"values": {"region": "x"}})).status_code == 200
    async with served(make().asgi(), CliSignature("another-" + SECRET)) as client:
        assert (await client.get(f"{API}/plugs")).status_code == 401
    async with served(make(lambda request: False, KHOTAN_ENV="test").asgi(), CliSignature(SECRET)) as client:
        assert (await client.get(f"{API}/plugs")).status_code == 401, "only in development"


async def test_a_signature_is_good_for_one_request(make: Make) -> None:
    async with served(make().asgi()) as client:
        header = {"Authorization": sign(SECRET, "GET", f"{API}/plugs", b"")}
        assert (await client.get(f"{API}/plugs", headers=header)).status_code == 200
        assert (await client.get(f"{API}/plugs", headers=header)).status_code == 401, "replayed"
        for method, target, body in (
            ("POST", f"{API}/plugs", b""),
            ("GET", f"{API}/variables", b""),
            ("GET", f"{API}/plugs", b"x"),
        ):
            header = {"Authorization": sign(SECRET, method, target, body)}
            assert (await client.get(f"{API}/plugs", headers=header)).status_code == 401, (method, target, body)


def test_signatures_expire() -> None:
    now = 1_000_000.0
    verifier = Verifier(SECRET, clock=lambda: now)
    for age, good in ((0, True), (59, True), (-59, True), (61, False), (-61, False)):
        header = sign(SECRET, "GET", "/x", b"", now=now - age)
        assert verifier.verify(header, "GET", "/x", b"") is good
    for broken in ("", "KhotanCLI", "Bearer x", "KhotanCLI ts=1, nonce=2, sig=3", sign(SECRET, "GET", "/x", b"")[:-1]):
        assert not verifier.verify(broken, "GET", "/x", b"")


async def test_errors_are_documents(make: Make) -> None:
    async with served(make(False).asgi()) as client:
        cases = [
            (await client.get(f"{API}/nowhere"), 404, "not_found"),
            (await client.put(f"{API}/plugs"), 405, "method_not_allowed"),
            (await client.get(f"{API}/plugs/shp"), 404, "unknown_plug"),
            (await client.get(f"{API}/plugs?limit=0"), 422, "invalid_input"),
            (await client.patch(f"{API}/plugs/shop", json={"enabled": "perhaps"}), 422, "invalid_input"),
            (await client.patch(f"{API}/plugs/shop", json={"enabeld": True}), 422, "invalid_input"),
            (await client.post(f"{API}/variables/shop", content=b"{", headers=JSON), 422, "invalid_json"),
            (await client.post(f"{API}/variables/shop", json={"values": {"tokn": "x"}}), 422, "unknown_var"),
            (await client.post(f"{API}/variables/shop", json={"values": {"token": ""}}), 422, "empty_value"),
            (
                await client.post(f"{API}/variables/shop", json={"values": {"token": {"secret": "s3cr3t"}}}),
                422,
                "invalid_input",
            ),
            (await client.post(f"{API}/variables/shop", content=b"x" * 10_000_001), 413, "body_too_large"),
            (
                await client.post(f"{API}/plugs/shop/oauth/start", json={"redirectUri": "http://x"}),
                422,
                "invalid_input",
            ),
        ]
    for answer, status, code in cases:
        document = answer.json()
        assert (answer.status_code, document["ok"], document["error"]) == (status, False, code), document
        assert document["message"] and document["hint"] and "s3cr3t" not in answer.text
    assert "limit" in cases[3][0].json()["field"] and cases[4][0].json()["field"] == "enabled"
    assert "'shop'" in cases[2][0].json()["hint"] and "'token'" in cases[7][0].json()["hint"]


async def test_a_body_without_a_length_is_bounded_too(make: Make) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield b"x" * 1_000_000

    async with served(make(False).asgi()) as client:
        answer = await client.post(f"{API}/variables/shop", content=chunks(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")


async def test_what_goes_wrong_inside_is_not_shown(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: Request) -> bool:
        raise RuntimeError("the password is hunter2")

    async with served(make(broken).asgi()) as client:
        answer = await client.get(f"{API}/plugs")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
    assert "hunter2" not in answer.text + caplog.text and "RuntimeError" in caplog.text


async def test_not_migrated_then_migrated_while_it_runs(make: Make) -> None:
    khotan = make(False, migrated=False)
    settings = khotan.services.settings
    async with served(khotan.asgi()) as client:
        answer = await client.post(f"{API}/variables/shop", json={"values": {"region": "x"}})
        assert (answer.status_code, answer.json()["error"]) == (503, "database_not_migrated")
        assert answer.headers["retry-after"]
        assert (await client.get(f"{API}/health")).json()["status"] == "degraded"
        migrate.upgrade(settings.database_url, settings.root)
        assert (await client.post(f"{API}/variables/shop", json={"values": {"region": "x"}})).status_code == 200
        assert (await khotan.plugs["shop"].resolve()).values["region"] == "x"


async def test_lists_are_paged_and_values_masked(make: Make) -> None:
    async with served(make(False, SHOP_TOKEN="tok_live_abcdef123456", KHOTAN_DEBUG="1").asgi()) as client:
        listed = (await client.get(f"{API}/variables?limit=1&offset=1")).json()
        assert (listed["total"], listed["limit"], listed["offset"], len(listed["items"])) == (2, 1, 1, 1)
        shown = await client.get(f"{API}/variables/shop")
        assert "tok_live" not in shown.text and shown.json()["items"][0]["source"] == "environment"
        revealed = (await client.get(f"{API}/variables/shop?reveal=true")).json()
        assert revealed["items"][0]["value"] == "tok_live_abcdef123456"
        spec = (await client.get(f"{API}/openapi.json")).json()
    assert {"/plugs", "/variables/{plug}", "/debug/{plug}", "/health"} <= set(spec["paths"])
    assert spec["servers"] == [{"url": API}] and "/openapi.json" not in spec["paths"]


async def test_a_plug_uses_values_as_soon_as_they_are_stored(make: Make) -> None:
    async with loopback(lambda asked: as_json({"auth": asked.headers["authorization"]})) as server:
        khotan = make(False, base_url=server.url, SHOP_TOKEN="from-the-environment", KHOTAN_DEBUG="1")
        async with served(khotan.asgi()) as client:
            shop = khotan.plugs["shop"]
            assert (await shop.get("/x"))["auth"] == "Bearer from-the-environment"
            await client.post(f"{API}/variables/shop", json={"values": {"token": "from-the-database"}})
            assert (await shop.get("/x"))["auth"] == "Bearer from-the-database"
            seen = await client.post(f"{API}/debug/shop", json={"method": "GET", "path": "/x"})
            assert seen.json()["body"] == {"auth": "Bearer ••••base"}


async def test_install_keeps_the_applications_own_lifespan_and_routes(make: Make) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        events.append("up")
        yield {"answer": 42}
        events.append("down")

    app = FastAPI(lifespan=own)

    @app.get("/mine")
    async def mine() -> dict[str, bool]:
        return {"mine": True}

    make(False).install(app)
    async with served(app) as client:
        assert (await client.get("/mine")).json() == {"mine": True}
        assert (await client.get(f"{API}/health")).status_code == 200
        assert (await client.get("/nowhere")).json() == {"detail": "Not Found"}, (
            "errors of the application stay its own"
        )
    assert events == ["up", "down"]


# -- login ---------------------------------------------------------------------------------------------------------------

OAUTH_PLUG = """
from khotan_cli.runtime import OAuth2AuthorizationCode, Plug, Var


class Crm(Plug):
    base_url = "{url}"
    client_id = Var(default="id")
    auth = OAuth2AuthorizationCode("/auth", "/token", client_id)


crm = Crm()
"""


async def test_login_over_the_api(make: Make) -> None:
    def handler(asked: Asked) -> Answer:
        if asked.path == "/token":
            return as_json({"access_token": "fresh-access-token", "refresh_token": "r"})
        return as_json({"auth": asked.headers.get("authorization")})

    async with loopback(handler) as server:
        khotan = make(False)
        folder = khotan._settings.root
        (folder / "khotan" / "plugs" / "crm.py").write_text(OAUTH_PLUG.format(url=server.url))
        async with served(khotan.asgi()) as client:
            path = f"{API}/plugs/crm/oauth"
            bad = await client.post(f"{path}/start", json={"redirectUri": "javascript:x"})
            assert bad.status_code == 422
            started = (await client.post(f"{path}/start", json={"redirectUri": "http://127.0.0.1:1/cb"})).json()
            assert started["url"].startswith(f"{server.url}/auth?") and "code_challenge=" in started["url"]
            wrong = await client.post(f"{path}/finish", json={"callbackUrl": "http://127.0.0.1:1/cb?code=c&state=x"})
            assert (wrong.status_code, wrong.json()["error"]) == (502, "auth_failed")
            callback = f"http://127.0.0.1:1/cb?code=c&state={started['state']}"
            assert (await client.post(f"{path}/finish", json={"callbackUrl": callback})).json() == {"ok": True}
            again = await client.post(f"{path}/finish", json={"callbackUrl": callback})
            assert again.status_code == 502, "a state works once"
            assert (await khotan.plugs["crm"].get("/me"))["auth"] == "Bearer fresh-access-token"
            assert "_" not in [v["key"][0] for v in (await client.get(f"{API}/variables/crm")).json()["items"]]


# -- discovery -----------------------------------------------------------------------------------------------------------


def package(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, **modules: str) -> str:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    for module, text in modules.items():
        (folder / name / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return name


SOURCE = "from khotan_cli.runtime import Plug\nclass A(Plug):\n    base_url = 'http://a.example'\n"


def test_plugs_are_found_once_under_the_name_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Registry.discover(
        package(
            tmp_path,
            "found_pkg",
            monkeypatch,
            one=SOURCE + "myPlug = A()\nother = myPlug\n",
            two="from .one import myPlug\nfrom .one import A\neu = A()\nus = A(name='america')\n",
        )
    )
    assert list(found.plugs) == ["america", "eu", "myPlug"]


def test_two_plugs_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = package(tmp_path, "twice_pkg", monkeypatch, one=SOURCE + "shop = A()\n", two=SOURCE + "shop = A()\n")
    with pytest.raises(ConfigError, match=r"twice_pkg\.one.*twice_pkg\.two"):
        Registry.discover(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nraise RuntimeError('boom')\n", ["RuntimeError", "boom", "bad.py:2"]),
        ("def broken(:\n", ["SyntaxError", "bad.py:1"]),
        ("import not_installed_at_all\n", ["ModuleNotFoundError", "not_installed_at_all", "bad.py:1"]),
        ("raise SystemExit(3)\n", ["SystemExit", "bad.py:1"]),
    ],
)
def test_a_module_that_does_not_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str]
) -> None:
    name = package(tmp_path, f"broken_{abs(hash(text))}", monkeypatch, bad=text)
    with pytest.raises(AppImportError) as caught:
        Registry.discover(name)
    assert all(word in caught.value.message for word in words), caught.value.message
