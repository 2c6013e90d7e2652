"""Cookies: none are kept by default; with `cookies = True` a session lasts, per credential and at the plug's own origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from khotan_cli.runtime import ApiKeyAuth, BasicAuth, BearerAuth, Plug, Retry, TokenAuth, Var
from khotan_cli.runtime.http.cookies import MAX_JARS, CookieJars
from tests.support.loopback import Answer, Asked, as_json, loopback


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    user = Var(default="ada")
    retry = Retry(attempts=1)
    cookies = True


def sessions() -> Callable[[Asked], Answer]:
    """Gives each client without a cookie a new session, as PHP, Rails and Odoo do; tells what cookie came."""
    count = [0]

    def handler(asked: Asked) -> Answer:
        came = asked.headers.get("cookie")
        if asked.path == "/end":
            return as_json({"came": came}, Set_Cookie="session=; Path=/; Max-Age=0")
        if came is not None:
            return as_json({"came": came})
        count[0] += 1
        return as_json({"came": None}, Set_Cookie=f"session=s{count[0]}; Path=/; HttpOnly")

    return handler


async def came(plug: Plug, path: str = "/x", **options: Any) -> str | None:
    answer: str | None = (await plug.get(path, **options))["came"]
    return answer


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_none_are_kept_by_default(transport: Any) -> None:
    async with loopback(sessions()) as server:
        plug = Api().with_options(base_url=server.url, cookies=False, transport=transport)
        assert [await came(plug) for _ in range(3)] == [None] * 3
        assert Plug.cookies is False


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_a_session_lasts_over_calls_and_copies_and_ends_when_the_service_says_so(transport: Any) -> None:
    async with loopback(sessions()) as server:
        plug = Api().with_options(base_url=server.url, transport=transport)
        assert [await came(plug) for _ in range(2)] == [None, "session=s1"]
        assert await came(plug.with_options(timeout=9)) == "session=s1"
        assert await came(plug, headers={"Cookie": "mine=1"}) == "mine=1", "a header of the call comes first"
        assert await came(plug, "/end") == "session=s1"
        assert await came(plug) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda p: p.with_auth(BearerAuth("token-1")), lambda p: p.with_auth(BearerAuth("token-2"))),
        (lambda p: p.with_auth(ApiKeyAuth("key")), lambda p: p),
        (lambda p: p.with_vars(user="bob"), lambda p: p.with_vars(user="eve")),
        (lambda p: p.with_auth(httpx.BasicAuth("u", "p")), lambda p: p.with_auth(httpx.BasicAuth("v", "p"))),
    ],
)
async def test_each_credential_has_a_session_of_its_own(one: Any, other: Any) -> None:
    async with loopback(sessions()) as server:
        plug = Api().with_options(base_url=server.url)
        first, second = one(plug), other(plug)
        assert [await came(p) for p in (first, second, first, second)] == [None, None, "session=s1", "session=s2"]


@pytest.mark.parametrize("auth", [None, BasicAuth("u", "p")])
async def test_never_across_origins(auth: Any) -> None:
    async with loopback(sessions()) as other:

        def own(asked: Asked) -> Answer:
            cookie = "session=own; Path=/; Domain=127.0.0.1"
            if asked.path == "/away":
                return as_json({}, 307, Location=f"{other.url}/x", Set_Cookie=cookie)
            return as_json({"came": asked.headers.get("cookie")}, Set_Cookie=cookie)

        async with loopback(own) as server:
            plug = Api().with_options(base_url=server.url, auth=auth)
            assert await came(plug) is None
            assert await came(plug, "/away") is None
            assert await came(plug, f"{other.url}/x") is None, "nor are the cookies of others kept"
            assert await came(plug.with_options(base_url=other.url)) is None
            assert await came(plug) == "session=own"
    assert [asked.headers.get("cookie") for asked in other.asked] == [None] * 3


@pytest.mark.parametrize("auth", [None, BasicAuth("u", "p")])
async def test_a_redirect_carries_the_cookie_that_it_set(auth: Any) -> None:
    def handler(asked: Asked) -> Answer:
        if asked.path == "/login":
            return as_json({}, 302, Location="/home", Set_Cookie="session=new; Path=/")
        return as_json({"came": asked.headers.get("cookie")}, Set_Cookie="session=old; Path=/")

    async with loopback(handler) as server:
        plug = Api().with_options(base_url=server.url, auth=auth)
        await came(plug)
        assert await came(plug, "/login") == "session=new"


async def test_a_token_request_opens_the_session() -> None:
    def handler(asked: Asked) -> Answer:
        if asked.path == "/session":
            return as_json({"access_token": "t"}, Set_Cookie="sid=abc; Path=/")
        return as_json({"came": asked.headers.get("cookie")})

    async with loopback(handler) as server:
        plug = Api().with_options(base_url=server.url, auth=TokenAuth("/session", {"user": Api.user}))
        assert await came(plug) == "sid=abc"


async def test_a_secure_cookie_does_not_travel_in_clear() -> None:
    async with loopback(
        lambda asked: as_json({"came": asked.headers.get("cookie")}, Set_Cookie="a=1; Secure")
    ) as server:
        plug = Api().with_options(base_url=server.url)
        assert [await came(plug) for _ in range(2)] == [None, None]


def test_the_number_of_jars_is_bounded() -> None:
    jars = CookieJars()
    first = jars.of("first")
    for number in range(MAX_JARS - 1):
        jars.of(number)
    assert jars.of("first") is first
    jars.of("one more")
    assert jars.of("first") is first and len(jars._jars) == MAX_JARS
