"""A flow that fails at a token endpoint leaves no part of a token in any table, nor in any log."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import MetaData, text

from khotan_cli.runtime import FlowContext, OAuth2ClientCredentials, Plug, Retry, TokenAuth, inflow
from khotan_cli.runtime.runs.environment import Environment
from tests.runtime.flows.conftest import Run
from tests.support.loopback import Answer, loopback

TOKEN = "ya29.a0Af-H6SMBx7Qtoken0123456789"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_JSON = {"Content-Type": "application/json"}
ANSWERS = {
    "a form without a token": Answer(200, f"sitzung={TOKEN}".encode(), _FORM),
    "a form that is an error": Answer(400, f"error=invalid_grant&error_description={TOKEN}&x={TOKEN}".encode(), _FORM),
    "text": Answer(200, TOKEN.encode(), {"Content-Type": "text/plain"}),
    "text of an error": Answer(500, f"cannot renew {TOKEN}".encode(), {"Content-Type": "text/plain"}),
    "truncated JSON": Answer(200, f'{{"access_token": "{TOKEN}", "expires'.encode(), _JSON),
    "JSON that is cut inside of the token": Answer(200, f'{{"access_token": "{TOKEN}'.encode(), _JSON),
    "JSON of an error": Answer(401, f'{{"error": "invalid_client", "message": "{TOKEN}"}}'.encode(), _JSON),
    "JSON of another type": Answer(200, f'{{"access_token": "{TOKEN}", "token_type": "mac"}}'.encode(), _JSON),
    "JSON under another name": Answer(200, f'{{"zugang": "{TOKEN}", "error": "{TOKEN}"}}'.encode(), _JSON),
}  # fmt: skip


@pytest.mark.parametrize("what", ANSWERS)
@pytest.mark.parametrize("kind", ["oauth", "exchange"])
async def test_no_token_is_stored_or_logged(
    host: Environment, run: Run, what: str, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KHOTAN_DEBUG", "1")
    caplog.set_level(logging.DEBUG)
    auth = (
        OAuth2ClientCredentials("/token", "id", "s3cret")
        if kind == "oauth"
        else TokenAuth("/token", {"user": "u"}, token="data.jwt")
    )
    async with loopback(lambda asked: ANSWERS[what]) as server:

        class Crm(Plug):
            base_url = server.url
            retry = Retry(attempts=2, backoff=0)

        crm = Crm(name="crm").with_auth(auth)
        crm.bind(host.vars, ttl=60.0)
        host.plugs["crm"] = crm  # type: ignore[index]

        @inflow(crm)
        async def flow(ctx: FlowContext) -> None:
            await ctx.log("begins")
            await crm.get("/records")

        row = await run(flow)
    assert (row.status, row.error["error"]) == ("failed", "auth_failed"), row.error
    stored = await everything(host)
    assert row.id in stored and "begins" in stored and "crm" in row.error["message"]
    assert "not shown: they contain tokens" in caplog.text
    for part in (TOKEN, TOKEN[:12], TOKEN[-12:]):
        assert part not in stored and part not in caplog.text


async def everything(host: Environment) -> str:
    """Every row of every table, as text."""
    rows: list[str] = []
    async with host.database.writing() as session:
        tables = MetaData()
        connection = await session.connection()
        await connection.run_sync(tables.reflect)
        assert "khotan_runs" in tables.tables
        for name in tables.tables:
            rows += [repr(row) for row in await session.execute(text(f'SELECT * FROM "{name}"'))]
    return "\n".join(rows)
