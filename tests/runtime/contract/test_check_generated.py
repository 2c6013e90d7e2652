"""The contract check on generated types: silent where the document conforms, exact where one thing was changed."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from types import GenericAlias
from typing import Any, Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError, create_model

from khotan_cli.runtime.contract.check import check
from khotan_cli.runtime.contract.scalars import as_json

KEYS = ("id", "name", "createdAt", "odd key", "it's", "ключ")


@dataclass(frozen=True)
class Made:
    """A type, a strategy for documents that conform to it, and the fields of it where it is a model."""

    type: Any
    documents: st.SearchStrategy[Any]
    fields: dict[str, tuple[Made, bool]] | None = None


LEAVES = [
    Made(int, st.integers(-(2**70), 2**70)),
    Made(float, st.floats(allow_nan=False, allow_infinity=False)),
    Made(bool, st.booleans()),
    Made(str, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
    Made(datetime, st.datetimes(timezones=st.just(UTC)).map(lambda at: at.isoformat())),
    Made(Literal["a", "b"], st.sampled_from(["a", "b"])),
]


@st.composite
def models(draw: st.DrawFn, inner: st.SearchStrategy[Made]) -> Made:
    fields: dict[str, tuple[Made, bool]] = {}
    definitions: dict[str, Any] = {}
    for index, key in enumerate(draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True))):
        made, required = draw(inner), draw(st.booleans())
        fields[key] = (made, required)
        info = Field(alias=key) if required else Field(default=None, alias=key)
        definitions[f"f{index}"] = (made.type if required else made.type | None, info)
    documents = st.fixed_dictionaries(
        {key: made.documents for key, (made, required) in fields.items() if required},
        optional={key: made.documents for key, (made, required) in fields.items() if not required},
    )
    return Made(create_model("Made", **definitions), documents, fields)


def containers(inner: st.SearchStrategy[Made]) -> st.SearchStrategy[Made]:
    return st.one_of(
        models(inner),
        inner.map(lambda one: Made(array_of(one.type), st.lists(one.documents, max_size=3))),
        inner.map(
            lambda one: Made(
                GenericAlias(dict, (str, one.type)), st.dictionaries(st.sampled_from(KEYS), one.documents, max_size=2)
            )
        ),
        inner.map(lambda one: Made(one.type | None, st.none() | one.documents)),
    )


TYPES = st.recursive(st.sampled_from(LEAVES), containers, max_leaves=6)
RELAXED = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def array_of(item: Any) -> Any:
    return GenericAlias(list, (item,))


def map_of(item: Any) -> Any:
    return GenericAlias(dict, (str, item))


def refused(model: Any, document: Any) -> bool:
    try:
        TypeAdapter(model).validate_json(as_json(document))
    except ValidationError:
        return True
    return False


@RELAXED
@given(st.data())
def test_a_conforming_document_has_nothing_wrong(data: st.DataObject) -> None:
    made = data.draw(TYPES)
    document = data.draw(made.documents)
    assert not refused(made.type, document)
    wrong = [f for f in check(made.type, document).findings if f.issue not in ("null", "empty") and f.grade != "info"]
    assert wrong == []


@RELAXED
@given(st.data())
def test_one_change_is_found_where_it_was_made(data: st.DataObject) -> None:
    made = data.draw(models(TYPES))
    documents = data.draw(st.lists(made.documents, min_size=1, max_size=3))
    changed = copy.deepcopy(documents)
    at = data.draw(st.integers(0, len(documents) - 1))
    assert made.fields is not None
    key = data.draw(st.sampled_from(sorted(made.fields)))
    required = made.fields[key][1]
    change = data.draw(st.sampled_from(["drop", "null", "type", "add"]))
    if change == "drop":
        changed[at].pop(key, None)
    elif change == "null":
        changed[at][key] = None
    elif change == "type":
        changed[at][key] = [[["of no declared type"]]]
    else:
        key, changed[at]["surplus"] = "surplus", 1
    report = check(array_of(made.type), changed)
    breaking = {f.path for f in report.findings if f.grade == "breaking"}
    assert bool(breaking) == refused(array_of(made.type), changed)
    assert "its validator accepts" not in report.text()
    path = _path(key)
    assert all(one.startswith(path) for one in breaking), breaking
    if change == "drop" and required:
        assert breaking == {path}
    if change == "add":
        assert [(f.path, f.grade, f.count, f.of) for f in report.findings if f.issue == "extra"] == [
            (path, "warning", 1, len(documents))
        ]


@settings(RELAXED, max_examples=200)
@given(st.data())
def test_any_document_is_judged_as_pydantic_does(data: st.DataObject) -> None:
    made, other = data.draw(TYPES), data.draw(TYPES)
    model = data.draw(st.sampled_from([made.type, made.type | other.type, array_of(made.type | other.type)]))
    values = (
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["12", "1.5", "a", "true"])
    )
    nested = st.recursive(
        values | made.documents | other.documents,
        lambda one: st.lists(one, max_size=2) | st.dictionaries(st.sampled_from(KEYS), one, max_size=3),
        max_leaves=5,
    )
    document = data.draw(nested)
    report = check(model, document)
    assert (report.summary["breaking"] > 0) == refused(model, document), report.text()
    # Each is found by the walk, with what was declared, none only by Pydantic's verdict on the whole.
    assert "its validator accepts" not in report.text()


def _path(key: str) -> str:
    escaped = key.replace("'", "\\'")
    return f"$[*].{key}" if key.isidentifier() else f"$[*]['{escaped}']"
