"""Plugs against httpbin: every authentication it knows, encodings, redirects, statuses, text; over both transports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from khotan_cli.errors import PlugError
from khotan_cli.runtime import ApiKeyAuth, BasicAuth, BearerAuth, CustomAuth, Plug, Retry, Var, get, post
from khotan_cli.runtime.http.call_context import CallContext
from tests.support.services import Service

pytestmark = pytest.mark.xdist_group("httpbin")


class Echo(BaseModel):
    url: str
    headers: dict[str, str]
    args: dict[str, Any] = {}
    form: dict[str, Any] = {}
    json_: Any = None
    data: str = ""


class Httpbin(Plug):
    base_url = "{server}"
    server = Var()
    retry = Retry(attempts=1)

    echo = get("/get", returns=Echo)
    anything = post("/anything/{part}", returns=dict[str, Any], body=dict)


@pytest.fixture(params=["aiohttp", "httpx"])
async def plug(request: pytest.FixtureRequest, httpbin: Service) -> AsyncIterator[Httpbin]:
    made = Httpbin().with_options(transport=request.param).with_vars(server=httpbin.url)
    async with made:
        yield made


async def test_bearer(plug: Httpbin) -> None:
    found = await plug.with_auth(BearerAuth("a-token")).get("/bearer")
    assert found == {"authenticated": True, "token": "a-token"}
    with pytest.raises(PlugError) as caught:
        await plug.get("/bearer")
    assert caught.value.code == "plug_refused"


@pytest.mark.parametrize(("user", "password"), [("user", "pass"), ("ü:", "ß %/+"), ("only-a-key", "")])
async def test_basic(plug: Httpbin, user: str, password: str) -> None:
    request = await plug.with_auth(BasicAuth(user, password)).get("/headers")
    scheme, text = request["headers"]["Authorization"].split()
    assert scheme == "Basic"
    assert text == httpx.BasicAuth(user.encode(), password.encode())._auth_header.split()[1]
    if user == "user":
        found = await plug.with_auth(BasicAuth(user, password)).get(f"/basic-auth/{user}/{password}")
        assert found["authenticated"] is True


async def test_digest_of_httpx_itself(plug: Httpbin) -> None:
    found = await plug.with_auth(httpx.DigestAuth("user", "pass")).get("/digest-auth/auth/user/pass")
    assert found["authenticated"] is True


async def test_api_key_in_a_header_and_in_the_query(plug: Httpbin) -> None:
    in_header = await plug.with_auth(ApiKeyAuth("k1", header="X-Key")).echo()
    assert in_header.headers["X-Key"] == "k1"
    in_query = await plug.with_auth(ApiKeyAuth("k 2&", query="key")).get("/get", params={"a": 1})
    assert in_query["args"] == {"a": "1", "key": "k 2&"}


async def test_a_function_as_authentication(plug: Httpbin) -> None:
    async def sign(request: httpx.Request, ctx: CallContext) -> None:
        request.headers["X-Signed"] = f"{request.method} {request.url.path}"

    assert (await plug.with_auth(CustomAuth(sign)).echo()).headers["X-Signed"] == "GET /get"


@pytest.mark.parametrize(("path", "mark"), [("/gzip", "gzipped"), ("/deflate", "deflated"), ("/brotli", "brotli")])
async def test_compressed_bodies_are_read(plug: Httpbin, path: str, mark: str) -> None:
    assert (await plug.get(path))[mark] is True


async def test_text_in_utf8(plug: Httpbin) -> None:
    page = await plug.get("/encoding/utf8")
    assert "∮ E⋅da = Q" in page
    assert "ሰማይ አይታረስ" in page


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_of_a_post(plug: Httpbin, status: int) -> None:
    response = await plug.raw("POST", "/redirect-to", params={"url": "/anything", "status_code": status}, body={"a": 1})
    seen = response.json()
    kept = status in (307, 308)
    assert seen["method"] == ("POST" if kept else "GET")
    assert seen["json"] == ({"a": 1} if kept else None)
    assert [step.status_code for step in response.history] == [status]


async def test_a_redirect_elsewhere_takes_no_credential_along(plug: Httpbin, httpbin: Service) -> None:
    elsewhere = httpbin.url.replace("127.0.0.1", "localhost")
    with_key = plug.with_auth(BearerAuth("must-stay-here")).with_options(headers={"X-Tenant": "t-1"})
    seen = await with_key.get("/redirect-to", params={"url": f"{elsewhere}/headers"})
    assert seen["headers"]["Host"].startswith("localhost")
    assert not {"Authorization", "X-Tenant"} & set(seen["headers"])
    here = await with_key.get("/redirect-to", params={"url": f"{httpbin.url}/headers"})
    assert here["headers"]["Authorization"] == "Bearer must-stay-here"


async def test_redirects_that_do_not_end(plug: Httpbin) -> None:
    assert (await plug.get("/redirect/5"))["url"].endswith("/get")
    with pytest.raises(PlugError, match="redirects"):
        await plug.get("/redirect/40")


@pytest.mark.parametrize("status", [200, 204, 400, 401, 403, 404, 405, 409, 418, 422, 429, 500, 502, 503, 504])
async def test_every_status(plug: Httpbin, status: int) -> None:
    if status < 300:
        await plug.get(f"/status/{status}")
        return
    with pytest.raises(PlugError) as caught:
        await plug.get(f"/status/{status}")
    assert caught.value.status == status
    assert caught.value.code == ("plug_refused" if status in (401, 403) else "unexpected_status")


async def test_path_parameters_query_and_body_arrive_unharmed(plug: Httpbin) -> None:
    seen = await plug.anything({"ä": ["✓", None, 1.5]}, part="a b/c?d%25é")
    assert seen["json"] == {"ä": ["✓", None, 1.5]}
    assert seen["url"].endswith("/anything/a%20b/c%3Fd%25é")  # as WSGI sees it, which decodes %2F too
    query = {"q": "50 % & more=?", "tag": ["x", "y"], "on": True}
    echoed = await plug.get("/get", params=query)
    assert echoed["args"]["q"] == "50 % & more=?"
    assert echoed["args"]["tag"] == ["x", "y"]
    assert echoed["args"]["on"] == "true"


async def test_a_body_that_arrives_in_pieces(plug: Httpbin) -> None:
    response = await plug.raw("GET", "/stream/20")
    assert len(response.content.splitlines()) == 20
