"""What `khotan_cli.runtime` offers, what importing it costs, and what type checkers see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import khotan_cli.runtime as runtime
from tests.support.checkers import checker_environment

PINNED = """
ApiKeyAuth AuthError AuthorizationRequest BasicAuth BearerAuth Cache CallContext CursorPaginator CustomAuth Endpoint
ErrorBody Finding Flow FlowContext FlowError Hooks MappingConflict MappingEntry MaskSecrets PushResult Resource RunInfo RunResult
SlackNotifier Step Token TimestampFormat SyncResult Upserted Variant inflow ingest outflow relay step upsert
FunctionPaginator HmacAuth JsonApiPaginator KeysetPaginator Khotan KhotanError LinkHeaderPaginator
NextUrlPaginator OAuth2AuthorizationCode OAuth2ClientCredentials OffsetPaginator PageNumberPaginator PageView
PaginationError Paginator ParameterError Plug PlugAuth PlugError PlugTimeout PlugUnreachable RateLimit RenewedAuth Report
Quota ResponseInvalid Retry SigningInput SinglePagePaginator TokenAuth Var
delete endpoint get head options parse_csv parse_xml patch post put xml_parser
Event EventInfo Rule SentRecord SubscribeContext Subscription WebhookRequest Wire challenges joined signatures
"""


def test_the_names_are_pinned_and_load() -> None:
    assert sorted(runtime.__all__) == sorted(PINNED.split())
    for name in PINNED.split():
        assert getattr(runtime, name) is not None
    assert set(PINNED.split()) <= set(dir(runtime))


def test_a_plug_needs_neither_web_framework_nor_database() -> None:
    # rich is not in the list: httpx imports it for a command line of its own, where it is installed.
    code = (
        "import sys\nfrom khotan_cli.runtime import BearerAuth, Plug, Retry, Var, get\n"
        "print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) & {"fastapi", "sqlmodel", "sqlalchemy", "alembic", "typer", "copier"} == set()


SAMPLE = """
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import httpx
from khotan_cli.runtime import Endpoint, Plug, get, post
from pydantic import BaseModel


class Item(BaseModel):
    id: int


class Data(BaseModel):
    data: list[Item]


class Results(BaseModel):
    results: list[Item]


class Other(BaseModel):
    things: list[Item]


class Api(Plug):
    base_url = "https://x.example"
    one = get("/one", returns=Item)
    many = get("/many", returns=list[Item])
    data = get("/data", returns=Data)
    results = get("/results", returns=Results)
    other = get("/other", returns=Other)
    loose = get("/loose")
    either = post("/either", returns=Item | Data, body=Item)
    typed = get("/typed", returns=Other, item=Item)


api = Api()
assert_type(Api.one, Endpoint[Item])


async def main() -> None:
    assert_type(await api.one(id=1), Item)
    assert_type(await api.with_vars(a="b").with_options(timeout=1).one(), Item)
    assert_type(await api.many(), list[Item])
    assert_type(await api.loose(), Any)
    assert_type(await api.one.raw(), httpx.Response)
    async for page in api.data.pages(limit=1):
        assert_type(page, Data)
    assert_type(api.many.items(), AsyncIterator[Item])
    assert_type(api.other.items(), AsyncIterator[Any])
    assert_type(api.typed.items(limit=1), AsyncIterator[Item])
    assert_type(await api.typed(), Other)
    async for result in api.one.batch_post([Item(id=1)], size=10):
        assert_type(result.response, Item | None)


def script() -> None:
    assert_type(api.one.blocking(id=1), Item)
    assert_type(api.loose.blocking(), Any)
    assert_type(api.one.blocking.raw(), httpx.Response)
    assert_type(api.data.blocking.pages(), Iterator[Data])
    assert_type(api.many.blocking.items(), Iterator[Item])
    assert_type(api.typed.blocking.items(), Iterator[Item])
    for batch in api.one.blocking.batch_post([Item(id=1)]):
        assert_type(batch.response, Item | None)
"""
ITEMS_OF_PAGES = """
    assert_type(api.data.items(), AsyncIterator[Item])
    assert_type(api.results.items(), AsyncIterator[Item])
"""
"""mypy makes Any of it: it does not look into a protocol for the type variable of an overload's self."""
WRONG = "\n\nasync def wrong() -> str:\n    return await api.one()\n"


@pytest.mark.parametrize(
    ("tool", "more"),
    [(["mypy", "--strict"], ""), (["pyright", "--pythonpath", sys.executable], ITEMS_OF_PAGES)],
    ids=["mypy", "pyright"],
)
def test_type_checkers_see_what_a_call_returns(tmp_path: Path, tool: list[str], more: str) -> None:
    """One run over both modules: the only error is in the one that is wrong, at its last line."""
    good, wrong = tmp_path / "good.py", tmp_path / "wrong.py"
    good.write_text(SAMPLE + more)
    wrong.write_text(SAMPLE + WRONG)
    command = [sys.executable, "-m", *tool, good.name, wrong.name]
    env = checker_environment(tmp_path)
    done = subprocess.run(command, check=False, cwd=tmp_path, env=env, capture_output=True, text=True)
    last = len(wrong.read_text().splitlines())
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert done.returncode == 1 and len(errors) == 1, done.stdout
    assert f"wrong.py:{last}" in errors[0], done.stdout
