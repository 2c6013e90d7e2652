"""What several processes with one database share: tokens, refresh tokens that rotate, rate limits, holds."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.support.children import end_with_parent
from tests.support.loopback import Answer, Asked, as_json, threaded_loopback
from tests.support.migrated import upgrade
from tests.support.project import SECRET

PROCESSES = 3
WORKER = """
import asyncio, sys, time
from pathlib import Path
from khotan_cli.runtime import OAuth2AuthorizationCode, OAuth2ClientCredentials, Plug, RateLimit, Retry, Var, get
from khotan_cli.runtime.auth.oauth2 import AuthorizationRequest
from khotan_cli.runtime.http.pipeline import send_once
from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.store.rate_limits import DatabaseRateStore
from khotan_cli.runtime.store.variables import DatabaseVarStore

database_url, base, secret = sys.argv[1:4]

class Api(Plug):
    base_url = base
    client = Var(default="id")
    retry = Retry(attempts=1)
    read = get("/read", returns=dict[str, int])

async def main():
    database = Database(database_url, Path("/"))
    plug = Api()
    plug.bind(DatabaseVarStore(database, Cipher(secret)), DatabaseRateStore(database), ttl=0.1)
    sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
    await work(plug)
    await database.dispose()
"""


def run_workers(work: str, database_url: str, base: str, *, processes: int = PROCESSES) -> None:
    """Start the processes, let them go at once, and see all of them succeed."""
    code = WORKER + work + "\nasyncio.run(main())\n"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, database_url, base, SECRET],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors


@pytest.fixture
def migrated(database_url: str, tmp_path: Path) -> str:
    upgrade(database_url, tmp_path)
    return database_url


def test_one_token_for_all_processes(migrated: str) -> None:
    issued = 0

    async def handler(asked: Asked) -> Answer:
        nonlocal issued
        if asked.path == "/token":
            await asyncio.sleep(0.2)  # long enough for every process to want one
            issued += 1
            return as_json({"access_token": f"t{issued}", "expires_in": 3600})
        return as_json({"n": issued}, 200 if asked.headers.get("authorization") == f"Bearer t{issued}" else 401)

    work = """
async def work(plug):
    plug = plug.with_auth(OAuth2ClientCredentials("/token", Api.client, "s"))
    await asyncio.gather(*(plug.read() for _ in range(20)))
"""
    with threaded_loopback(handler) as server:
        run_workers(work, migrated, server.url)
    assert issued == 1


def test_a_refresh_token_that_rotates_is_used_once_by_one_of_them(migrated: str) -> None:
    current, refreshes, reused = "r0", 0, 0

    def handler(asked: Asked) -> Answer:
        nonlocal current, refreshes, reused
        if asked.path == "/token":
            given = {key: values[0] for key, values in parse_qs(asked.body.decode()).items()}
            if given["grant_type"] == "refresh_token":
                if given["refresh_token"] != current:
                    reused += 1
                    return as_json({"error": "invalid_grant"}, 400)
                refreshes += 1
                current = f"r{refreshes}"
            # Lives 3 s; the leeway is a tenth of it.
            return as_json({"access_token": f"a{refreshes}", "refresh_token": current, "expires_in": 3})
        return as_json({"n": refreshes}, 200 if asked.headers.get("authorization") == f"Bearer a{refreshes}" else 401)

    work = """
async def work(plug):
    auth = OAuth2AuthorizationCode("/auth", "/token", Api.client)
    plug = plug.with_auth(auth)
    ctx = plug.context("", await plug.resolve())
    if not await auth.stored(ctx, auth.token_key(ctx)):
        async with plug.shared.vars.lock("sign-in"):
            if not await auth.stored(ctx, auth.token_key(ctx)):
                asked = AuthorizationRequest("", "state", "v" * 43, "http://127.0.0.1:1/cb")
                request = auth.exchange_request(ctx, asked, "http://127.0.0.1:1/cb?code=c&state=state")
                await auth.accept(ctx, await send_once(plug, request, ctx))
    while (await plug.read())["n"] < 2:
        await asyncio.gather(*(plug.read() for _ in range(3)))
        await asyncio.sleep(0.05)
"""
    with threaded_loopback(handler) as server:
        run_workers(work, migrated, server.url)
    assert reused == 0 and refreshes >= 2


def test_a_rate_binds_all_processes(migrated: str) -> None:
    # Eight places now and the next in an hour. A call whose turn comes after its deadline ends at once.
    work = """
async def work(plug):
    plug = plug.with_options(rate_limit=RateLimit(requests=1, per=3600, burst=8), retry=Retry(attempts=1, deadline=60))
    ended = await asyncio.gather(*(plug.read() for _ in range(8)), return_exceptions=True)
    refused = [str(call) for call in ended if isinstance(call, Exception)]
    assert all("it must wait" in text for text in refused), refused
"""
    with threaded_loopback(lambda asked: as_json({"n": 1})) as server:
        run_workers(work, migrated, server.url)
        assert len(server.asked) == 8


def test_a_hold_binds_all_processes(migrated: str) -> None:
    work = """
async def work(plug):
    try:
        await plug.read()
    except Exception as exc:
        assert "requested a pause" in str(exc) or "429" in str(exc), exc
    else:
        raise AssertionError("the service asked to wait")
"""
    with threaded_loopback(lambda asked: as_json({}, 429, Retry_After="3600")) as server:
        run_workers(work, migrated, server.url, processes=1)
        run_workers(work, migrated, server.url)
        assert len(server.asked) == 1
