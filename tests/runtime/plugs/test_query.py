"""Query strings: what they carry is read back as it was meant; what they cannot carry is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from khotan_cli.errors import ParameterError
from khotan_cli.runtime import Plug, get
from khotan_cli.runtime.content.query import encode_query
from tests.support.loopback import Answer, Asked, as_json, loopback


class Range(BaseModel):
    gte: int | None = None
    lt: int | None = None


@dataclass
class Point:
    x: int
    y: int


class Search(BaseModel):
    where: dict[str, Any] = {}
    tags: list[str] = []
    page: int = 1
    state: str | None = None


class Api(Plug):
    base_url = "http://127.0.0.1:9"
    search = get("/search", returns=dict[str, Any], query=Search)
    by_json = get("/search", returns=dict[str, Any], query_json=["where"])


@pytest.mark.parametrize(
    "value",
    [
        {"$exists": False},
        {"$exists": True},
        {"vendor": None},
        {"a": {"b": None}},
        {"a": {}},
        {"a": []},
        {"a": [True]},
        {"a": [{"b": 1}]},
        [{"a": 1}, {"b": 2}],
        [[1], [2]],
        [1, None],
        [],
        float("nan"),
        Decimal("Infinity"),
        "\ud800",
        b"\xff",
        object(),
    ],
    ids=lambda value: type(value).__name__ if type(value) is object else repr(value),
)
@pytest.mark.parametrize("arrays", ["repeat", "brackets", "comma"])
def test_what_a_query_cannot_carry_is_refused_by_name(value: Any, arrays: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        encode_query({"page": 1, "where": value}, arrays)
    assert "'where" in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("value", "arrays", "text"),
    [
        ({"created": {"gte": 5}}, "repeat", "q[created][gte]=5"),
        ({"id": {"$in": ["a"]}}, "repeat", "q[id][%24in][]=a"),
        ({"id": ["a", "b"]}, "brackets", "q[id][]=a&q[id][]=b"),
        ({"id": ["a", "b"]}, "comma", "q[id]=a,b"),
        ({"a]b[": 1}, "repeat", "q[a%5Db%5B]=1"),
        (["a,b", "c"], "comma", "q=a%2Cb,c"),
        (["a"], "repeat", "q=a"),
        (["a"], "brackets", "q[]=a"),
        ({3, 1, 2}, "comma", "q=1,2,3"),
        (frozenset({"b", "a"}), "repeat", "q=a&q=b"),
        ((n for n in (1, 2)), "repeat", "q=1&q=2"),
        (range(2), "comma", "q=0,1"),
        (Range(gte=1), "repeat", "q[gte]=1"),
        (Point(1, 2), "repeat", "q[x]=1&q[y]=2"),
        (Decimal("1.50"), "repeat", "q=1.50"),
        (False, "repeat", "q=false"),
        (None, "repeat", ""),
    ],
)
def test_what_a_query_carries(value: Any, arrays: Any, text: str) -> None:
    assert encode_query({"q": value}, arrays) == text


@pytest.mark.parametrize("value", [{"$exists": False}, {"vendor": None}, [{"a": [1]}], ["a"], [], {}, "a", True])
async def test_a_parameter_declared_as_json_arrives_as_it_is(value: Any) -> None:
    def echo(asked: Asked) -> Answer:
        return as_json({"where": json.loads(asked.query["where"])})

    async with loopback(echo) as server:
        api = Api().with_options(base_url=server.url)
        assert (await api.by_json(where=value))["where"] == value
        assert (await api.with_options(query_json=["where"]).get("/x", params={"where": value}))["where"] == value


async def test_a_mapping_that_gives_none_is_refused_before_anything_is_sent() -> None:
    async with loopback(lambda asked: as_json({})) as server:
        api = Api().with_options(base_url=server.url)
        for call in (
            api.get("/x", params={"vendor": None}),
            api.search(query={"state": None}),
            api.search(where={"vendor": None}),
            api.search(tags=[]),
        ):
            with pytest.raises(ParameterError):
                await call
        await api.search()
        await api.search(state=None, where={"a": 1})
    assert [asked.target for asked in server.asked] == ["/search?page=1", "/search?where[a]=1&page=1"]


@pytest.mark.parametrize("value", [["a"], {"a": 1}, {1}, Range(gte=1)])
async def test_a_path_parameter_is_a_single_value(value: Any) -> None:
    class Shop(Plug):
        base_url = "http://127.0.0.1:9"
        item = get("/items/{id}")

    with pytest.raises(ParameterError, match="'id'"):
        await Shop().item(id=value)


class Vendor(BaseModel):
    vendor: str | None = None
    region: str | None = None


async def test_a_parameter_that_is_sent_as_json_can_be_null() -> None:
    class Declared(Plug):
        base_url = "http://127.0.0.1:9"
        query_json = ("vendor",)
        open = get("/open")
        typed = get("/typed", query=Vendor)

    async with loopback(lambda asked: as_json({})) as server:
        api = Declared().with_options(base_url=server.url)
        await api.get("/raw", params={"vendor": None})
        await api.open(query={"vendor": None})
        await api.typed(query={"vendor": None})
        for call in (api.get("/raw", params={"region": None}), api.open(query={"region": None})):
            with pytest.raises(ParameterError, match="'region' is None"):
                await call
    assert [asked.target for asked in server.asked] == ["/raw?vendor=null", "/open?vendor=null", "/typed?vendor=null"]


async def test_an_untyped_call_takes_a_model_for_its_query() -> None:
    async with loopback(lambda asked: as_json({})) as server:
        await Api().with_options(base_url=server.url).get("/raw", params=Vendor(vendor="a b"))
    assert server.asked[0].target == "/raw?vendor=a%20b"
