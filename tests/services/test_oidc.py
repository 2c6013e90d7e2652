"""OAuth 2 against oidc-provider: client credentials, authorization code with PKCE, rotation, tokens that live 3 s."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Literal

import httpx
import pytest
from pydantic import BaseModel

from khotan_cli.errors import AuthError
from khotan_cli.runtime import OAuth2AuthorizationCode, OAuth2ClientCredentials, Plug, Retry, Var, get
from khotan_cli.runtime.http.pipeline import send_once
from khotan_cli.runtime.http.token_cache import Token
from tests.support.services import Service

pytestmark = pytest.mark.xdist_group("oidc")

SECRET = "s3cr3t+/=: x%"
CALLBACK = "http://127.0.0.1/callback"


class Who(BaseModel):
    client: str
    account: str | None


class Provider(Plug):
    base_url = "{server}"
    server = Var()
    secret = Var(secret=True)
    retry = Retry(attempts=1)

    whoami = get("/api/whoami", returns=Who)


def machine(client: str, method: Literal["client_secret_basic", "client_secret_post"]) -> OAuth2ClientCredentials:
    return OAuth2ClientCredentials("/token", client, Provider.secret, auth_method=method)


def login(client: str = "app") -> OAuth2AuthorizationCode:
    secret = None if client == "public" else Provider.secret
    return OAuth2AuthorizationCode("/auth", "/token", client, secret, scope="openid offline_access")


@pytest.fixture
async def provider(oidc: Service) -> AsyncIterator[Provider]:
    async with Provider().with_vars(server=oidc.url, secret=SECRET) as plug:
        yield plug


def token_requests(oidc: Service) -> int:
    return int(httpx.get(f"{oidc.url}/counts", trust_env=False).json()["token"])


async def sign_in(plug: Provider, auth: OAuth2AuthorizationCode) -> None:
    """What a browser does: open the URL, follow the provider, come back with a code."""
    ctx = plug.context("", await plug.resolve())
    asked = auth.authorization_request(ctx, CALLBACK)
    async with httpx.AsyncClient(trust_env=False) as browser:
        response = await browser.get(asked.url)
        while not (location := response.headers["location"]).startswith(CALLBACK):
            response = await browser.get(response.url.join(location))
    await auth.accept(ctx, await send_once(plug, auth.exchange_request(ctx, asked, location), ctx))


@pytest.mark.parametrize(("client", "method"), [("by-basic", "client_secret_basic"), ("by-post", "client_secret_post")])
async def test_client_credentials_with_a_difficult_secret(
    provider: Provider, client: str, method: Literal["client_secret_basic", "client_secret_post"]
) -> None:
    assert (await provider.with_auth(machine(client, method)).whoami()).client == client


async def test_a_wrong_secret_is_named_but_not_shown(provider: Provider) -> None:
    wrong = provider.with_vars(secret="wr0ng/secret").with_auth(machine("by-basic", "client_secret_basic"))
    with pytest.raises(AuthError, match="invalid_client") as caught:
        await wrong.whoami()
    assert "wr0ng" not in str(caught.value.to_json())
    assert "auth_method='client_secret_post' instead of 'client_secret_basic'" in caught.value.hint
    assert caught.value.status == 401


async def test_many_calls_at_once_fetch_one_token(provider: Provider, oidc: Service) -> None:
    before = token_requests(oidc)
    plug = provider.with_auth(machine("by-basic", "client_secret_basic"))
    found = await asyncio.gather(*[plug.whoami() for _ in range(30)])
    assert {who.client for who in found} == {"by-basic"}
    assert token_requests(oidc) - before == 1


async def test_a_token_that_lives_three_seconds_is_used_while_it_lives_and_renewed_once_after(
    provider: Provider, oidc: Service
) -> None:
    before = token_requests(oidc)
    plug = provider.with_auth(machine("short-lived", "client_secret_basic"))
    for _ in range(3):
        await plug.whoami()
    assert token_requests(oidc) - before == 1
    await until_expired(plug, oidc)
    await asyncio.gather(*[plug.whoami() for _ in range(10)])
    assert token_requests(oidc) - before == 2


@pytest.mark.parametrize("client", ["app", "public"])
async def test_code_with_pkce_then_rotating_refresh(provider: Provider, oidc: Service, client: str) -> None:
    auth = login(client)
    plug = provider.with_auth(auth)
    await sign_in(plug, auth)
    assert (await plug.whoami()).account == "tester"
    for _ in range(2):  # the second time with the refresh token that the first renewal brought
        await until_expired(plug, oidc)
        before = token_requests(oidc)
        found = await asyncio.gather(*[plug.whoami() for _ in range(10)])
        assert {who.account for who in found} == {"tester"}
        assert token_requests(oidc) - before == 1


async def test_a_code_works_once_and_only_with_its_state(provider: Provider) -> None:
    auth = login()
    plug = provider.with_auth(auth)
    ctx = plug.context("", await plug.resolve())
    asked = auth.authorization_request(ctx, CALLBACK)
    with pytest.raises(AuthError, match="state"):
        auth.exchange_request(ctx, asked, f"{CALLBACK}?code=x&state=another")
    request = auth.exchange_request(ctx, asked, f"{CALLBACK}?code=made-up&state={asked.state}")
    with pytest.raises(AuthError, match="invalid_grant"):
        await auth.accept(ctx, await send_once(plug, request, ctx))


async def test_without_a_login_the_error_says_how_to_sign_in(provider: Provider) -> None:
    with pytest.raises(AuthError, match="not signed in") as caught:
        await provider.with_auth(login()).whoami()
    assert caught.value.next == ("khotan plug provider --login",)


async def test_a_refresh_token_that_the_provider_refuses_is_forgotten(provider: Provider, oidc: Service) -> None:
    auth = login()
    plug = provider.with_auth(auth)
    ctx = plug.context("", await plug.resolve())
    await auth.keep(ctx, auth.token_key(ctx), Token("ended-token", 1.0, 0.0, "made-up-refresh-token"))
    before = token_requests(oidc)
    with pytest.raises(AuthError, match="invalid_grant"):
        await plug.whoami()
    with pytest.raises(AuthError, match="not signed in"):
        await plug.whoami()
    assert token_requests(oidc) - before <= 1
    await sign_in(plug, auth)
    assert (await plug.whoami()).account == "tester"


async def until_expired(plug: Provider, oidc: Service) -> None:
    """Wait until the provider itself refuses the newest token of the plug."""
    texts = [token.access_token for token in plug.shared.tokens._tokens.values()]
    ends = time.monotonic() + 120
    async with httpx.AsyncClient(trust_env=False) as client:
        for text in texts:
            headers = {"Authorization": f"Bearer {text}"}
            while (await client.get(f"{oidc.url}/api/whoami", headers=headers)).status_code == 200:
                assert time.monotonic() < ends
                await asyncio.sleep(0.1)
