"""Tokens that die, token endpoints that refuse or falter, and what a token request may send."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from khotan_cli.errors import AuthError, PlugError
from khotan_cli.runtime import OAuth2AuthorizationCode, OAuth2ClientCredentials, Plug, Retry, TokenAuth, Var, get
from khotan_cli.runtime.http.pipeline import send_once
from khotan_cli.runtime.http.token_cache import Token, TokenCache
from khotan_cli.runtime.http.variables import EnvVarStore
from tests.support.loopback import Answer, Asked, as_json, loopback


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    user = Var(default="ada")
    password = Var(secret=True, default="pa55-word-of-ada")
    retry = Retry(attempts=1, backoff=0)
    read = get("/read", returns=dict[str, Any])


class Service:
    """Logs in at /login, refreshes at /refresh, accepts the last token. `refresh`: answers instead of a refresh."""

    def __init__(self, refresh: Answer | None = None) -> None:
        self.refresh, self.count, self.paths = refresh, 0, list[str]()
        self.login: Callable[[int], Answer | None] = lambda n: None
        self.refused = 401

    def always(self, answer: Answer) -> None:
        self.login = lambda n: answer

    def __call__(self, asked: Asked) -> Answer:
        self.paths.append(asked.path)
        if asked.path == "/read":
            good = asked.headers.get("authorization") == f"Bearer t{self.count}"
            return as_json({"n": self.count}, 200 if good else self.refused)
        if asked.path == "/login" and (answer := self.login(len(self.paths))) is not None:
            return answer
        if asked.path == "/refresh" and self.refresh is not None:
            return self.refresh
        self.count += 1
        return as_json({"access_token": f"t{self.count}", "refresh_token": f"r{self.count}", "expires_in": 3600})


def exchange(**options: Any) -> TokenAuth:
    return TokenAuth(
        "/login",
        {"user": Api.user, "password": Api.password},
        refresh="refresh_token",
        refresh_url="/refresh",
        refresh_body={"refresh": "{refresh_token}"},
        **options,
    )


REFUSALS = [
    as_json({"error": "invalid_grant"}, 400),
    as_json({"message": "refresh token expired"}, 401),
    Answer(403, b"no"),
    Answer(404),
    Answer(410),
    Answer(302, headers={"Location": "/signin"}),
    as_json({"error": "invalid_token"}),
    as_json({"ok": False}),
    Answer(200, b"<html>", {"Content-Type": "text/html"}),
]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refused_refresh_falls_back_to_the_credentials_once(refusal: Answer) -> None:
    service, store = Service(refusal), EnvVarStore()
    async with loopback(service) as server:
        plug = Api().with_options(base_url=server.url, auth=exchange())
        plug.bind(store)
        await plug.read()
        service.count = 7  # the service forgot the token
        service.paths.clear()
        assert (await plug.read())["n"] == 8
        assert service.paths == ["/read", "/refresh", "/login", "/read"]
        assert (await plug.read())["n"] == 8 and service.paths[4:] == ["/read"]
    stored = [json.loads(text) for key, text in (await store.load("api")).items() if key.startswith("_token.")]
    assert [token["refresh_token"] for token in stored] == ["r8"]


async def test_a_dead_token_is_forgotten_though_the_credentials_are_refused_too() -> None:
    service, store = Service(Answer(400)), EnvVarStore()
    async with loopback(service) as server:
        plug = Api().with_options(base_url=server.url, auth=exchange())
        plug.bind(store)
        await plug.read()
        service.count = 7
        service.login = lambda n: as_json({"error": "locked_out"}, 403)
        with pytest.raises(AuthError, match="locked_out"):
            await plug.read()
        assert not [key for key in await store.load("api") if key.startswith("_token.")]
        service.login = lambda n: None
        restarted = Api().with_options(base_url=server.url, auth=exchange())
        restarted.bind(store)
        service.paths.clear()
        assert (await restarted.read())["n"] == 8 and service.paths == ["/login", "/read"]


@pytest.mark.parametrize("answer", [Answer(503), Answer(500), Answer(429), Answer(drop=True)])
async def test_a_refresh_that_falters_says_nothing_about_the_token(answer: Answer) -> None:
    service, store = Service(answer), EnvVarStore()
    async with loopback(service) as server:
        plug = Api().with_options(base_url=server.url, auth=exchange())
        plug.bind(store)
        await plug.read()
        service.count = 7
        with pytest.raises(PlugError):
            await plug.read()
        assert "/login" not in service.paths[2:]
        service.refresh = None
        assert (await plug.read())["n"] == 8 and service.paths[-2:] == ["/refresh", "/read"]


async def test_a_sign_in_that_was_revoked_is_forgotten() -> None:
    clock = [1000.0]
    auth = OAuth2AuthorizationCode("/auth", "/refresh", "id", clock=lambda: clock[0])
    service, store = Service(as_json({"error": "invalid_grant"}, 400)), EnvVarStore()
    async with loopback(service) as server:
        plug = Api().with_options(base_url=server.url, auth=auth)
        plug.bind(store)
        ctx = plug.context("", await plug.resolve())
        await auth.keep(ctx, auth.token_key(ctx), Token("old-token", 10.0, 0.0, "dead"))
        with pytest.raises(AuthError, match="invalid_grant") as caught:
            await plug.read()
        assert caught.value.status == 400
        with pytest.raises(AuthError, match="not signed in"):
            await plug.read()
    assert service.paths == ["/refresh"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("auth", [exchange(), OAuth2ClientCredentials("/login", "id", Api.password)])
async def test_a_token_endpoint_that_falters_is_asked_again(status: int, auth: Any) -> None:
    service = Service()
    service.login = lambda n: Answer(status) if n <= 2 else None
    async with loopback(service) as server:
        plug = Api().with_options(base_url=server.url, auth=auth)
        assert (await plug.with_options(retry=Retry(attempts=3, backoff=0)).read())["n"] == 1
        assert service.paths == ["/login"] * 3 + ["/read"]


async def test_retries_of_a_token_end_as_the_retry_says() -> None:
    service = Service()
    async with loopback(service) as server:
        plug = Api().with_options(base_url=server.url, auth=exchange(), retry=Retry(attempts=3, backoff=0))
        for answer, tries in (
            (as_json({"error": "temporarily_unavailable"}, 503), 3),
            (as_json({}, 429, Retry_After="3600"), 1),
            (as_json({"error": "invalid_client"}, 401), 1),
            (as_json({"error": "slow"}), 1),
        ):
            service.always(answer)
            service.paths.clear()
            with pytest.raises(AuthError) as caught:
                await plug.post("/write", body={})
            assert service.paths == ["/login"] * tries
            assert (caught.value.status, caught.value.code) == (answer.status, "auth_failed")


@pytest.mark.parametrize(("status", "tries"), [(503, 3), (429, 3), (500, 3), (400, 1)])
async def test_the_exchange_of_a_code_is_retried_too(status: int, tries: int) -> None:
    auth = OAuth2AuthorizationCode("/auth", "/token", "id")
    async with loopback(lambda asked: Answer(status)) as server:
        plug = Api().with_options(base_url=server.url, auth=auth, retry=Retry(attempts=3, backoff=0))
        ctx = plug.context("", await plug.resolve())
        asked = auth.authorization_request(ctx, "http://127.0.0.1:1/cb")
        request = auth.exchange_request(ctx, asked, f"http://127.0.0.1:1/cb?code=c&state={asked.state}")
        with pytest.raises(AuthError):
            await auth.accept(ctx, await send_once(plug, request, ctx))
        assert [a.body for a in server.asked] == [request.content] * tries


@pytest.mark.parametrize("auth", [exchange(), OAuth2ClientCredentials("/login", "id", Api.password)])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "bad_verification_code", "error_description": "The code is incorrect"}, "The code is incorrect"),
        ({"ok": False, "error": "invalid_auth"}, "invalid_auth"),
        ({"error": {"code": "locked", "message": "The account is locked"}}, "locked (The account is locked)"),
        ({"success": False, "message": "Wrong user"}, "Wrong user"),
        ({"error": "The user is unknown"}, "The user is unknown"),
        ({"error": "Q1w2e3r4t5y6", "message": "token Q1w2e3r4t5y6"}, "token ••••"),
        ({"errorCode": "E_LOCKED", "errorMessage": "Locked"}, "E_LOCKED (Locked)"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
async def test_the_reason_of_the_service_is_kept(auth: Any, body: Any, words: str, status: int) -> None:
    service = Service()
    service.login = lambda n: as_json(body, status)
    async with loopback(service) as server:
        with pytest.raises(AuthError) as caught:
            await Api().with_options(base_url=server.url, auth=auth).read()
    assert words in caught.value.message and str(status) in caught.value.message


@pytest.mark.parametrize(
    ("options", "issued", "sent"),
    [
        ({}, "bearer", "Bearer x"),
        ({}, None, "Bearer x"),
        ({"token_type": "token"}, "Token", "token x"),
        ({"token_type": "JWT", "prefix": "Bearer "}, "jwt", "Bearer x"),
        ({"prefix": "Zoho-oauthtoken "}, "Bearer", "Zoho-oauthtoken x"),
    ],
)
async def test_the_type_of_a_token_is_declared(options: Any, issued: str | None, sent: str) -> None:
    def handler(asked: Asked) -> Answer:
        if asked.path == "/token":
            return as_json({"access_token": "x", **({"token_type": issued} if issued else {})})
        return as_json({"got": asked.headers["authorization"]})

    async with loopback(handler) as server:
        auth = OAuth2ClientCredentials("/token", "id", "s", **options)
        assert (await Api().with_options(base_url=server.url, auth=auth).read())["got"] == sent


async def test_a_type_that_is_not_declared_is_refused() -> None:
    async with loopback(lambda asked: as_json({"access_token": "x", "token_type": "Bearer"})) as server:
        auth = OAuth2ClientCredentials("/token", "id", "s", token_type="DPoP")
        with pytest.raises(AuthError, match=r"'Bearer', but token_type='DPoP' is declared"):
            await Api().with_options(base_url=server.url, auth=auth).read()
    for wrong in ("", "two words", "a\nb"):
        with pytest.raises(ValueError, match="token_type="):
            OAuth2ClientCredentials("/token", "id", "s", token_type=wrong)


@pytest.mark.parametrize(
    ("renew_on", "status", "renewed"),
    [((401, 403), 403, True), ((401, 403), 401, True), ((419,), 419, True), ((419,), 401, False), ((), 401, False)],
)
@pytest.mark.parametrize("kind", [TokenAuth, OAuth2ClientCredentials])
async def test_statuses_that_renew(renew_on: Any, status: int, renewed: bool, kind: Any) -> None:
    service = Service()
    service.refused = status
    given: tuple[Any, ...] = ({"user": "u"},) if kind is TokenAuth else ("id", "secret")
    async with loopback(service) as server:
        plug = Api().with_options(base_url=server.url, auth=kind("/login", *given, renew_on=renew_on))
        await plug.read()
        service.count = 7
        if renewed:
            assert (await plug.read())["n"] == 8
        else:
            with pytest.raises(PlugError) as caught:
                await plug.read()
            assert caught.value.status == status and service.paths.count("/login") == 1


@pytest.mark.parametrize("wrong", [403, "403", (200,), (True,), ("403",), (399,), (600,)])
def test_statuses_that_cannot_renew_are_named(wrong: Any) -> None:
    for make in (
        lambda: exchange(renew_on=wrong),
        lambda: OAuth2ClientCredentials("/t", "i", "s", renew_on=wrong),
        lambda: OAuth2AuthorizationCode("/a", "/t", "i", renew_on=wrong),
    ):
        with pytest.raises(ValueError, match="renew_on"):
            make()


@pytest.mark.parametrize(
    ("body", "encoding", "sent"),
    [
        (
            {"auth": {"user": Api.user, "methods": ["password", Api.password]}, "remember": True, "ttl": 60, "x": None},
            "json",
            {
                "auth": {"user": "ada", "methods": ["password", "pa55-word-of-ada"]},
                "remember": True,
                "ttl": 60,
                "x": None,
            },
        ),
        ([{"id": 1.5}, Api.user], "json", [{"id": 1.5}, "ada"]),
        (
            {"user": {"name": Api.user}, "keep": False, "n": 3, "of": ["a", 2]},
            "form",
            "user[name]=ada&keep=false&n=3&of[0]=a&of[1]=2",
        ),
    ],
)
async def test_bodies_of_any_depth(body: Any, encoding: Any, sent: Any) -> None:
    async with loopback(lambda asked: as_json({"access_token": "t"})) as server:
        await Api().with_options(base_url=server.url, auth=TokenAuth("/login", body, encoding=encoding)).read()
    assert (server.asked[0].json() if encoding == "json" else server.asked[0].body.decode()) == sent


async def test_a_refresh_token_is_filled_in_at_any_depth() -> None:
    service = Service()
    auth = TokenAuth(
        "/login", {"u": 1}, refresh="refresh_token", refresh_body={"grant": {"with": ["{refresh_token}", True]}}
    )
    async with loopback(service) as server:
        plug = Api().with_options(base_url=server.url, auth=auth)
        await plug.read()
        service.count = 7
        await plug.read()
        assert server.asked[3].json() == {"grant": {"with": ["r1", True]}}


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        ({"a": {"b": {1, 2}}}, "json", "body.a.b is of type set"),
        ({"a": [0, b"x"]}, "json", r"body.a\[1\] is of type bytes"),
        ({"a": float("nan")}, "json", "body.a is nan"),
        ({"a": {"b": float("inf")}}, "form", "body.a.b is inf"),
        ({"a": {"b": None}}, "form", "body.a.b is None, but forms have no null value"),
        ({"a": object()}, "json", "body.a is of type object"),
        ({1: "a"}, "json", "body: the name 1 is int, not text"),
        ("user=a", "json", "body is str, not a mapping"),
        (["a"], "form", "body is list, not a mapping"),
        ({"a": lambda: "b"}, "json", "body.a is of type function"),
        ({"a": ["half \ud800"]}, "json", "body.a.0. contains a lone surrogate"),
        ({"a": "\udfff"}, "form", "body.a contains a lone surrogate"),
        ({"a": "b"}, "xml", "encoding='xml'"),
    ],
)
def test_a_body_that_cannot_be_sent_is_named_at_its_declaration(body: Any, encoding: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TokenAuth("/login", body, encoding=encoding)
    if encoding != "xml":
        with pytest.raises(ValueError, match=words.replace("body", "refresh_body")):
            TokenAuth("/login", {}, encoding=encoding, refresh_body=body)


@pytest.mark.parametrize(
    ("answer", "method", "secret", "words"),
    [
        (
            as_json({"error": "invalid_client"}, 401),
            "client_secret_basic",
            "s",
            "auth_method='client_secret_post' instead",
        ),
        (
            as_json({"error": "invalid_client"}, 400),
            "client_secret_post",
            "s",
            "auth_method='client_secret_basic' instead",
        ),
        (as_json({"error": "invalid_client"}), "client_secret_basic", "s", "auth_method="),
        (Answer(401), "client_secret_basic", "s", "auth_method="),
        (Answer(400, b"error=invalid_client"), "client_secret_basic", "s", "auth_method="),
        (
            as_json({"error": "invalid_client"}, 401),
            "client_secret_basic",
            None,
            "client_secret, which is not declared",
        ),
        (as_json({"error": "invalid_scope"}, 400), "client_secret_basic", "s", "Check the token URL"),
    ],
)
async def test_a_client_that_is_refused_is_told_of_the_other_place(
    answer: Answer, method: Any, secret: str | None, words: str
) -> None:
    auth = OAuth2AuthorizationCode("/auth", "/token", "id", secret, auth_method=method)
    async with loopback(lambda asked: answer) as server:
        plug = Api().with_options(base_url=server.url, auth=auth)
        ctx = plug.context("", await plug.resolve())
        await auth.keep(ctx, auth.token_key(ctx), Token("old-token", 10.0, 0.0, "r"))
        with pytest.raises(AuthError) as caught:
            await plug.read()
    assert words in caught.value.hint


@pytest.mark.parametrize(
    "pair",
    [
        (TokenAuth("/t", {"a": {"b": 1}}), TokenAuth("/t", {"a": {"b": 2}})),
        (TokenAuth("/t", {"a": True}), TokenAuth("/t", {"a": 1})),
        (TokenAuth("/t", {}, headers={"X-Key": "one"}), TokenAuth("/t", {}, headers={"X-Key": "two"})),
        (
            OAuth2ClientCredentials("/t", "i", "s", extra={"audience": "one"}),
            OAuth2ClientCredentials("/t", "i", "s", extra={"audience": "two"}),
        ),
    ],
)
async def test_credentials_that_differ_have_tokens_of_their_own(pair: tuple[Any, Any]) -> None:
    plug = Api()
    ctx = plug.context("", await plug.resolve())
    assert pair[0].token_key(ctx) != pair[1].token_key(ctx)


# -- masking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "form", "query", "text", "header"])
async def test_a_token_is_masked_in_ordinary_calls_under_whatever_name(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KHOTAN_DEBUG", "1")
    caplog.set_level(logging.DEBUG, "khotan.plugs")
    issued = [f"{word}-of-turn-{turn}-0a1b2c" for turn in (1, 2) for word in ("access", "refresh", "ident")]
    left = list(issued)

    def handler(asked: Asked) -> Answer:
        if asked.path == "/token":
            access, refresh, ident = (left.pop(0) for _ in range(3))
            return as_json({"access_token": access, "refresh_token": refresh, "id_token": ident})
        text = " ".join(issued)
        if left:  # the first token is refused: the second answer shows both
            return Answer(401)
        if kind == "header":
            return as_json({}, X_Session=text)
        return as_json({"zugang": issued, "u": text} if kind == "json" else f"/x?zugang={text}&x={issued[1]}")

    async with loopback(handler) as server:
        plug = Api().with_options(base_url=server.url, auth=OAuth2ClientCredentials("/token", "id", "s"))
        await plug.get("/x", params={"zugang": "1"})
        left[:] = []
        await plug.get("/x", params={"zugang": issued[0], "neu": issued[3]})
        await plug.post("/x", body={"zugang": [issued[2], issued[5]]})
    assert len(caplog.records) > 6 and "zugang" in caplog.text
    assert not [token for token in issued if token in caplog.text]


async def test_literals_of_a_body_that_are_secret_by_name_are_masked() -> None:
    auth = TokenAuth("/t", {"login": {"user": "ada", "password": "pa55-literal", "pins": [1], "keys": ["k-literal"]}})
    plug = Api().with_auth(auth)
    masker = plug.masker(plug.context("", await plug.resolve()))
    assert masker.text("ada pa55-literal k-literal") == "ada ••••eral ••••"
    assert "pa55" not in repr(auth) + json.dumps(auth.describe())


def test_only_so_many_replaced_tokens_are_remembered() -> None:
    cache = TokenCache()
    for number in range(500):
        cache.put("key", Token(f"token-{number}"))
    assert len(cache.secrets()) == 200 and "token-499" in cache.secrets()
    cache.forget()
    assert cache.get("key") is None and "token-499" in cache.secrets()
