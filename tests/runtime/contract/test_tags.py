"""Unions whose members are told apart by a tag, and literals that are no strings."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from tests.runtime.contract.test_check import seen


class Details(BaseModel):
    number: int


class ByCard(BaseModel):
    type: Literal["card"]
    card: Details


class ByBank(BaseModel):
    type: Literal["bank"]
    bank: Details


class Text(BaseModel):
    object: Literal["block"]
    type: Literal["text"]
    text: list[Details]


class Image(BaseModel):
    object: Literal["block"]
    type: Literal["image"]
    image: Details


class One(BaseModel):
    v: Literal[1]
    a: int


class Two(BaseModel):
    v: Literal[2]
    a: int


class Level(IntEnum):
    LOW = 3
    HIGH = 4


class Low(BaseModel):
    v: Literal[Level.LOW]
    a: int


class High(BaseModel):
    v: Literal[Level.HIGH]
    a: int


class Yes(BaseModel):
    v: Literal[True]
    a: int


class No(BaseModel):
    v: Literal[False]
    b: int


class Checked(ByCard):
    @model_validator(mode="after")
    def positive(self) -> Checked:
        if self.card.number < 0:
            raise ValueError("negative")
        return self


class Nested(BaseModel):
    pay: Annotated[ByCard | ByBank, Field(discriminator="type")] | None = None


def tag_of(value: Any) -> str:
    return "card" if "card" in value else "bank"


Paid = Annotated[ByCard | ByBank, Field(discriminator="type")]
Named = Annotated[Annotated[ByCard, Tag("card")] | Annotated[ByBank, Tag("bank")], Discriminator(tag_of)]
Block = Annotated[Text | Image, Field(discriminator="type")]
Numbered = Annotated[One | Two, Field(discriminator="v")]
Leveled = Annotated[Low | High, Field(discriminator="v")]
Answered = Annotated[Yes | No, Field(discriminator="v")]
CARD = {"type": "card", "card": {"number": "x"}}
TEXT = {"object": "block", "type": "text", "text": [{"number": 1}, {"number": "x"}]}


@pytest.mark.parametrize(
    ("model", "body", "expected"),
    [
        (Paid, CARD, ["breaking type_mismatch $.card.number 1/1"]),
        (list[Paid], [CARD, {"type": "bank", "bank": {"number": 1}}], ["breaking type_mismatch $[*].card.number 1/1"]),
        (ByCard | ByBank, CARD, ["breaking type_mismatch $.card.number 1/1"]),
        (Checked | ByBank, CARD, ["breaking type_mismatch $.card.number 1/1"]),
        (Checked | ByBank, {"type": "card", "card": {"number": -1}}, ["breaking constraint $ 1/1"]),
        (Checked | ByBank, {"type": "cash"}, ["breaking enum $.type 1/1"]),
        (Named, CARD, ["breaking type_mismatch $.card.number 1/1"]),
        (Nested, {"pay": CARD}, ["breaking type_mismatch $.pay.card.number 1/1"]),
        (dict[str, Paid], {"card": CARD}, ["breaking type_mismatch $.*.card.number 1/1"]),
        (Paid, {"type": "card", "card": "card"}, ["breaking type_mismatch $.card 1/1"]),
        (Paid, {"type": "card"}, ["breaking missing $.card 1/1"]),
        (Paid, {"type": "cash", "cash": {}}, ["breaking enum $.type 1/1"]),
        (Block, TEXT, ["breaking type_mismatch $.text[*].number 1/2"]),
        (Text | Image, TEXT, ["breaking type_mismatch $.text[*].number 1/2"]),
        (Text | Image, {"object": "block", "type": "audio"}, ["breaking enum $.type 1/1"]),
        (Numbered, {"v": 1, "a": "x"}, ["breaking type_mismatch $.a 1/1"]),
        (One | Two, {"v": 2, "a": "x"}, ["breaking type_mismatch $.a 1/1"]),
        (Numbered, {"v": 3, "a": 1}, ["breaking enum $.v 1/1"]),
        (Numbered, {"v": "1", "a": 1}, ["breaking type_mismatch $.v 1/1"]),
        (Numbered, {"v": True, "a": 1}, ["warning type_mismatch $.v 1/1"]),
        (Leveled, {"v": 4, "a": "x"}, ["breaking type_mismatch $.a 1/1"]),
        (Low | High, {"v": 5, "a": 1}, ["breaking enum $.v 1/1"]),
        (Answered, {"v": True, "a": "x"}, ["breaking type_mismatch $.a 1/1"]),
        (Yes | No, {"v": False, "b": "x"}, ["breaking type_mismatch $.b 1/1"]),
        (Answered, {"v": 1, "a": 1}, ["warning type_mismatch $.v 1/1"]),
        (Literal[True], 1, ["warning type_mismatch $ 1/1"]),
        (Literal[False], 0, ["warning type_mismatch $ 1/1"]),
        (Literal[0], False, ["warning type_mismatch $ 1/1"]),
        (Literal[True, "auto"], 1, ["warning type_mismatch $ 1/1"]),
        (Literal[True], True, []),
    ],
)
def test_tags_and_literals(model: Any, body: Any, expected: list[str]) -> None:
    assert seen(model, body) == expected


class AliasedCat(BaseModel):
    kind: Literal["cat"] = Field(alias="@kind")
    age: int


class AliasedDog(BaseModel):
    kind: Literal["dog"] = Field(alias="@kind")
    age: int


class Named1(BaseModel):
    model_config = ConfigDict(alias_generator=str.capitalize, populate_by_name=True)
    kind: Literal["one"]


class Named2(Named1):
    kind: Literal["two"]  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("model", "body", "path"),
    [
        (Annotated[AliasedCat | AliasedDog, Field(discriminator="kind")], {"age": 1}, "$['@kind']"),
        (dict[str, Annotated[AliasedCat | AliasedDog, Field(discriminator="kind")]], {"a": {}}, "$.*['@kind']"),
        (Annotated[Named1 | Named2, Field(discriminator="kind")], {}, "$.Kind"),
        (Paid, {"card": {"number": 1}}, "$.type"),
    ],
)
def test_a_missing_tag_is_awaited_where_the_document_has_it(model: Any, body: Any, path: str) -> None:
    assert f"breaking missing {path} 1/1" in seen(model, body)
