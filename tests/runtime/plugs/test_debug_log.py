"""The debug log shows no token that an answer holds, though nobody has been told that it is one."""

from __future__ import annotations

import json
import logging

import pytest

from khotan_cli.runtime import Plug, Retry
from tests.support.loopback import Answer, as_json, loopback

FRESH = "fresh-tok-8812"


@pytest.mark.parametrize(
    "answer",
    [
        as_json({"token": FRESH}),
        as_json({"data": {"authToken": FRESH, "jwt": FRESH}}),
        as_json({"webhook": {"signing_secret": FRESH}}),
        as_json({"accessToken": FRESH, "apiKey": FRESH}),
        as_json({}, X_Subject_Token=FRESH),
        as_json({}, Set_Cookie=f"sid={FRESH}"),
        as_json({}, Location=f"https://x.invalid/#id_token={FRESH}"),
        Answer(200, f'<r><s:token type="a">{FRESH}</s:token></r>'.encode(), {"Content-Type": "text/xml"}),
        Answer(200, f"session_token={FRESH}&a=1".encode(), {"Content-Type": "text/plain"}),
    ],
)
async def test_tokens_in_answers(
    answer: Answer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = await logged(answer, caplog, monkeypatch)
    assert FRESH not in shown and "••••" in shown


async def test_the_token_of_a_page_is_shown(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"nextPageToken": "page-2", "sync_token": "sync-3", "token_type": "bearer", "tokens_left": "9"}
    shown = await logged(as_json(document), caplog, monkeypatch)
    assert json.dumps(document) in shown


async def logged(answer: Answer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    class Api(Plug):
        base_url = "http://127.0.0.1:9"
        retry = Retry(attempts=1)
        follow_redirects = False

    monkeypatch.setenv("KHOTAN_DEBUG", "1")
    with caplog.at_level(logging.DEBUG, logger="khotan.plugs"):
        async with loopback(lambda asked: answer) as server:
            await Api().with_options(base_url=server.url).raw("GET", "/x")
    return "\n".join(record.getMessage() for record in caplog.records)
