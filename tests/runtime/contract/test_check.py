"""The contract check on the cases that tell a right one from a naive one."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    ValidationInfo,
    computed_field,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from khotan_cli.errors import ResponseInvalid, UsageError
from khotan_cli.runtime.contract.check import Finding, Report, check, fail_grade
from khotan_cli.runtime.redaction.masker import Masker

T = TypeVar("T")


def seen(model: Any, body: Any, *, info: bool = False) -> list[str]:
    """The findings as `grade issue path count/of`, those of grade info on request."""
    report = check(model, body)
    kept = [f for f in report.findings if info or f.grade != "info"]
    return [f"{f.grade} {f.issue} {f.path} {f.count}/{f.of}" for f in kept]


def only(model: Any, body: Any) -> Finding:
    found = [f for f in check(model, body).findings if f.grade != "info"]
    assert len(found) == 1, found
    return found[0]


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Charge(BaseModel):
    id: str
    amount: int
    note: str | None = None


class Page(BaseModel):
    data: list[Charge]


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str
    bark: int


class Cat(BaseModel):
    kind: Literal["cat"]
    name: str
    lives: int


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Box(BaseModel, Generic[T]):
    item: T


class Names(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    first: str = Field(alias="firstName")
    last: str = Field(validation_alias=AliasChoices("lastName", "surname"))
    city: str = Field(default="", validation_alias=AliasPath("address", "city"))


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Counted(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int]  # pyright: ignore[reportIncompatibleVariableOverride]
    a: int


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    a: int


class Span(BaseModel):
    start: int
    end: int

    @model_validator(mode="after")
    def ordered(self) -> Span:
        if self.start > self.end:
            raise ValueError(f"start {self.start} after end")
        return self


class Wrapped(BaseModel):
    a: int

    @model_validator(mode="before")
    @classmethod
    def unwrap(cls, data: Any) -> Any:
        return data["data"] if isinstance(data, dict) and "data" in data else data


class Sibling(BaseModel):
    low: int
    high: int

    @field_validator("high")
    @classmethod
    def above(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data["low"]:
            raise ValueError("too low")
        return value


class Doubled(BaseModel):
    a: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.a


class Row(TypedDict, total=False):
    a: int
    b: str


@dataclass
class Point:
    x: int
    y: int = 0


def raises_key_error(value: int) -> int:
    raise KeyError("secret-input")


CASES: list[tuple[str, Any, Any, list[str]]] = [
    ("match", Page, {"data": [{"id": "a", "amount": 1, "note": "x"}]}, []),
    ("scalar", int, 3, []),
    ("top-level array", list[Charge], [{"id": "a", "amount": "x"}], ["breaking type_mismatch $[*].amount 1/1"]),
    ("root not an object", Charge, [], ["breaking type_mismatch $ 1/1"]),
    (
        "missing in some items",
        Page,
        {"data": [{"id": "a", "amount": 1}, {"id": "b"}, {"id": "c"}]},
        ["breaking missing $.data[*].amount 2/3"],
    ),
    (
        "extra in some items",
        list[Open | Charge],
        [{"id": "a", "amount": 1, "x": 1}, {"id": "b", "amount": 1}],
        ["warning extra $[*].x 1/2"],
    ),
    ("optional in some items", Page, {"data": [{"id": "a", "amount": 1, "note": "n"}, {"id": "b", "amount": 1}]}, []),
    ("always null", Charge, {"id": "a", "amount": 1, "note": None}, []),
    ("null for non-null", Charge, {"id": None, "amount": 1}, ["breaking type_mismatch $.id 1/1"]),
    ("nullable without default, missing", Box[int | None], {}, ["breaking missing $.item 1/1"]),
    ("nullable without default, value", list[Box[int | None]], [{"item": None}, {"item": 1}], []),
    ("string number", Charge, {"id": "a", "amount": "12"}, ["warning type_mismatch $.amount 1/1"]),
    ("boolean for int", Charge, {"id": "a", "amount": True}, ["warning type_mismatch $.amount 1/1"]),
    ("number for bool", bool, 1, ["warning type_mismatch $ 1/1"]),
    ("boolean for Literal[1]", Literal[1], True, ["warning type_mismatch $ 1/1"]),
    ("whole float for int", int, 1.0, []),
    ("fraction for int", int, 1.5, ["breaking type_mismatch $ 1/1"]),
    ("int for float", float, 1, []),
    ("big int", int, 10**40, []),
    ("number for string", str, 1, ["breaking type_mismatch $ 1/1"]),
    ("dates in a string", str, "2024-01-01", []),
    ("date-time", datetime, "2024-01-01T00:00:00Z", []),
    ("not a date-time", datetime, "yesterday", ["breaking format $ 1/1"]),
    ("epoch for date-time", datetime, 1700000000, ["warning type_mismatch $ 1/1"]),
    ("epoch in a string", datetime, "1700000000", ["warning format $ 1/1"]),
    ("date for date-time", datetime, "2024-01-01", ["warning format $ 1/1"]),
    ("date", date, "2024-01-01", []),
    ("date-time for date", date, "2024-01-01T00:00:00", ["warning format $ 1/1"]),
    ("time", time, "25:00", ["breaking format $ 1/1"]),
    ("duration", timedelta, "PT1S", []),
    ("uuid", UUID, "nope", ["breaking format $ 1/1"]),
    ("url", AnyUrl, "nope", ["breaking format $ 1/1"]),
    ("decimal text", Decimal, "1.50", []),
    ("decimal number", Decimal, 1.5, []),
    ("no decimal", Decimal, "x", ["breaking format $ 1/1"]),
    ("bytes", bytes, "abc", []),
    ("literal", Literal["a", "b"], "c", ["breaking enum $ 1/1"]),
    ("literal of another type", Literal["a", "b"], 1, ["breaking type_mismatch $ 1/1"]),
    ("enum", list[Color], ["red", "green", "blue"], ["breaking enum $[*] 1/3"]),
    ("bound", Annotated[int, Field(ge=3)], 2, ["breaking constraint $ 1/1"]),
    ("pattern", Annotated[str, Field(pattern="^a")], "b", ["breaking constraint $ 1/1"]),
    ("length of a list", Annotated[list[int], Field(min_length=2)], [1], ["breaking constraint $ 1/1"]),
    ("nested arrays", list[list[int]], [[1], [2, "x"], []], ["breaking type_mismatch $[*][*] 1/3"]),
    ("mixed scalars", list[int | str], [1, "a", None, True], ["breaking type_mismatch $[*] 2/4"]),
    ("tuple, short", tuple[int, str], [1], ["breaking missing $[1] 1/1"]),
    ("tuple, long", tuple[int, str], [1, "a", 2], ["breaking constraint $ 1/1"]),
    ("tuple, wrong", tuple[int, str], ["x", "a"], ["breaking type_mismatch $[0] 1/1"]),
    ("variadic tuple", tuple[int, ...], [1, "x"], ["breaking type_mismatch $[*] 1/2"]),
    ("set", set[int], [1, 1, "x"], ["breaking type_mismatch $[*] 1/3"]),
    ("map", dict[str, int], {"a": 1, "b c": "x"}, ["breaking type_mismatch $.* 1/2"]),
    ("keys of a map", dict[UUID, int], {"a": 1}, ["breaking constraint $ 1/1"]),
    ("root model", RootModel[list[int]], ["x"], ["breaking type_mismatch $[*] 1/1"]),
    ("generic", Box[Charge], {"item": {"id": "a"}}, ["breaking missing $.item.amount 1/1"]),
    ("recursion", Node, {"value": 1, "children": [{"value": "x"}]}, ["breaking type_mismatch $.children[*].value 1/1"]),
    ("default dict", defaultdict[str, int], {"a": "x"}, ["breaking type_mismatch $.* 1/1"]),
    ("any", Any, {"a": [1]}, []),
    ("object", object, [1], []),
    ("json value", JsonValue, {"a": [None]}, []),
    ("bare dict", dict, {"a": 1}, []),
    ("typed dict", Row, {"a": "x"}, ["breaking type_mismatch $.a 1/1"]),
    ("dataclass", Point, {"y": 1}, ["breaking missing $.x 1/1"]),
    ("odd key", Charge, {"id": "a", "amount": 1, "it's odd": 1}, [r"warning extra $['it\'s odd'] 1/1"]),
    (
        "alias",
        Names,
        {"firstName": "a", "surname": "b", "address": {"city": 1}},
        ["breaking type_mismatch $.address.city 1/1"],
    ),
    ("by name", Names, {"first": "a", "last": "b"}, []),
    ("no alias", Names, {"surname": "b"}, ["breaking missing $.firstName 1/1"]),
    ("forbidden", Closed, {"a": 1, "b": 1}, ["breaking extra $.b 1/1"]),
    ("ignored", Box[int], {"item": 1, "b": 1}, ["warning extra $.b 1/1"]),
    ("allowed", Open, {"a": 1, "b": 1}, []),
    ("allowed and typed", Counted, {"a": 1, "b": "x"}, ["breaking type_mismatch $.* 1/1"]),
    ("strict model", Strict, {"a": "1"}, ["breaking type_mismatch $.a 1/1"]),
    ("computed", Doubled, {"a": 1, "twice": 2}, []),
    ("model validator", Span, {"start": 2, "end": 1}, ["breaking constraint $ 1/1"]),
    (
        "model validator, in items",
        list[Span],
        [{"start": 0, "end": 1}, {"start": 2, "end": 1}],
        ["breaking constraint $[*] 1/2"],
    ),
    ("validator not reached", Span, {"start": "x", "end": 1}, ["breaking type_mismatch $.start 1/1"]),
    ("translated", Wrapped, {"data": {"a": 1}}, []),
    ("translated, plain", Wrapped, {"a": "x"}, ["breaking type_mismatch $.a 1/1"]),
    ("translated, wrong", Wrapped, {"data": {"a": "x"}}, ["breaking constraint $ 1/1"]),
    ("validator with siblings", Sibling, {"low": 2, "high": 1}, ["breaking constraint $.high 1/1"]),
    ("validator of a value", Annotated[int, AfterValidator(raises_key_error)], 1, ["breaking constraint $ 1/1"]),
    ("before validator", Annotated[int, BeforeValidator(len)], "abc", []),
]


@pytest.mark.parametrize(("model", "body", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_case(model: Any, body: Any, expected: list[str]) -> None:
    assert seen(model, body) == expected


@pytest.mark.parametrize(("model", "body"), [case[1:3] for case in CASES], ids=[case[0] for case in CASES])
def test_breaking_exactly_when_pydantic_refuses(model: Any, body: Any) -> None:
    try:
        TypeAdapter(model).validate_json(json.dumps(body))
        refused = False
    except Exception:
        refused = True
    assert (check(model, body).summary["breaking"] > 0) == refused


PETS = [{"kind": "dog", "name": "a", "bark": 1}, {"kind": "cat", "name": "b", "lives": "x"}]


@pytest.mark.parametrize("pet", [Dog | Cat, Annotated[Dog | Cat, Field(discriminator="kind")]], ids=["plain", "tagged"])
def test_union_is_judged_by_the_member_that_is_meant(pet: Any) -> None:
    assert seen(list[pet], PETS) == ["breaking type_mismatch $[*].lives 1/1"]
    assert seen(list[pet], [*PETS[:1], {"kind": "fish", "name": "c"}]) == ["breaking enum $[*].kind 1/2"]
    assert seen(list[pet], [*PETS[:1], {"name": "c"}]) == ["breaking missing $[*].kind 1/2"]


def test_union_without_a_tag_takes_the_nearest_member() -> None:
    assert seen(Charge | Point, {"id": "a", "amount": "x"}) == ["breaking type_mismatch $.amount 1/1"]
    assert seen(Charge | Point, {"x": 1, "z": 2}) == ["warning extra $.z 1/1"]
    assert seen(list[Charge] | Charge, [{"id": "a"}]) == ["breaking missing $[*].amount 1/1"]
    assert seen(list[Charge] | Charge, {"id": "a"}) == ["breaking missing $.amount 1/1"]
    assert only(list[Charge] | Charge, 3).expected == "array of Charge | Charge"


def test_words() -> None:
    found = only(list[int | None], ["x", 1.5, None, {}])
    assert (found.expected, found.actual) == ("integer | null", "string, number, object".replace(",", " ×1,") + " ×1")
    assert found.example == '"x"'
    assert only(datetime, "x").expected == "string (date-time)"
    assert only(Literal["a", "b"], "c").expected == "'a' | 'b'"
    assert only(Literal["a", "b"], "c").actual == "'c'"
    assert only(Annotated[int, Field(ge=3)], 2).expected == "integer, greater than or equal to 3"


def test_what_was_not_there_to_check_is_said() -> None:
    assert seen(Page, {"data": []}, info=True) == ["info empty $.data[*] 0/0"]
    assert seen(Charge, {"id": "a", "amount": 1}, info=True) == ["info missing $.note 1/1"]
    assert seen(Open, {"a": 1, "b": 1}, info=True) == ["info extra $.b 1/1"]
    assert check(Open, {"a": 1, "b": 1}).matches


def test_nothing_secret_is_shown() -> None:
    masker = Masker(["sk_live_1234567890"])
    body = {
        "id": 1,
        "amount": "sk_live_1234567890",
        "password": "hunter2",
        "o": {"accessToken": "tok"},
        "sk_live_1234567890": 1,
    }
    text = json.dumps(check(Charge, body, masker=masker).to_json(), ensure_ascii=False)
    assert "sk_live_1234567890" not in text
    assert "hunter2" not in text
    assert '"tok' not in text
    assert "••••7890" in text
    assert "3" not in str(only(Box[SecretStr], {"item": 3}).example)
    assert "start 2" not in check(Span, {"start": 2, "end": 1}).text()
    assert "secret-input" not in check(Annotated[int, AfterValidator(raises_key_error)], 1).text()


def test_findings_and_examples_are_bounded() -> None:
    wide = check(Charge, {"id": "a" * 10_000, "amount": "x" * 10_000, **{f"k{i}": i for i in range(10_000)}})
    assert len(wide.findings) < 60
    assert max(len(f.example or "") for f in wide.findings) <= 80
    extra = next(f for f in wide.findings if f.path == "$.*")
    assert extra.count == 9950
    many = check(dict[str, Any], {})
    assert many.matches


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b'{"data": [', "not valid JSON"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"[" * 10_000 + b"]" * 10_000, "too deeply"),
    ],
)
def test_a_body_that_is_no_json(body: bytes, says: str) -> None:
    with pytest.raises(ResponseInvalid, match=says):
        check(Page, body)


def test_parsed_values_nested_too_deeply() -> None:
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(ResponseInvalid, match="too deeply"):
        check(JsonValue, deep)


def test_nesting_that_pydantic_reads_is_walked_to_the_end() -> None:
    tree: Any = {"value": "x"}
    for _ in range(80):
        tree = {"value": 1, "children": [tree]}
    assert only(Node, tree).path == "$" + ".children[*]" * 80 + ".value"


def test_a_large_body() -> None:
    rows = [{"id": "x" * 200, "amount": i if i % 2 else "x"} for i in range(40_000)]
    body = json.dumps({"data": rows}).encode()
    assert len(body) > 9_000_000
    assert only(Page, body).count == 20_000


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [
        (None, {"breaking", "extra", "type"}),
        ("breaking", {"breaking"}),
        ("warning", {"breaking", "extra", "type"}),
        ("info", {"breaking", "extra", "type", "null", "info"}),
        ("never", set[str]()),
    ],
)
def test_fail_on(fail_on: str | None, failing: set[str]) -> None:
    whole = {"id": "a", "amount": 1, "note": "n"}
    reports: dict[str, Report] = {
        "match": check(Charge, whole),
        "breaking": check(Charge, {**whole, "amount": "x"}),
        "extra": check(Charge, {**whole, "x": 1}),
        "type": check(Charge, {**whole, "amount": "1"}),
        "null": check(Charge, {**whole, "note": None}),
        "info": check(Charge, {"id": "a", "amount": 1}),
    }
    assert {name for name, report in reports.items() if report.fails(fail_on)} == failing


def test_fail_on_of_no_grade() -> None:
    with pytest.raises(UsageError) as caught:
        fail_grade("warnings")
    assert "'warning'" in caught.value.hint


def test_report_as_json() -> None:
    report = check(Charge, {"id": "a", "amount": "x", "note": "n"}, status=201, endpoint="create")
    assert report.to_json() == {
        "ok": False,
        "endpoint": "create",
        "model": "Charge",
        "status": 201,
        "items": 0,
        "findings": [
            {
                "path": "$.amount",
                "issue": "type_mismatch",
                "grade": "breaking",
                "expected": "integer",
                "actual": "string",
                "count": 1,
                "of": 1,
                "example": '"x"',
            }
        ],
        "summary": {"breaking": 1, "warning": 0, "info": 0},
        "failOn": "default",
    }


def test_breaking_comes_first() -> None:
    found = check(Page, {"data": [{"id": 1, "amount": "1"}], "a": 1}).findings
    assert [f.grade for f in found] == sorted((f.grade for f in found), key=["breaking", "warning", "info"].index)


@pytest.mark.parametrize(
    ("declared", "body"),
    [
        (list[SecretStr], "hidden-value"),
        (list[SecretStr], {"a": "hidden-value"}),
        (list[SecretStr], [["hidden-value"]]),
        (Secret[int], "hidden-value"),
        (list[Secret[date]], ["hidden-value"]),
        (dict[str, Secret[int]], {"a": "hidden-value"}),
        (tuple[SecretStr, int], {"a": "hidden-value"}),
        (SecretStr | None, ["hidden-value"]),
        (dict[str, list[SecretBytes]], {"a": {"b": "hidden-value"}}),
        (Secret[list[int]], ["hidden-value"]),
        (Secret[dict[str, dict[str, int]]], {"a": {"key": "hidden-value"}}),
        (list[Secret[int | list[int]]], [["hidden-value"]]),
    ],
)
def test_examples_of_containers_show_no_secret(declared: Any, body: Any) -> None:
    report = check(declared, body)
    assert report.findings and "hidden" not in report.text() + str(report.to_json(None))
