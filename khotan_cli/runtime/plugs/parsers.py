"""Parsers of content types other than JSON: from a response to JSON-like values that a declared model can judge."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

import httpx

Parser = Callable[[httpx.Response], Any]
"""Turns a response of its content type into JSON-like Python values; whatever it raises means: not readable."""


def parse_csv(response: httpx.Response) -> list[dict[str, str]]:
    """Rows of a CSV document with a header line (RFC 4180)."""
    text = response.content.decode(response.charset_encoding or "utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def parse_xml(response: httpx.Response) -> dict[str, Any]:
    """`{root: content}`: attributes as `@name`, text beside them as `#text`, repeated elements as lists, no namespaces.

    Raises ValueError for a document type declaration: entities that expand have no place in an API's answer.
    """
    if b"<!DOCTYPE" in response.content:
        raise ValueError("a document type declaration is not accepted")
    root = ElementTree.fromstring(response.content)  # noqa: S314 -- without declarations nothing can expand
    return {_local(root.tag): _content(root)}


def _content(element: ElementTree.Element) -> Any:
    found: dict[str, Any] = {f"@{_local(name)}": value for name, value in element.attrib.items()}
    for child in element:
        name, value = _local(child.tag), _content(child)
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    text = (element.text or "").strip()
    if not found:
        return text or None
    return {**found, "#text": text} if text else found


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


DEFAULT_PARSERS: Mapping[str, Parser] = {
    "text/csv": parse_csv,
    "application/xml": parse_xml,
    "text/xml": parse_xml,
}
