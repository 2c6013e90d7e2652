"""The words of services, in the shapes in which they send them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from khotan_cli.errors import AuthError, PlugError, ResponseInvalid
from khotan_cli.runtime import OAuth2ClientCredentials, Plug, Retry, TokenAuth
from tests.support.loopback import Answer, as_json, loopback

SECRET = "tok-secret-abc-123"


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    retry = Retry(attempts=1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"errors": "[API] Invalid key"}, "[API] Invalid key"),
        ({"errors": {"base": ["Too many"], "title": "can't be blank"}}, "base: Too many; title: can't be blank"),
        ({"Message": "Outer", "Elements": [{"ValidationErrors": [{"Message": "Inner"}]}]}, "Outer; Inner"),
        ({"error": {"code": "X", "message": {"lang": "en", "value": "Property unknown"}}}, "Property unknown"),
        ({"errorMessages": ["No issue"], "errors": {"summary": "Say more"}}, "No issue; summary: Say more"),
        ({"price": ["Not a number."], "non_field_errors": ["No"]}, "price: Not a number.; non_field_errors: No"),
        ({"error": {"message": "outer", "innerError": {"message": "inner"}}}, "outer; inner"),
        ({"o:errorDetails": [{"detail": "Invalid field"}], "title": "Bad"}, "Bad; Invalid field"),
        ({"message": "No", "invalidFields": [{"name": "amount", "message": "is negative"}]}, "No; amount: is negative"),
        ({"Fault": {"Error": [{"Message": "Invalid Number", "Detail": "abc"}]}}, "Invalid Number; abc"),
        ({"code": 5, "items": [{"message": "of a record"}]}, '{"code":5,"items":[{"message":"of a record"}]}'),
    ],
)
async def test_shapes_of_refusals(body: Any, said: str) -> None:
    async with loopback(lambda asked: as_json(body, 400)) as server:
        with pytest.raises(PlugError) as caught:
            await Api().with_options(base_url=server.url).get("/x")
    assert caught.value.message.partition("/x: ")[2] == said


@pytest.mark.parametrize("charset", ["utf8mb4", "x-unknown"])
async def test_an_unknown_charset_hides_no_status(charset: str) -> None:
    def answer(status: int, kind: str, body: bytes) -> Answer:
        return Answer(status, body, {"Content-Type": f"{kind}; charset={charset}"})

    async with loopback(lambda asked: answer(500, "text/html", b"<body>b\xc3\xb6om</body>")) as server:
        with pytest.raises(PlugError) as caught:
            await Api().with_options(base_url=server.url).get("/x")
    assert caught.value.status == 500 and caught.value.message.endswith(": böom")
    async with loopback(lambda asked: answer(200, "text/csv", b"a,b")) as server:
        with pytest.raises(ResponseInvalid, match=f"has the unknown charset '{charset}'"):
            await Api().with_options(base_url=server.url).get("/x")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"errors": [{"code": "invalid_key", "detail": "It was revoked"}]}, ": invalid_key (It was revoked)"),
        (200, {"errors": [{"message": "Bad credentials"}]}, ": Bad credentials"),
        (401, {"fault": {"faultstring": "Invalid ApiKey"}}, ": Invalid ApiKey"),
        (200, {"success": False, "result": {"message": "no such user"}}, ": no such user"),
        (
            401,
            {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid. Trace 8a5e7a16-d0c1-4b1c-8b5c"},
            ": invalid_client (AADSTS7000215: Invalid. Trace ••••)",
        ),
        (400, {"error": "x", "error_description": f"token {SECRET} expired"}, ": x (token •••• expired)"),
        (400, {"error": "x", "error_description": "token sk_live_abcdef9"}, ": x (token ••••)"),
        (400, {"error": "x", "error_description": "9abcdefg, is it?"}, ": x (••••, is it?)"),
        (400, {"error": "x", "error_description": "token abcdefghijklmnopqrstuvwxyz"}, ": x (token ••••)"),
        (400, {"error": "x", "error_description": "token 123456789012345678"}, ": x (token ••••)"),
        (200, {"data": {"message": SECRET, "tok": SECRET}}, " without a token at 'access_token'"),
        (401, [{"message": SECRET}], "answered 401"),
    ],
)
async def test_reasons_of_token_endpoints(status: int, body: Any, said: str) -> None:
    async with loopback(lambda asked: Answer(status, json.dumps(body).encode(), {})) as server:
        api = Api().with_options(base_url=server.url, auth=TokenAuth("/token", {"k": "v"}))
        with pytest.raises(AuthError) as caught:
            await api.get("/x")
    assert caught.value.message.endswith(said) and f"answered {status}" in caught.value.message
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("issued", "shown"), [("DPoP", "DPoP"), ("mac", "mac"), (SECRET, "••••"), ("two words", "••••"), (["x"], "••••")]
)
async def test_the_type_of_a_token_is_named_in_the_hint(issued: Any, shown: str) -> None:
    async with loopback(lambda asked: as_json({"access_token": "x", "token_type": issued})) as server:
        api = Api().with_options(base_url=server.url, auth=OAuth2ClientCredentials("/token", "id", "s"))
        with pytest.raises(AuthError, match=f"of type '{shown}'") as caught:
            await api.get("/x")
    assert f"token_type='{shown}'" in caught.value.hint and SECRET not in str(caught.value)


@pytest.mark.parametrize("options", [{"expires_unit": "minutes"}, {"method": "G ET"}, {"method": ""}])
def test_options_of_token_auth_are_checked_where_they_are_declared(options: Any) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        TokenAuth("/token", {"k": "v"}, **options)
