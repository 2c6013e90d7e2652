"""A paginator is judged by the declared response, when the plug loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, NotRequired, Optional, TypedDict, TypeVar

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, Field, RootModel, model_validator

from khotan_cli.errors import ConfigError, PaginationError
from khotan_cli.runtime import (
    CursorPaginator,
    KeysetPaginator,
    LinkHeaderPaginator,
    NextUrlPaginator,
    OffsetPaginator,
    PageNumberPaginator,
    Paginator,
    Plug,
    SinglePagePaginator,
    get,
)


class Row(BaseModel):
    id: int
    tags: list[str] = []


class Rows(BaseModel):
    rows: list[Row]
    next: str | None = None


class Meta(BaseModel):
    total: int
    cursor: str | None
    more: bool


class Nested(BaseModel):
    meta: Meta | None
    rows: Annotated[list[Row], Field(max_length=100)]


class Aliased(BaseModel):
    rows: list[Row] = Field(alias="Rows")
    link: str | None = Field(default=None, alias="@odata.nextLink")
    count: int = Field(default=0, validation_alias=AliasChoices("Count", AliasPath("meta", "count")))


class Open(BaseModel, extra="allow"):
    rows: list[Row]


class Shut(BaseModel):
    name: str


class Unwrapped(BaseModel):
    rows: list[Row]

    @model_validator(mode="before")
    @classmethod
    def unwrap(cls, value: Any) -> Any:
        return value["payload"]


class Typed(TypedDict):
    rows: list[Row]
    next: NotRequired[str]


@dataclass
class Plain:
    rows: list[Row]
    next: Optional[str] = None  # noqa: UP045 - as older code writes it


T = TypeVar("T")


class Generic_(BaseModel, Generic[T]):
    rows: list[T]
    next: str


class Root(RootModel[list[Row]]):
    pass


FITS: list[tuple[Any, Paginator]] = [
    (Rows, CursorPaginator(items="rows", cursor="next")),
    (Rows, NextUrlPaginator(items="rows")),
    (Rows, LinkHeaderPaginator()),
    (Rows, KeysetPaginator(items="rows")),
    (Rows, CursorPaginator(header="X-Next")),
    (Rows, OffsetPaginator(total="header:X-Total")),
    (Nested, CursorPaginator(items="rows", cursor="meta.cursor", has_more="meta.more")),
    (Nested, OffsetPaginator(items="rows", total="meta.total")),
    (Aliased, NextUrlPaginator(items="Rows", path="@odata\\.nextLink")),
    (Aliased, OffsetPaginator(items="Rows", total="Count")),
    (Aliased, OffsetPaginator(items="Rows", total="meta.count")),
    (Open, CursorPaginator(items="rows", cursor="anything.at.all")),
    (Unwrapped, CursorPaginator(items="payload.rows", cursor="payload.next")),
    (Typed, CursorPaginator(items="rows", cursor="next")),
    (Plain, CursorPaginator(items="rows", cursor="next")),
    (Generic_[Row], CursorPaginator(items="rows", cursor="next")),
    (Root, OffsetPaginator()),
    (list[Row], KeysetPaginator()),
    (list[Row] | None, OffsetPaginator()),
    (dict[str, list[Row]], OffsetPaginator(items="rows")),
    (dict[str, Any], CursorPaginator(items="a.b", cursor="c.d")),
    (dict, CursorPaginator(items="a.b")),
    (Any, CursorPaginator(items="rows")),
    (None, CursorPaginator(items="rows")),
    (bytes, CursorPaginator(items="rows")),
    (Rows | Nested, CursorPaginator(items="rows", cursor="next")),
]
MISFITS: list[tuple[Any, Paginator, str]] = [
    (Rows, CursorPaginator(items="rows"), "cursor='next_cursor'"),
    (Rows, CursorPaginator(items="data", cursor="next"), "items='data'"),
    (Rows, CursorPaginator(items="next", cursor="next"), "no list"),
    (Rows, CursorPaginator(items="rows", params={"a": "next.id"}), "next.id"),
    (Rows, OffsetPaginator(items="rows", has_more="has_more"), "has_more='has_more'"),
    (Rows, OffsetPaginator(items="rows", is_last="last"), "is_last='last'"),
    (Rows, OffsetPaginator(items="rows", total="total"), "total='total'"),
    (Rows, PageNumberPaginator(items="rows", total_pages="pages"), "total_pages='pages'"),
    (Rows, NextUrlPaginator(items="rows", path="links.next"), "path='links.next'"),
    (Rows, KeysetPaginator(items="rows", id_field="uuid"), "id_field='uuid'"),
    (Nested, OffsetPaginator(items="rows", total="meta"), "an object"),
    (Nested, CursorPaginator(items="meta", cursor="meta.cursor"), "no list"),
    (Aliased, CursorPaginator(items="rows", cursor="Count"), "items='rows'"),
    (Typed, CursorPaginator(items="rows"), "next_cursor"),
    (Plain, CursorPaginator(items="rows"), "next_cursor"),
    (Generic_[Row], CursorPaginator(items="rows"), "next_cursor"),
    (list[Row], CursorPaginator(), "next_cursor"),
    (list[Row], CursorPaginator(items="data", header="X"), "items='data'"),
    (Shut, SinglePagePaginator(), "no list"),
    (Shut, LinkHeaderPaginator(), "no list"),
]


@pytest.mark.parametrize(("declared", "own"), FITS, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_a_paginator_that_fits(declared: Any, own: Paginator) -> None:
    class Api(Plug):
        base_url = "http://x.example"
        things = get("/things", returns=declared, paginator=own)

    Api().things.walk()


@pytest.mark.parametrize(("declared", "own", "words"), MISFITS, ids=[words for _, _, words in MISFITS])
def test_a_paginator_that_does_not_fit_is_refused_when_the_plug_loads(
    declared: Any, own: Paginator, words: str
) -> None:
    with pytest.raises(ConfigError, match=r"Api\.things") as caught:

        class Api(Plug):
            base_url = "http://x.example"
            things = get("/things", returns=declared, paginator=own)

    assert words in caught.value.message and caught.value.hint


@pytest.mark.parametrize(("declared", "own", "words"), MISFITS, ids=[words for _, _, words in MISFITS])
def test_one_that_is_chosen_later_is_refused_before_the_first_request(
    declared: Any, own: Paginator, words: str
) -> None:
    class Api(Plug):
        base_url = "http://x.example"
        things = get("/things", returns=declared)

    with pytest.raises(PaginationError) as caught:
        Api().with_options(paginator=own).things.walk()
    assert words in caught.value.message


def test_the_plugs_paginator_must_fit_one_of_the_lists() -> None:
    class Fine(Plug):
        """Other endpoints hold something of that name that is no page."""

        base_url = "http://x.example"
        paginator = CursorPaginator(items="rows", cursor="next")
        pages = get("/things", returns=Rows)
        one = get("/things/{id}", returns=Open)
        bare = get("/tags", returns=list[str])
        shut = get("/name", returns=Shut)

    assert Fine().pages.walk()
    with pytest.raises(ConfigError, match="next_cursor"):

        class Wrong(Plug):
            base_url = "http://x.example"
            paginator = CursorPaginator(items="rows")
            pages = get("/things", returns=Rows)
            shut = get("/name", returns=Shut)
