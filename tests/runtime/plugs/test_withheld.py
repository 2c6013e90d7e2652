"""Errors of another origin say that no credentials were sent, and name both origins."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from khotan_cli.errors import PlugError
from khotan_cli.runtime import BearerAuth, ErrorBody, NextUrlPaginator, Plug, Retry, get
from khotan_cli.runtime.redaction.withheld import why_withheld
from tests.support.loopback import Answer, Asked, as_json, loopback


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    auth = BearerAuth("top-secret-token")
    retry = Retry(attempts=1)
    error_body = ErrorBody("error")
    read = get("/read", returns=dict[str, int])
    listed = get("/list", returns=dict[str, Any], paginator=NextUrlPaginator(items="data", path="next"))


ANSWERS = [
    as_json({}, 401),
    as_json({}, 404),
    as_json({}, 500),
    as_json({"error": "who are you"}),
    Answer(200, b"<html>sign in", {"Content-Type": "text/html"}),
    Answer(200, b"{", {"Content-Type": "application/json"}),
    Answer(drop=True),
]


@pytest.mark.parametrize("way", ["url", "redirect", "next"])
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("options", [{}, {"auth": None, "headers": {"X-Key": "top-secret-token"}}])
async def test_both_origins_are_named(answer: Answer, way: str, options: dict[str, Any]) -> None:
    async with loopback(lambda asked: answer) as other:

        def own(asked: Asked) -> Answer:
            if way == "next":
                return as_json({"data": [{"id": 1}], "next": f"{other.url}/more"})
            return Answer(307, headers={"Location": f"{other.url}/there"})

        async with loopback(own) as server:
            plug = Api().with_options(base_url=server.url, **options)
            with pytest.raises(PlugError) as caught:
                if way == "next":
                    [item async for item in plug.listed.items()]
                elif way == "url" and answer.headers.get("Content-Type") != "text/html":
                    await plug.get(f"{other.url}/x")
                else:
                    await plug.read()
    hint = caught.value.hint
    assert server.url in hint and other.url in hint and "no credentials were sent" in hint and "port" in hint
    assert all("top-secret-token" not in str(asked.headers) for asked in other.asked)


async def test_nothing_is_said_where_credentials_were_sent_or_there_are_none() -> None:
    async with loopback(lambda asked: as_json({}, 401)) as server:
        for plug, url in ((Api(), "/x"), (Api().with_auth(None), "http://localhost" + server.url[16:])):
            with pytest.raises(PlugError) as caught:
                await plug.with_options(base_url=server.url).get(url)
            assert "no credentials" not in caught.value.hint


async def test_a_redirect_that_comes_back_is_authenticated_again() -> None:
    async with loopback(lambda asked: Answer(302, headers={"Location": f"{home.url}/back"})) as other:

        def own(asked: Asked) -> Answer:
            away = asked.path == "/x"
            return Answer(302, headers={"Location": f"{other.url}/there"}) if away else as_json({}, 403)

        async with loopback(own) as home:
            with pytest.raises(PlugError) as caught:
                await Api().with_options(base_url=home.url).get("/x")
    assert home.asked[1].headers["authorization"] == "Bearer top-secret-token"
    assert "no credentials" not in caught.value.hint


@pytest.mark.parametrize(
    ("url", "base", "words"),
    [
        (
            "http://api.example/x?a=1",
            "https://api.example/v1",
            ["http://api.example,", "https://api.example ", "scheme)"],
        ),
        ("https://api.example:8443/", "https://api.example", ["https://api.example:8443,", "(different port)"]),
        ("https://eu.api.example/", "https://api.example", ["https://eu.api.example,", "(different host)"]),
        ("http://b.example:81", "https://a.example:82", ["(different scheme, host and port)"]),
        ("https://[::1]:81", "https://[::1]", ["https://[::1]:81,", "https://[::1] "]),
    ],
)
def test_the_difference_is_named(url: str, base: str, words: list[str]) -> None:
    text = why_withheld(httpx.URL(url), httpx.URL(base))
    assert all(word in text for word in words), text
