"""What rules find in a request, and what a handler is given of its body."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from khotan_cli.runtime.webhooks.event import StoredEvent
from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest
from khotan_cli.runtime.webhooks.verify.locator import Rule

FORM = "application/x-www-form-urlencoded"


def found(body: bytes) -> str | None:
    return Rule(json="data.id").find(WebhookRequest("POST", "", Headers({}), body))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('"' + "x" * 600 + '1"', '"' + "x" * 600 + '2"'),
        ('"a\\u0000b"', '"ab"'),
        ('"a\\u0000b"', '"a\\u0000\\u0000b"'),
        ("123456789012345678901", "123456789012345678902"),
        ("-123456789012345678901", "-123456789012345678902"),
        ("0.12345678901234567890", "0.12345678901234567891"),
    ],
)
def test_ids_that_differ_stay_different(one: str, other: str) -> None:
    ids = [found(f'{{"data": {{"id": {value}}}}}'.encode()) for value in (one, other, one)]
    assert ids[0] == ids[2] != ids[1]
    assert all(text is not None and len(text) <= 500 and "\x00" not in text for text in ids)


@pytest.mark.parametrize(
    ("value", "text"), [("7", "7"), ("1.5", "1.5"), ("18446744073709551616", "18446744073709551616"), ("true", "true")]
)
def test_values_are_found_as_they_are_written(value: str, text: str) -> None:
    assert found(f'{{"data": {{"id": {value}}}}}'.encode()) == text
    deep = f'{{"data": {{"id": {value}}}, "more": {"[" * 900}{"]" * 900}}}'
    assert found(deep.encode()) is not None, "what is nested too deep for the exact reader is read all the same"


class Order(BaseModel):
    id: str
    lines: list[int] = []


def stored(body: bytes, content_type: str) -> StoredEvent:
    row: Any = SimpleNamespace(method="POST", headers={"content-type": content_type}, body=body)
    return StoredEvent(row)


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8", "application/json", ""])
def test_json_is_json_whatever_its_content_type_says(content_type: str) -> None:
    event = stored(json.dumps({"id": "a=b&c", "lines": [1]}).encode(), content_type)
    assert event.content == {"id": "a=b&c", "lines": [1]}
    assert event._validated(TypeAdapter(Order)) == Order(id="a=b&c", lines=[1])


@pytest.mark.parametrize("body", [b"id=7", b"7", b"id=%7B%7D", b'{"id'])
def test_a_form_is_a_form(body: bytes) -> None:
    event = stored(body, FORM)
    assert event.content == dict(event.request.form)
    if b"id=" in body:
        assert event._validated(TypeAdapter(Order)).id in ("7", "{}")
