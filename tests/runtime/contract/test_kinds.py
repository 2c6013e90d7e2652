"""Types whose faults are easily read in the wrong place, or not at all."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    OnErrorOmit,
    ValidationInfo,
    WrapValidator,
    field_validator,
    model_validator,
)
from sqlmodel import Field as Column
from sqlmodel import SQLModel

from khotan_cli.runtime.contract.check import check
from tests.runtime.contract.test_check import only, seen


class Details(BaseModel):
    number: int


class Hero(SQLModel, table=True):
    id: int = Column(primary_key=True)
    name: str
    age: int | None = None


class Team(BaseModel):
    heroes: list[Hero]
    lead: Hero | None = None


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        (Hero, {"id": 1, "name": "a", "age": 3}, []),
        (Hero, {"id": "x", "name": 1}, ["breaking type_mismatch $.id 1/1", "breaking type_mismatch $.name 1/1"]),
        (list[Hero], [{"id": 1, "name": "a"}, {"id": 2}], ["breaking missing $[*].name 1/2"]),
        (Team, {"heroes": [{"id": "x", "name": "a"}]}, ["breaking type_mismatch $.heroes[*].id 1/1"]),
        (Team, {"heroes": [], "lead": {"id": 1}}, ["breaking missing $.lead.name 1/1"]),
        (Hero, {"id": 1, "name": "a", "power": 9}, ["warning extra $.power 1/1"]),
    ],
)
def test_a_table_is_judged_by_its_fields(model: Any, body: Any, expected: list[str]) -> None:
    assert seen(model, body) == expected


class Unwrapped(BaseModel):
    a: int

    @model_validator(mode="before")
    @classmethod
    def unwrap(cls, data: Any) -> Any:
        return data.get("data", data)


def cents(value: Any) -> Any:
    return int(value.removeprefix("€ ")) if isinstance(value, str) else value


def or_none(value: Any, handler: Any) -> Any:
    return None if value == "never" else handler(value)


class Cents(BaseModel):
    price: Annotated[int, BeforeValidator(cents)]
    tags: Annotated[list[str], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)]
    seen: Annotated[int | None, WrapValidator(or_none)] = None


@pytest.mark.parametrize(
    ("model", "body", "paths", "finding"),
    [
        (Unwrapped, {"data": {"a": 1}}, ["$"], True),
        (list[Unwrapped], [{"data": {"a": 1}}, {"a": 1}], ["$[*]"], True),
        (bytes, b"x", ["$"], True),
        (dict[str, Any], {"a": 1}, ["$.*"], False),
        (Details, {"number": 1}, [], False),
        (Json, "[1]", ["$"], False),
        (Cents, {"price": "€ 5", "tags": ["a"]}, ["$.price"], True),
        (Cents, {"price": 5, "tags": "a,b"}, ["$.tags"], True),
        (Cents, {"price": 5, "tags": [], "seen": "never"}, ["$.seen"], True),
        (list[Cents], [{"price": "€ 5", "tags": []}, {"price": 1, "tags": ["a"], "seen": 3}], ["$[*].price"], True),
    ],
)
def test_what_is_not_judged_is_reported(model: Any, body: Any, paths: list[str], finding: bool) -> None:
    report = check(model, body)
    assert [path for path, _ in report.unjudged] == paths
    told = [(f.path, f.grade) for f in report.findings if f.issue == "unjudged"]
    assert told == ([(path, "info") for path in paths] if finding else [])
    named = [one["path"] for one in report.to_json().get("notJudged", [])]
    assert named == paths and report.matches


class Line(BaseModel):
    count: int
    paid: bool
    day: date
    at: datetime
    price: Decimal
    weight: float | None = None


LINE = {"count": "3", "paid": "true", "day": "2024-01-01", "at": "2024-01-01T00:00:00Z", "price": "1.5", "weight": "2"}


def test_text_is_as_declared_where_all_is_text() -> None:
    assert check(list[Line], [LINE], source="text").findings == []
    as_values = check(list[Line], [LINE], source="values").findings
    assert {f.path for f in as_values} == {"$[*].count", "$[*].paid", "$[*].weight"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"count": "x"}, ("breaking", "type_mismatch", "$[*].count")),
        ({"paid": "perhaps"}, ("breaking", "type_mismatch", "$[*].paid")),
        ({"day": "soon"}, ("breaking", "format", "$[*].day")),
        ({"at": "1700000000"}, ("warning", "format", "$[*].at")),
        ({"more": "1"}, ("warning", "extra", "$[*].more")),
    ],
)
def test_wrong_text_is_found(changed: dict[str, str], expected: tuple[str, str, str]) -> None:
    found = check(list[Line], [LINE | changed], source="text").findings
    assert [(f.grade, f.issue, f.path) for f in found] == [expected]


@pytest.mark.parametrize(
    ("body", "ok"),
    [(b"", True), (b"{}", False)],
)
@pytest.mark.parametrize("model", [None, type(None)])
def test_a_response_without_a_body(model: Any, body: bytes, ok: bool) -> None:
    report = check(model, body, status=204)
    assert report.matches is ok and report.model == "no body"
    assert [(f.path, f.issue, f.grade) for f in report.findings] == ([] if ok else [("$", "extra", "warning")])


class Range(BaseModel):
    low: int
    high: int

    @field_validator("high")
    @classmethod
    def above(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data["low"]:
            raise ValueError("secret reason")
        return value


class Bounded(BaseModel):
    strict: bool
    items: Annotated[list[Details], Field(max_length=1)]
    count: Annotated[int, Field(gt=0)] = 1

    @field_validator("items", "count")
    @classmethod
    def only_if_lax(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data["strict"]:
            raise ValueError("secret reason")
        return value


ONE, MANY = [{"number": 1}], [{"number": 1}, {"number": 2}]
GOOD = "5a2c58a2-9d7e-4b57-b9d6-0b1f4bb3a5d5"


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        (dict[UUID, int], {"a": 1, "b": 2, GOOD: 3}, ["breaking constraint $ 2/3"]),
        (list[dict[int, int]], [{"a": 1}, {"1": 1, "b": 1}], ["breaking constraint $[*] 2/3"]),
        (
            dict[UUID, int],
            {"a": "x", GOOD: 3},
            ["breaking constraint $ 1/2", "breaking type_mismatch $.* 1/2"],
        ),
        (
            list[Range],
            [{"low": 1, "high": 0}, {"low": 0, "high": 1}, {"low": 2, "high": 1}],
            ["breaking constraint $[*].high 2/3"],
        ),
        (
            list[Bounded],
            [{"strict": True, "items": ONE}, {"strict": False, "items": ONE}, {"strict": False, "items": MANY}],
            ["breaking constraint $[*].items 1/3", "breaking constraint $[*].items 1/3"],
        ),
        (
            list[Bounded],
            [{"strict": False, "items": [], "count": 0}, {"strict": False, "items": [], "count": "x"}],
            ["breaking constraint $[*].count 1/2", "breaking type_mismatch $[*].count 1/2"],
        ),
    ],
)
def test_keys_and_validators_are_counted(model: Any, body: Any, expected: list[str]) -> None:
    assert seen(model, body) == expected


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        (
            Annotated[list[int], Field(max_length=1)],
            [1, "x"],
            ["breaking constraint $ 1/1", "breaking type_mismatch $[*] 1/2"],
        ),
        (
            Annotated[list[Details], Field(max_length=1)],
            [{"number": 1}, {}],
            ["breaking constraint $ 1/1", "breaking missing $[*].number 1/2"],
        ),
        (
            Annotated[dict[str, int], Field(max_length=1)],
            {"a": "x", "b": 1},
            ["breaking constraint $ 1/1", "breaking type_mismatch $.* 1/2"],
        ),
        (
            Annotated[tuple[int, ...], Field(max_length=1)],
            [1, "x"],
            ["breaking constraint $ 1/1", "breaking type_mismatch $[*] 1/2"],
        ),
        (Annotated[set[int], Field(min_length=2)], [1, 1], ["breaking constraint $ 1/1"]),
        (Annotated[list[int], Field(max_length=1)], "x", ["breaking type_mismatch $ 1/1"]),
    ],
)
def test_a_bound_is_reported_beside_wrong_items(model: Any, body: Any, expected: list[str]) -> None:
    assert seen(model, body) == expected


class Kept(BaseModel):
    rows: list[OnErrorOmit[Details]]


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        (list[OnErrorOmit[int]], [1, "x", 2], ["warning dropped $[*] 1/3", "warning type_mismatch $[*] 1/3"]),
        (
            Kept,
            {"rows": [{"number": 1}, {"number": "x"}, {}]},
            [
                "warning dropped $.rows[*] 2/3",
                "warning missing $.rows[*].number 1/3",
                "warning type_mismatch $.rows[*].number 1/3",
            ],
        ),
        (dict[str, OnErrorOmit[int]], {"a": "x"}, ["warning dropped $.* 1/1", "warning type_mismatch $.* 1/1"]),
        (list[OnErrorOmit[int]], [1, 2], []),
    ],
)
def test_what_pydantic_drops_is_reported(model: Any, body: Any, expected: list[str]) -> None:
    assert seen(model, body) == expected
    assert check(model, body).fails() is bool(expected) and not check(model, body).fails("breaking")


class Private(BaseModel):
    a: int
    _id: str


class Aliased(BaseModel):
    id: str = Field(alias="_id")


@pytest.mark.parametrize("model", [Private, Details])
@pytest.mark.parametrize("key", ["_id", "_links", "__v"])
def test_a_key_with_an_underscore_needs_an_alias(model: Any, key: str) -> None:
    found = only(model, {"a" if model is Private else "number": 1, key: "x"})
    assert found.path == f"$.{key}" and f"alias={key!r}" in found.expected
    assert check(Aliased, {"_id": "x"}).findings == []


class Point(NamedTuple):
    x: int
    label: str = ""


class Stored(BaseModel):
    meta: Json[Details]


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        (Point, [1, "a"], []),
        (Point, ["x", "a"], ["breaking type_mismatch $[0] 1/1"]),
        (list[Point], [[1, "a"], [1, 2]], ["breaking type_mismatch $[*][1] 1/2"]),
        (Point, {"x": "x"}, ["breaking type_mismatch $.x 1/1"]),
        (Point, [], ["breaking missing $[0] 1/1"]),
        (Point, {}, ["breaking missing $.x 1/1"]),
        (Point, [1, "a", 2], ["breaking constraint $ 1/1"]),
        (Point, {"x": 1, "z": 1}, ["breaking extra $.z 1/1"]),
        (Point, "x", ["breaking type_mismatch $ 1/1"]),
        (list[Point | None], [None, ["x"]], ["breaking type_mismatch $[*][0] 1/1"]),
        (Stored, {"meta": '{"number": 1}'}, []),
        (Stored, {"meta": '{"number": "x"}'}, ["breaking type_mismatch $.meta.number 1/1"]),
        (Stored, {"meta": '{"number": 1, "b": 2}'}, ["warning extra $.meta.b 1/1"]),
        (Stored, {"meta": "{"}, ["breaking format $.meta 1/1"]),
        (Stored, {"meta": {"number": 1}}, ["breaking type_mismatch $.meta 1/1"]),
        (Json[list[int]], '[1, "x"]', ["breaking type_mismatch $[*] 1/2"]),
        (Json[int] | None, '"x"', ["breaking type_mismatch $ 1/1"]),
    ],
)
def test_named_tuples_and_json_text(model: Any, body: Any, expected: list[str]) -> None:
    assert seen(model, body) == expected


def test_json_text_shows_no_secret() -> None:
    found = only(Stored, {"meta": '{"number": 1, "password": "hunter2"}'})
    assert "hunter2" not in str(found)


class ByName(BaseModel):
    model_config = ConfigDict(loc_by_alias=False)
    value: Annotated[int, AfterValidator(lambda value: value)] = Field(alias="theValue")


def test_locations_by_name_are_found() -> None:
    assert seen(list[ByName], [{"theValue": "x"}]) == ["breaking type_mismatch $[*].theValue 1/1"]


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        (Annotated[list[int], Field(min_length=2)], [1], "array of integer, at least 2 items"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "array of integer, at most 1 item"),
        (Annotated[str, Field(min_length=1)], "", "string, at least 1 character"),
        (Annotated[str, Field(pattern="^a")], "b", "string, matching the pattern ^a"),
        (Annotated[int, Field(multiple_of=5)], 3, "integer, a multiple of 5"),
        (Annotated[float, Field(lt=2.5)], 3, "number, less than 2.5"),
        (Annotated[Decimal, Field(max_digits=2)], "1.55", "decimal (number or string), at most 2 digits"),
        (tuple[int, int], [1, 2, 3], "array [integer, integer], at most 2 items"),
        (dict[UUID, int], {"a": 1}, "map key, string (uuid)"),
        (Range, {"low": 2, "high": 1}, "integer that its validator accepts"),
        (list[Annotated[int, Field(gt=0, lt=9)]], [0, 10, -1], "integer, greater than 0; less than 9"),
    ],
)
def test_words_are_our_own(model: Any, body: Any, expected: str) -> None:
    found = only(model, body)
    assert found.expected == expected
    text = check(model, body).text()
    assert "Input should" not in text and "should have" not in text and "secret reason" not in text


def test_a_key_that_is_always_null_is_information() -> None:
    class Noted(BaseModel):
        note: str | None

    report = check(list[Noted], [{"note": None}, {"note": None}])
    assert [(f.issue, f.grade, f.count, f.of) for f in report.findings] == [("null", "info", 2, 2)]
    assert report.matches and not report.fails("warning") and report.fails("info")


class Span(BaseModel):
    low: int
    high: int

    @field_validator("high")
    @classmethod
    def ordered(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("low", 0) > value:
            raise ValueError("high is below low")
        return value

    @model_validator(mode="after")
    def lucky(self) -> Span:
        if self.low == 13:
            raise ValueError("unlucky")
        return self


class Spans(BaseModel):
    by_name: dict[str, Span]


WRONG, UNLUCKY, FINE = {"low": 5, "high": 1}, {"low": 13, "high": 14}, {"low": 1, "high": 2}


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        (Span, WRONG, ["breaking constraint $.high 1/1"]),
        (list[Span], [WRONG, FINE], ["breaking constraint $[*].high 1/2"]),
        (list[Span], [WRONG, WRONG, UNLUCKY], ["breaking constraint $[*] 1/3", "breaking constraint $[*].high 2/3"]),
        (
            list[Span],
            [UNLUCKY, UNLUCKY, WRONG, FINE],
            ["breaking constraint $[*] 2/4", "breaking constraint $[*].high 1/4"],
        ),
        (
            list[Span],
            [WRONG, UNLUCKY, {"low": "x", "high": 1}],
            [
                "breaking constraint $[*] 1/3",
                "breaking constraint $[*].high 1/3",
                "breaking type_mismatch $[*].low 1/3",
            ],
        ),
        (Spans, {"by_name": {"a": WRONG, "b": FINE}}, ["breaking constraint $.by_name.*.high 1/2"]),
        (Span | None, WRONG, ["breaking constraint $.high 1/1"]),
    ],
)
def test_a_validator_that_reads_its_siblings_is_told_at_its_field(model: Any, body: Any, expected: list[str]) -> None:
    assert seen(model, body) == expected
