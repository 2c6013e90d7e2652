"""What cannot be sent is an error of the plug, with its place; it is raised at once and not repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from khotan_cli.errors import AuthError, ConfigError, ParameterError, PlugError, PlugUnreachable
from khotan_cli.runtime import ApiKeyAuth, BasicAuth, BearerAuth, CustomAuth, Plug, Retry, Var, get
from tests.support.loopback import Answer, Asked, as_json, loopback


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    retry = Retry(attempts=3, backoff=0.001)
    read = get("/read", returns=dict[str, Any])
    with_header = get("/read", headers={"X-Own": "a\r\nX-Injected: 1"})


@pytest.fixture(params=["aiohttp", "httpx"])
def api(request: pytest.FixtureRequest) -> Api:
    return Api().with_options(transport=request.param)


@pytest.mark.parametrize("value", ["line\nbreak", "carriage\rreturn", "nul\0", "ümlaut", "emoji 😀", "half \ud800"])
async def test_header_values_that_cannot_be_sent(api: Api, value: str) -> None:
    async with loopback(lambda asked: as_json({})) as server:
        at = api.with_options(base_url=server.url)
        calls = [
            at.with_options(headers={"X-Own": value}).read(),
            at.get("/x", headers={"X-Own": value}),
        ]
        if value.isascii() or value[0] == "ü":
            calls += [
                at.with_options(auth=BearerAuth(value)).read(),
                at.with_options(auth=ApiKeyAuth(value, header="X-Own")).read(),
            ]
        for call in calls:
            with pytest.raises(PlugError) as caught:
                await call
            assert caught.value.code == "header_invalid" and value not in caught.value.message
            assert "'X-Own'" in caught.value.message or "'Authorization'" in caught.value.message
        with pytest.raises(PlugError, match="'X-Own'"):
            await at.with_header()
        with pytest.raises(PlugError, match="'bad name'"):
            await at.get("/x", headers={"bad name": "1"})
        assert not server.asked


async def test_what_hooks_and_credentials_add_is_checked_too(api: Api) -> None:
    def add(request: httpx.Request, ctx: Any) -> None:
        request.headers["X-Hook"] = "a\nb"

    async with loopback(lambda asked: as_json({})) as server:
        at = api.with_options(base_url=server.url)
        with pytest.raises(PlugError, match="'X-Hook'"):
            await at.with_options(auth=CustomAuth(add)).read()
        assert not server.asked
        await at.with_options(auth=BasicAuth("ü", "ö")).read()
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "place", ["http://[bad", "http://", "file:///etc/passwd", "gopher://x", "http://a:99999999/", "//"]
)
async def test_redirects_to_what_is_no_url(api: Api, place: str) -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(302, headers={"Location": place})

    async with loopback(answer) as server:
        with pytest.raises(PlugUnreachable, match="redirect") as caught:
            await api.with_options(base_url=server.url).read()
        assert len(server.asked) == 1 and "Location" in caught.value.hint


@pytest.mark.parametrize("url", ["http://[bad", "http://a:99999999/"])
async def test_urls_that_are_none(api: Api, url: str) -> None:
    with pytest.raises(PlugError) as caught:
        await api.get(url)
    assert caught.value.code == "url_invalid"


@pytest.mark.parametrize("kind", ["absent", "no certificate", "a folder"])
async def test_a_ca_file_that_cannot_be_used(api: Api, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if kind == "no certificate":
        path.write_text("hello")
    if kind == "a folder":
        path.mkdir()
    with pytest.raises(ConfigError) as caught:
        await api.with_options(base_url="https://127.0.0.1:9", verify=str(path)).read()
    assert str(path) in caught.value.message and "'api'" in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (lambda api: api.with_options(encoding="form").post("/x", body={"a": b"x", "b": ["\ud800"]}), ""),
        (lambda api: api.with_options(encoding="form").post("/x", body="half \udfff"), "The body"),
        (lambda api: api.get_one(item="half \ud800"), "path parameter 'item'"),
        (lambda api: api.get("/x", params={"a": {"b": "\ud800"}}), "Query parameter 'a[b]'"),
        (lambda api: api.post("/x", body={"a": "\ud800"}), "cannot be written as JSON"),
    ],
)
async def test_lone_surrogates_are_named_wherever_they_stand(call: Any, place: str) -> None:
    class Items(Api):
        get_one = get("/items/{item}")

    async with loopback(lambda asked: as_json({})) as server:
        with pytest.raises(ParameterError, match="lone surrogate, which UTF-8 cannot encode") as caught:
            await call(Items().with_options(base_url=server.url))
        assert place in caught.value.message and server.asked == []


async def test_a_variable_that_is_not_text_is_named_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment gives bytes that are not UTF-8 as lone surrogates (PEP 383)."""

    class Account(Api):
        tenant = Var(env="ACCOUNT_TENANT_NAME")
        auth = BasicAuth(tenant)

    monkeypatch.setenv("ACCOUNT_TENANT_NAME", "caf\udce9")
    with pytest.raises(ConfigError, match="'tenant' of plug 'account' is not UTF-8 text") as caught:
        await Account().read()
    assert "ACCOUNT_TENANT_NAME" in caught.value.hint


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("nonsense", "is not a URL"),
        ("socks9://me:pass-word@x:1", "the scheme 'socks9'"),
        ("ftp://x", "the scheme 'ftp'"),
    ],
)
async def test_a_proxy_that_cannot_be_used(api: Api, proxy: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await api.with_options(base_url="https://127.0.0.1:9", proxy=proxy).read()
    assert caught.value.message.startswith("Plug 'api': the proxy ")
    assert words in caught.value.message and "pass-word" not in str(caught.value) and "http" in caught.value.hint


@pytest.mark.parametrize("value", [5, None, ["a"]])
async def test_a_header_of_the_plug_that_is_not_text(api: Api, value: Any) -> None:
    with pytest.raises(PlugError, match="invalid header 'X-Number': its value is of type"):
        await api.with_options(headers={"X-Number": value, "X-Name": "{nothing}"}).read()


@pytest.mark.parametrize("value", [None, "", b"bytes", 5])
async def test_a_token_function_that_gives_none_is_not_asked_in_vain(api: Api, value: Any) -> None:
    async with loopback(lambda asked: as_json({})) as server:
        with pytest.raises(AuthError, match="The token function of plug 'api' returned"):
            await api.with_options(base_url=server.url, auth=BearerAuth(lambda: value)).read()
    assert server.asked == []


async def test_an_error_status_stays_one_though_its_body_cannot_be_read(api: Api) -> None:
    broken = Answer(503, b"no gzip", {"Content-Encoding": "gzip"})
    answers = [broken, as_json({"fine": True})]
    async with loopback(lambda asked: answers.pop(0)) as server:
        assert await api.with_options(base_url=server.url).read() == {"fine": True}
    async with loopback(lambda asked: Answer(400, b"too long " * 500, {})) as server:
        with pytest.raises(PlugError, match="too long too long") as caught:
            await api.with_options(base_url=server.url, max_response_bytes=1000).read()
    assert caught.value.status == 400 and caught.value.code == "unexpected_status"
