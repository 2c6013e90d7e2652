"""`error.status` is the status of the service's answer, for every error of a plug; `http_status` is khotan's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from khotan_cli.error_codes import CODES
from khotan_cli.errors import KhotanError, PlugError, UsageError
from khotan_cli.runtime import BearerAuth, ErrorBody, OAuth2ClientCredentials, Plug, Retry, TokenAuth, Var, get
from tests.support.loopback import Answer, Asked, as_json, loopback

JSON = {"Content-Type": "application/json"}


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    token = Var(secret=True)
    retry = Retry(attempts=1)
    read = get("/read", returns=dict[str, int])


@pytest.mark.parametrize(
    ("answer", "options", "status", "code"),
    [
        (as_json({}, 404), {}, 404, "unexpected_status"),
        (as_json({}, 401), {}, 401, "plug_refused"),
        (as_json({}, 503), {}, 503, "unexpected_status"),
        (as_json({"n": "x"}), {}, 200, "response_invalid"),
        (Answer(206, b"{", JSON), {}, 206, "response_invalid"),
        (Answer(203, b"<html>", {"Content-Type": "text/html"}), {}, 203, "response_invalid"),
        (Answer(200, b"x" * 99, JSON), {"max_response_bytes": 50}, 200, "response_too_large"),
        (Answer(201, b"no gzip", {**JSON, "Content-Encoding": "gzip"}), {}, 201, "response_invalid"),
        (Answer(202, b"x", {**JSON, "Content-Encoding": "made-up"}), {}, 202, "response_invalid"),
        (as_json({"error": 1}), {"error_body": ErrorBody("error")}, 200, "service_error"),
        (
            as_json({"error": "invalid_scope"}, 400),
            {"auth": OAuth2ClientCredentials("/t", "i", "s")},
            400,
            "auth_failed",
        ),
        (as_json({}, 418), {"auth": TokenAuth("/t", {"user": "u"})}, 418, "auth_failed"),
        (as_json({}), {"auth": TokenAuth("/t", {"user": "u"})}, 200, "auth_failed"),
        (Answer(drop=True), {}, None, "plug_unreachable"),
        (as_json({}), {"auth": BearerAuth(Api.token)}, None, "var_missing"),
        (as_json({}), {"headers": {"X": "\n"}}, None, "header_invalid"),
    ],
)
async def test_the_status_is_the_one_of_the_service(
    answer: Answer, options: dict[str, Any], status: int | None, code: str
) -> None:
    async with loopback(lambda asked: answer) as server:
        with pytest.raises(PlugError) as caught:
            await Api().with_options(base_url=server.url, **options).read()
    error = caught.value
    assert (error.status, error.code, error.http_status) == (status, code, CODES[code][0])
    assert error.response is None or isinstance(error.response.content, bytes)


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("path", ["/cut", "/slow", "/redirect"])
async def test_an_answer_that_breaks_off_had_a_status(transport: Any, path: str) -> None:
    never = asyncio.Event()

    async def handler(asked: Asked) -> Answer:
        if asked.path == "/redirect":
            return Answer(307, headers={"Location": "/dead"})
        if asked.path == "/dead":
            return Answer(drop=True)
        return Answer(raw=b"HTTP/1.1 203 OK\r\nContent-Length: 9\r\n\r\n{")

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 203 OK\r\nContent-Length: 9\r\n\r\n{")
        await never.wait()
        writer.close()

    slow = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with loopback(handler) as server:
        url = f"http://127.0.0.1:{slow.sockets[0].getsockname()[1]}" if path == "/slow" else server.url
        plug = Api().with_options(base_url=url, transport=transport, timeout=0.5 if path == "/slow" else 30.0)
        with pytest.raises(PlugError) as caught:
            await plug.get(path)
        await plug.aclose()
    never.set()
    slow.close()
    assert caught.value.code == ("plug_timeout" if path == "/slow" else "plug_unreachable")
    assert caught.value.status == (None if path == "/redirect" else 203)


def test_other_errors_have_only_the_status_of_our_own_api() -> None:
    assert UsageError("x").http_status == 422 and KhotanError("x", code="not_found").http_status == 404
    assert not hasattr(UsageError("x"), "status")
