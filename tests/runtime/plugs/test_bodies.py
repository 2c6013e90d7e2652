"""Bodies: absent and null are two things, and a dry run shows what would be sent."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from khotan_cli.errors import ParameterError
from khotan_cli.runtime import Plug, patch, post
from khotan_cli.runtime.http.dry_run import SuppressedRequest, suppressing
from tests.support.loopback import as_json, loopback


class Tag(BaseModel):
    kind: Literal["tag"] = "tag"
    label: str | None = None
    weight: int = 1


class Change(BaseModel):
    vendor: str | None = None
    note: str | None = Field(None, alias="noteText")
    status: str = "open"
    tag: Tag | None = None
    tags: list[Tag] = []


class Writes(Plug):
    base_url = "http://127.0.0.1:9"
    change = patch("/items/{id}", body=Change)
    change_form = patch("/items/{id}", body=dict[str, Any], encoding="form")
    send_any = post("/any", body=dict[str, Any])


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"vendor": None}, {"vendor": None}),
        ({"noteText": None, "vendor": "a"}, {"vendor": "a", "noteText": None}),
        ({}, {}),
        ({"tag": None}, {"tag": None}),
        ({"tag": {"label": None}}, {"tag": {"kind": "tag", "label": None}}),
        ({"tag": {}}, {"tag": {"kind": "tag"}}),
        (
            {"tags": [{"label": "x"}, {"weight": 1}]},
            {"tags": [{"kind": "tag", "label": "x"}, {"kind": "tag", "weight": 1}]},
        ),
        ({"status": "open"}, {"status": "open"}),
    ],
)
async def test_what_is_set_is_sent_and_what_is_unset_is_left_out(given: dict[str, Any], sent: dict[str, Any]) -> None:
    class Noted:
        def __init__(self) -> None:
            self.requests: list[SuppressedRequest] = []

        def add_request(self, request: SuppressedRequest) -> None:
            self.requests.append(request)

        def wrote(self, table: str, counts: Any, records: Any = ()) -> None:
            raise AssertionError

    noted = Noted()
    async with loopback(lambda asked: as_json({})) as server:
        plug = Writes().with_options(base_url=server.url)
        model = Change.model_validate(given)
        before = model.model_fields_set.copy()
        calls: list[Any] = [
            lambda: plug.change(id="a/b", **given),
            lambda: plug.change(model, id="a/b"),
            lambda: plug.change(id="a/b", body=given),
            lambda: plug.patch("/items/a%2Fb", body=model),
        ]
        for call in calls:
            await call()
            with suppressing(noted):
                await call()
    assert [asked.json() for asked in server.asked] == [sent] * 4
    assert [(request.target, request.body) for request in noted.requests] == [("/items/a%2Fb", sent)] * 4
    assert model.model_fields_set == before


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        [1, float("inf")],
        {"a": {"b": -float("inf")}},
        "\ud800",
        {"\udfff": 1},
        Decimal("NaN"),
        [Decimal("-Infinity")],
    ],
)
async def test_what_json_has_no_form_for_is_refused_before_it_is_sent(value: Any) -> None:
    async with loopback(lambda asked: as_json({})) as server:
        plug = Writes().with_options(base_url=server.url)
        with pytest.raises(ParameterError, match="JSON"):
            await plug.send_any(body={"value": value, "n": None})
        with pytest.raises(ParameterError, match="JSON"):
            await plug.post("/any", body={"value": value})
        with pytest.raises(ParameterError):
            await plug.get("/any", params={"value": value})
        assert not server.asked


async def test_a_form_refuses_null_and_the_dry_run_shows_its_text() -> None:
    held: list[SuppressedRequest] = []

    class Noted:
        def add_request(self, request: SuppressedRequest) -> None:
            held.append(request)

        def wrote(self, table: str, counts: Any, records: Any = ()) -> None:
            raise AssertionError

    with suppressing(Noted()):
        await Writes().change_form(id=1, body={"a": ["x y"]})
        await Writes().post("/p", params={"q": "ü"}, body={"n": None})
        with pytest.raises(ParameterError, match="'a'"):
            await Writes().change_form(id=1, body={"a": None})
    assert [(request.target, request.body) for request in held] == [
        ("/items/1", "a[0]=x+y"),
        ("/p?q=%C3%BC", {"n": None}),
    ]
