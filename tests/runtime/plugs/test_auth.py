"""Authentication strategies, sans-IO where they can be, against a server where they fetch tokens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from khotan_cli.errors import AuthError, PlugError
from khotan_cli.runtime import (
    ApiKeyAuth,
    BasicAuth,
    BearerAuth,
    CallContext,
    CustomAuth,
    HmacAuth,
    OAuth2AuthorizationCode,
    OAuth2ClientCredentials,
    Plug,
    Retry,
    SigningInput,
    TokenAuth,
    Var,
    get,
)
from khotan_cli.runtime.auth.token_answer import expiry
from khotan_cli.runtime.http.pipeline import send_once
from khotan_cli.runtime.http.token_cache import Token
from khotan_cli.runtime.http.variables import EnvVarStore
from tests.support.loopback import Answer, Asked, as_json, loopback


class Clock:
    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Api(Plug):
    base_url = "http://127.0.0.1:9/v1"
    user = Var(default="me:ü")
    secret = Var(secret=True, default="s3cr3t+/=: x%")
    retry = Retry(attempts=1)
    read = get("/read", returns=dict[str, Any])


def on_request(auth: httpx.Auth, request: httpx.Request | None = None) -> httpx.Request:
    """What a plain httpx client would send."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    async def run() -> None:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, auth=auth) as client:
            await client.send(request or httpx.Request("GET", "https://x.example/a?b=1"))

    asyncio.run(run())
    return sent[0]


def test_simple_strategies_on_a_plain_client() -> None:
    async def fetched() -> str:
        return "async"

    assert on_request(BearerAuth("t")).headers["authorization"] == "Bearer t"
    assert on_request(BearerAuth(lambda: "sync")).headers["authorization"] == "Bearer sync"
    assert on_request(BearerAuth(fetched)).headers["authorization"] == "Bearer async"
    basic = on_request(BasicAuth("a", "b:ü")).headers["authorization"]
    assert base64.b64decode(basic.removeprefix("Basic ")).decode() == "a:b:ü"
    assert on_request(ApiKeyAuth("k")).headers["x-api-key"] == "k"
    assert on_request(ApiKeyAuth("k", header="X-Token", prefix="Token ")).headers["x-token"] == "Token k"
    assert str(on_request(ApiKeyAuth("k&=", query="key")).url) == "https://x.example/a?b=1&key=k%26%3D"

    def custom(request: httpx.Request, ctx: CallContext) -> None:
        request.headers["X-Mine"] = "1"

    assert on_request(CustomAuth(custom)).headers["x-mine"] == "1"


def test_no_strategy_shows_its_secret() -> None:
    for auth in (
        BearerAuth("topsecret"),
        BasicAuth("user", "topsecret"),
        ApiKeyAuth("topsecret"),
        HmacAuth("topsecret"),
        TokenAuth("/t", {"password": "topsecret"}),
        OAuth2ClientCredentials("/t", "id", "topsecret"),
        OAuth2AuthorizationCode("/a", "/t", "id", "topsecret"),
    ):
        assert "topsecret" not in repr(auth) + json.dumps(auth.describe())


async def test_a_missing_variable_is_named_before_anything_is_sent() -> None:
    class Bare(Plug):
        base_url = "http://127.0.0.1:9"
        token = Var(secret=True)
        auth = BearerAuth(token)

    with pytest.raises(AuthError) as caught:
        await Bare().get("/x")
    assert caught.value.code == "var_missing" and "BARE_TOKEN" in caught.value.hint
    assert caught.value.next == ("khotan migrate", "khotan plug vars bare set token --stdin")


# -- HMAC --------------------------------------------------------------------------------------------------------------


def test_hmac_covers_what_goes_on_the_wire() -> None:
    clock = Clock()
    request = httpx.Request("POST", "https://x.example/a%2Fb?q=%20x", content=b'{"n": "{nonce}"}')
    auth = HmacAuth(
        "k",
        content="{timestamp}.{method}.{path}.{query}.{body}",
        header="X-Sig",
        prefix="v1=",
        timestamp_header="X-Time",
        clock=clock,
    )
    sent = on_request(auth, request)
    content = b'1700000000.POST./a%2Fb.q=%20x.{"n": "{nonce}"}'
    assert sent.headers["x-sig"] == "v1=" + hmac.new(b"k", content, hashlib.sha256).hexdigest()
    assert sent.headers["x-time"] == "1700000000"


def test_hmac_by_function_in_the_query() -> None:
    def content(signed: SigningInput) -> bytes:
        return f"{signed.method}\n{signed.query}\n{signed.body_sha256()}".encode()

    key = base64.b64encode(b"\x00\xff").decode()
    auth = HmacAuth(
        key,
        content=content,
        query="sig",
        algorithm="sha512",
        encoding="base64",
        secret_encoding="base64",
        timestamp_query="ts",
        timestamp_format="milliseconds",
        clock=Clock(),
    )
    sent = on_request(auth)
    query = parse_qs(sent.url.query.decode())
    expected = f"GET\nb=1&ts=1700000000000\n{hashlib.sha256(b'').hexdigest()}".encode()
    assert query["sig"] == [base64.b64encode(hmac.new(b"\x00\xff", expected, "sha512").digest()).decode()]


async def test_hmac_secret_in_the_wrong_encoding() -> None:
    with pytest.raises(AuthError, match="hex"):
        await Api().with_auth(HmacAuth(Api.secret, secret_encoding="hex")).get("/x")


# -- tokens ------------------------------------------------------------------------------------------------------------


class Issuer:
    """A token endpoint and an API that accepts the last token issued."""

    def __init__(self, answer: Callable[[int], Answer] | None = None) -> None:
        self.issued = 0
        self.token_requests: list[Asked] = []
        self.answer = answer
        self.delay = 0.0

    async def __call__(self, asked: Asked) -> Answer:
        if asked.path.endswith("/token"):
            self.token_requests.append(asked)
            await asyncio.sleep(self.delay)
            self.issued += 1
            if self.answer:
                return self.answer(self.issued)
            return as_json({"access_token": f"t{self.issued}", "token_type": "Bearer", "expires_in": 3600})
        good = asked.headers.get("authorization") == f"Bearer t{self.issued}"
        return as_json({"n": self.issued}, 200 if good else 401)


def form(asked: Asked) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(asked.body.decode()).items()}


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_client_credentials(method: Any) -> None:
    issuer = Issuer()
    async with loopback(issuer) as server:
        auth = OAuth2ClientCredentials("/token", Api.user, Api.secret, scope="a b", auth_method=method)
        plug = Api().with_options(base_url=f"{server.url}/v1", auth=auth)
        await asyncio.gather(*(plug.read() for _ in range(20)))
        await plug.with_options(timeout=9).read()
    asked = issuer.token_requests
    assert len(asked) == 1, "one token for all, copies included"
    assert asked[0].target == "/v1/token" and form(asked[0])["scope"] == "a b"
    if method == "client_secret_basic":
        # RFC 6749 2.3.1: each part form-encoded, then joined.
        basic = base64.b64decode(asked[0].headers["authorization"].removeprefix("Basic ")).decode()
        assert basic == "me%3A%C3%BC:s3cr3t%2B%2F%3D%3A+x%25"
        assert "client_secret" not in form(asked[0])
    else:
        assert "authorization" not in asked[0].headers
        assert form(asked[0])["client_secret"] == "s3cr3t+/=: x%"


async def test_a_401_refreshes_once_and_retries_once() -> None:
    issuer = Issuer()
    async with loopback(issuer) as server:
        plug = Api().with_options(base_url=server.url, auth=OAuth2ClientCredentials("/token", "id", "s"))
        await plug.read()
        issuer.issued = 5  # the service forgot the token
        await asyncio.gather(*(plug.read() for _ in range(10)))
        assert len(issuer.token_requests) == 2
        before = len(server.asked)
        issuer.answer = lambda n: as_json({"access_token": "never good"})
        issuer.issued = 9
        with pytest.raises(PlugError) as caught:
            await plug.read()
        assert caught.value.status == 401
        assert [a.path for a in server.asked[before:]] == ["/read", "/token", "/read"]


async def test_tokens_are_renewed_before_they_end_and_found_by_another_process() -> None:
    clock, issuer, store = Clock(), Issuer(), EnvVarStore()
    auth = OAuth2ClientCredentials("/token", "id", "s", clock=clock)
    async with loopback(issuer) as server:
        first, second = Api(), Api()
        for plug in (first, second):
            plug.bind(store)
        first, second = (p.with_options(base_url=server.url, auth=auth) for p in (first, second))
        await first.read()
        await second.read()
        assert len(issuer.token_requests) == 1, "the second found the first's token in the store"
        clock.now += 3600 - 31
        await second.read()
        assert len(issuer.token_requests) == 1
        clock.now += 2
        await asyncio.gather(first.read(), second.read())
        assert len(issuer.token_requests) == 2, "renewed 30 s early, by one of them"
    stored = await store.load("api")
    assert [key for key in stored if key.startswith("_token.")] and "s" not in stored


def test_a_token_of_three_seconds_is_used_for_most_of_them() -> None:
    token = Token("t", expires_at=103.0, issued_at=100.0)
    assert token.fresh(102.6) and not token.fresh(102.8)
    assert Token("t").fresh(1e12)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (60, "seconds", 1060.0),
        ("60", "seconds", 1060.0),
        (60_000, "milliseconds", 1060.0),
        (5000, "absolute", 5000.0),
        (1_800_000_000_000, "absolute", 1_800_000_000.0),
        ("1970-01-01T01:00:00Z", "absolute", 3600.0),
        ("1970-01-01T01:00:00", "absolute", 3600.0),
        (None, "seconds", None),
        (0, "seconds", None),
        (-5, "seconds", None),
        ("soon", "absolute", None),
        ("nan", "seconds", None),
    ],
)
def test_expiry(value: Any, unit: Any, expected: float | None) -> None:
    assert expiry(value, unit, 1000.0) == expected


async def test_token_exchange_of_any_form() -> None:
    def handler(asked: Asked) -> Answer:
        if asked.path == "/v1/login":
            return as_json({"data": {"jwt": f"j{len(asked.json())}", "ttl": 60_000, "again": "r1"}})
        if asked.path == "/v1/again":
            return as_json({"data": {"jwt": "j9", "ttl": 60_000}, "got": asked.body.decode()})
        return as_json({"token": asked.headers.get("x-token"), "target": asked.target})

    clock = Clock()
    auth = TokenAuth(
        "login",
        body={"user": Api.user, "password": Api.secret},
        token="data.jwt",
        expires="data.ttl",
        expires_unit="milliseconds",
        refresh="data.again",
        refresh_url="again",
        refresh_body={"refresh": "{refresh_token}"},
        header="X-Token",
        prefix="",
        clock=clock,
    )
    async with loopback(handler) as server:
        plug = Api().with_options(base_url=f"{server.url}/v1", auth=auth)
        assert (await plug.read())["token"] == "j2"
        clock.now += 60
        assert (await plug.read())["token"] == "j9"
        in_query = TokenAuth("login", body={"user": "x"}, token="data.jwt", query="access", encoding="form")
        assert server.asked[2].json() == {"refresh": "r1"}

        async with loopback(lambda a: as_json({"data": {"jwt": "q&1"}, "t": a.target, "b": a.body.decode()})) as other:
            answer = await Api().with_options(base_url=other.url, auth=in_query).read()
            assert answer["t"] == "/read?access=q%261" and other.asked[0].body == b"user=x"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (as_json({"error": "invalid_client", "error_description": "no s3cr3t+/=: x% here"}, 401), ["invalid_client"]),
        (Answer(500, b"oops"), ["500"]),
        (Answer(200, b"<html>", {"Content-Type": "text/html"}), ["text/html"]),
        (as_json({"token_type": "Bearer"}), ["access_token"]),
        (as_json({"access_token": "x", "token_type": "mac"}), ["mac"]),
        (Answer(307, headers={"Location": "http://127.0.0.1:9/evil"}), ["307", "redirect"]),
        (Answer(200, b'{"access_token": "x', {"Content-Type": "application/json"}), ["JSON"]),
    ],
)
async def test_a_token_endpoint_that_misbehaves(answer: Answer, words: list[str]) -> None:
    async with loopback(Issuer(lambda n: answer)) as server:
        plug = Api().with_options(base_url=server.url, auth=OAuth2ClientCredentials("/token", "id", Api.secret))
        with pytest.raises(AuthError) as caught:
            await plug.read()
    text = json.dumps(caught.value.to_json())
    assert all(word in text for word in words) and "s3cr3t" not in text


async def test_a_failed_token_request_lets_even_a_write_be_repeated() -> None:
    left = [Answer(drop=True)]

    def handler(asked: Asked) -> Answer:
        if asked.path == "/token":
            return left.pop() if left else as_json({"access_token": "t"})
        return as_json({"ok": True})

    async with loopback(handler) as server:
        auth = OAuth2ClientCredentials("/token", "id", "s")
        plug = Api().with_options(base_url=server.url, auth=auth, retry=Retry(attempts=2, backoff=0))
        assert await plug.post("/write", body={}) == {"ok": True}
    assert [a.path for a in server.asked] == ["/token", "/token", "/write"]


# -- authorization code ------------------------------------------------------------------------------------------------


class CodeServer:
    """Issues codes bound to a PKCE challenge, and refresh tokens that work once."""

    def __init__(self) -> None:
        self.challenge = ""
        self.refresh = ""
        self.count = 0

    def __call__(self, asked: Asked) -> Answer:
        if asked.path != "/token":
            good = asked.headers.get("authorization") == f"Bearer a{self.count}"
            return as_json({"n": self.count}, 200 if good else 401)
        given = form(asked)
        if given["grant_type"] == "authorization_code":
            digest = base64.urlsafe_b64encode(hashlib.sha256(given["code_verifier"].encode()).digest()).decode()
            good = given["code"] == "c1" and digest.rstrip("=") == self.challenge
        else:
            good = given["refresh_token"] == self.refresh
        if not good:
            return as_json({"error": "invalid_grant"}, 400)
        self.count += 1
        self.refresh = f"r{self.count}"
        return as_json({"access_token": f"a{self.count}", "refresh_token": self.refresh, "expires_in": 100})


async def signed_in(plug: Plug, code_server: CodeServer, auth: OAuth2AuthorizationCode) -> None:
    ctx = plug.context("", await plug.resolve())
    asked = auth.authorization_request(ctx, "http://127.0.0.1:1/callback")
    query = {key: values[0] for key, values in parse_qs(urlsplit(asked.url).query).items()}
    assert query["code_challenge_method"] == "S256" and query["response_type"] == "code"
    assert asked.verifier not in asked.url and len(asked.verifier) >= 43
    code_server.challenge = query["code_challenge"]
    callback = f"http://127.0.0.1:1/callback?code=c1&state={asked.state}"
    await auth.accept(ctx, await send_once(plug, auth.exchange_request(ctx, asked, callback), ctx))


async def test_authorization_code_with_rotating_refresh_tokens() -> None:
    clock, code_server, store = Clock(), CodeServer(), EnvVarStore()
    async with loopback(code_server) as server:
        auth = OAuth2AuthorizationCode(f"{server.url}/auth", "/token", "id", clock=clock)
        first, second = Api(), Api()
        for plug in (first, second):
            plug.bind(store)
        first, second = (p.with_options(base_url=server.url, auth=auth) for p in (first, second))
        with pytest.raises(AuthError, match="not signed in") as caught:
            await first.read()
        assert caught.value.next == ("khotan plug api --login",)
        await signed_in(first, code_server, auth)
        assert (await second.read())["n"] == 1
        for turn in range(2, 5):
            clock.now += 100
            await asyncio.gather(*(p.read() for p in (first, second) for _ in range(5)))
            assert code_server.count == turn, "each refresh token is used exactly once"
        code_server.refresh = "revoked"
        clock.now += 100
        with pytest.raises(AuthError, match="invalid_grant") as caught:
            await second.read()
        assert "--login" in caught.value.next[0]


async def test_an_answer_to_another_login_is_refused() -> None:
    auth = OAuth2AuthorizationCode("https://x.example/auth", "/token", "id", issuer="https://x.example")
    plug = Api().with_auth(auth)
    ctx = plug.context("", await plug.resolve())
    asked = auth.authorization_request(ctx, "http://127.0.0.1:1/cb")
    for query, words in (
        ("code=c1&state=other", "state"),
        ("code=c1", "state"),
        (f"code=c1&state={asked.state}&iss=https://evil.example", "issuer"),
        (f"error=access_denied&state={asked.state}", "access_denied"),
        (f"state={asked.state}", "no code"),
    ):
        with pytest.raises(AuthError, match=words):
            auth.exchange_request(ctx, asked, f"http://127.0.0.1:1/cb?{query}")
