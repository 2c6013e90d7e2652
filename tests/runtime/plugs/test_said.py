"""What a service says is in the error, masked and bounded; what khotan guesses says that it is a guess."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from khotan_cli.errors import AuthError, PlugError, ResponseInvalid
from khotan_cli.runtime import BearerAuth, LinkHeaderPaginator, Plug, Retry, TokenAuth, Var, get
from tests.support.loopback import Answer, Asked, as_json, loopback

SECRET = 'pa"ss\\wörd/1234567'


class Problem(BaseModel):
    why: str
    message: str


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    key = Var(secret=True, default="the-secret-key-1234")
    auth = BearerAuth(key)
    retry = Retry(attempts=1)
    paginator = LinkHeaderPaginator()
    read = get("/read", returns=dict[str, Any])
    declared = get("/declared", returns=dict[str, Any], responses={400: Problem})
    pages_of = get("/pages", returns=list[int])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"message": "resolves to a reserved network address"}, "resolves to a reserved network address"),
        ({"error": {"code": 7, "message": "no such field"}}, "no such field"),
        ({"detail": "Not allowed here"}, "Not allowed here"),
        ({"detail": [{"loc": ["body", "price"], "msg": "must be a number"}]}, "body.price: must be a number"),
        ({"errors": [{"field": "price", "message": "too low"}, "second"]}, "price: too low; second"),
        ({"errors": {"price": ["too low", "odd"]}}, "price: too low; odd"),
        ({"errors": [{"title": "Bad", "source": {"pointer": "/data/x"}}]}, "/data/x: Bad"),
        ({"status": 4, "reasonCode": "Z9"}, '{"status":4,"reasonCode":"Z9"}'),
        (["first", {"message": "second"}], "first; second"),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 422])
async def test_the_services_words_are_in_the_error(body: Any, said: str, status: int) -> None:
    async with loopback(lambda asked: as_json(body, status)) as server:
        api = Api().with_options(base_url=server.url)
        for call in (api.read(), api.get("/read"), _first(api)):
            with pytest.raises(PlugError) as caught:
                await call
            assert caught.value.message.endswith(f": {said}")
            assert not caught.value.hint or "guess" in caught.value.hint


async def _first(api: Api) -> list[int]:
    return await anext(api.pages_of.pages())


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("text/plain", b"You may not\n\x1b[31mdo this", "You may not [31mdo this"),
        ("text/html", b"<html><head><title>x</title></head><body><h1>Too big</h1></body></html>", "Too big"),
        ("application/json", b"{not json", "{not json"),
        ("application/problem+json", b'\xef\xbb\xbf{"title": "Odd", "detail": "It is odd"}', "It is odd; Odd"),
        ("text/plain", b"x" * 5000, "x" * 300 + "…"),
    ],
)
async def test_other_bodies_are_quoted_in_one_bounded_line(kind: str, body: bytes, said: str) -> None:
    async with loopback(lambda asked: Answer(400, body, {"Content-Type": kind})) as server:
        with pytest.raises(PlugError) as caught:
            await Api().with_options(base_url=server.url).read()
    assert caught.value.message.endswith(f": {said}")


async def test_the_declared_model_speaks_and_secrets_are_masked() -> None:
    def echo(asked: Asked) -> Answer:
        return as_json({"why": "x", "message": f"refused: {asked.headers['authorization']}"}, 400)

    async with loopback(echo) as server:
        with pytest.raises(PlugError) as caught:
            await Api().with_options(base_url=server.url).declared()
    assert "refused: Bearer ••••1234" in caught.value.message and isinstance(caught.value.body, Problem)


async def test_withheld_credentials_are_not_called_refused() -> None:
    async with loopback(lambda asked: as_json({"message": "who are you?"}, 401)) as other:
        link = {"Content-Type": "application/json", "Link": f'<{other.url}/next>; rel="next"'}
        async with loopback(lambda asked: Answer(200, b"[1]", link)) as server:
            api = Api().with_options(base_url=server.url)
            with pytest.raises(PlugError) as caught:
                [page async for page in api.pages_of.pages()]
    assert caught.value.code == "unexpected_status" and "who are you?" in caught.value.message
    assert "no credentials were sent" in caught.value.hint and not caught.value.next


async def test_an_answer_that_does_not_fit_quotes_nothing_secret() -> None:
    body = b'"' + b"the-secret-key-1234 " * 3 + b'" oops'
    async with loopback(lambda asked: Answer(200, body, {"Content-Type": "text/plain"})) as server:
        with pytest.raises(ResponseInvalid) as caught:
            await Api().with_options(base_url=server.url).read()
    assert "the-secret" not in caught.value.message and "••••1234" in caught.value.message


# -- token endpoints ---------------------------------------------------------------------------------------------------

ACCESS, REFRESH = "gho_acc3ssT0kenV4lue99", "ghr_r3freshT0ken77"


def token_plug(url: str) -> Api:
    auth = TokenAuth("/token", {"client_id": "me"}, refresh="refresh_token")
    return Api().with_options(base_url=url, auth=auth)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", json.dumps({"access_token": ACCESS, "refresh_token": REFRESH})[:-9].encode()),
        ("text/plain", f"access: {ACCESS}\nrefresh: {REFRESH}".encode()),
        ("application/json", json.dumps({"data": {"accessToken": ACCESS, "refresh_token": REFRESH}}).encode()),
        ("application/x-www-form-urlencoded", f"token={ACCESS}&refresh_token={REFRESH}".encode()),
        ("text/html", f"<p>{ACCESS} {REFRESH}</p>".encode()),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
async def test_a_token_endpoints_answer_is_never_quoted(
    kind: str, body: bytes, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KHOTAN_DEBUG", "1")
    caplog.set_level("DEBUG")
    async with loopback(lambda asked: Answer(status, body, {"Content-Type": kind})) as server:
        with pytest.raises(AuthError) as caught:
            await token_plug(server.url).read()
    for text in (str(caught.value), json.dumps(caught.value.to_json()), caplog.text):
        assert not any(part in text for part in (ACCESS[:8], ACCESS[-6:], REFRESH[:8], REFRESH[-6:]))


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded; charset=utf-8", "text/plain", "application/json"])
async def test_form_encoded_token_answers_are_understood(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KHOTAN_DEBUG", "1")
    caplog.set_level("DEBUG")

    def answer(asked: Asked) -> Answer:
        if asked.path == "/token":
            text = f"access_token={ACCESS}&expires_in=28800&refresh_token={REFRESH}&scope=&token_type=bearer"
            return Answer(200, text.encode(), {"Content-Type": kind})
        return as_json({"fine": asked.headers["authorization"] == f"Bearer {ACCESS}"})

    async with loopback(answer) as server:
        assert await token_plug(server.url).read() == {"fine": True}
    assert ACCESS not in caplog.text and REFRESH not in caplog.text


@pytest.mark.parametrize(
    "body", [b"error=bad_code&error_description=The+code+is+old.", b'\xef\xbb\xbf{"error": "bad_code"}']
)
async def test_a_token_error_inside_a_200_is_an_error(body: bytes) -> None:
    async with loopback(lambda asked: Answer(200, body, {"Content-Type": "text/plain"})) as server:
        with pytest.raises(AuthError, match="bad_code"):
            await token_plug(server.url).read()


async def test_a_byte_order_mark_before_a_token_is_ignored() -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path == "/token":
            return Answer(200, b'\xef\xbb\xbf{"access_token": "abc"}', {"Content-Type": "application/json"})
        return as_json({"sent": asked.headers["authorization"]})

    async with loopback(answer) as server:
        assert await token_plug(server.url).read() == {"sent": "Bearer abc"}
