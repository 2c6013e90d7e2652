"""Parsers of content types other than JSON: they turn a response into JSON-like values for a declared model."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Collection, Mapping
from typing import Any
from xml.etree import ElementTree

import httpx
from pydantic import TypeAdapter, ValidationError

Parser = Callable[[httpx.Response], Any]
"""Turns a response of its content type into JSON-like Python values. Any exception means that the body is unreadable."""


_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def decoded(response: httpx.Response) -> str:
    """The body as text, without a byte order mark. Encoding: that of the mark, else the declared charset, else UTF-8.

    Raises UnicodeDecodeError for bytes that are invalid in that encoding, LookupError for an unknown charset.
    """
    content = response.content
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding)
    return content.decode(response.charset_encoding or "utf-8")


def start_of(response: httpx.Response, length: int) -> str:
    """The first bytes of a body as text for messages, in its charset or UTF-8. Invalid bytes are replaced."""
    content = response.content[:length]
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    try:
        return content.decode(response.charset_encoding or "utf-8", "replace")
    except (LookupError, ValueError):  # a charset that Python does not support
        return content.decode("utf-8", "replace")


def parse_csv(response: httpx.Response) -> list[dict[str, str]]:
    """Rows of a CSV document with a header line (RFC 4180)."""
    return list(csv.DictReader(io.StringIO(decoded(response), newline="")))


def xml_parser(lists: Collection[str] = ()) -> Parser:
    """A parser of XML to `{root: content}`.

    Attributes become `@name`, text beside them `#text`, repeated elements lists; namespaces are dropped. Elements named in
    `lists` are always lists, even if there is only one. A declared model needs no `lists`: its own lists are used.
    The parser raises ValueError for a document type declaration, which could expand entities.
    The charset of the Content-Type takes precedence over that of the XML declaration (RFC 7303 3).
    """
    always = frozenset(lists)

    def parse(response: httpx.Response) -> dict[str, Any]:
        marked = any(response.content.startswith(mark) for mark, _ in _MARKS)
        source = decoded(response) if marked or response.charset_encoding else response.content
        parser = ElementTree.XMLParser(target=_Builder())  # noqa: S314 -- without declarations nothing can expand
        parser.feed(source)
        root = parser.close()
        return {_local(root.tag): _content(root, always)}

    return parse


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a document type declaration is not accepted")


def parse_xml(response: httpx.Response) -> dict[str, Any]:
    """Parse XML as `xml_parser()` does."""
    document: dict[str, Any] = _PARSE_XML(response)
    return document


_PARSE_XML = xml_parser()


def _content(element: ElementTree.Element, lists: frozenset[str]) -> Any:
    content: dict[str, Any] = {f"@{_local(name)}": value for name, value in element.attrib.items()}
    for child in element:
        name, value = _local(child.tag), _content(child, lists)
        if name not in content:
            content[name] = [value] if name in lists else value
        elif isinstance(content[name], list):
            content[name].append(value)
        else:
            content[name] = [content[name], value]
    text = (element.text or "").strip()
    if not content:
        return text or None
    return {**content, "#text": text} if text else content


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


DEFAULT_PARSERS: Mapping[str, Parser] = {
    "text/csv": parse_csv,
    "application/xml": parse_xml,
    "text/xml": parse_xml,
}


def is_xml(kind: str) -> bool:
    """Whether a media type is XML, `+xml` included (RFC 7303 4.2). Images, such as SVG, stay bytes."""
    return kind in ("application/xml", "text/xml") or (kind.endswith("+xml") and not kind.startswith("image/"))


def parser_for(parsers: Mapping[str, Parser], kind: str) -> Parser | None:
    """The plug's parser for a media type, else khotan's default; None if there is none."""
    parser = parsers.get(kind) or DEFAULT_PARSERS.get(kind)
    return parser or (parsers.get("application/xml", parse_xml) if is_xml(kind) else None)


def with_lists(adapter: TypeAdapter[Any], value: Any) -> Any:
    """Convert values of an XML document to lists wherever the declared type has a list.

    In XML, one element looks like a single value, and no element like None. Other mismatches are left to validation.
    """
    for _ in range(_MAX_PASSES):
        try:
            adapter.validate_python(value)
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_input=False, include_context=False)
            locations = [error["loc"] for error in errors if error["type"] in _LIST_ERRORS]
            changed = value
            for location in locations:
                changed = _wrapped(changed, location)
            if changed == value:
                return value
            value = changed
        except Exception:  # raised by a user's validator; the later validation reports it
            return value
        else:
            return value
    return value


_MAX_PASSES = 50
"""Each pass reaches lists one level deeper."""
_LIST_ERRORS = frozenset({"list_type", "set_type", "frozen_set_type", "tuple_type", "is_instance_of", "iterable_type"})


def _wrapped(value: Any, location: tuple[int | str, ...]) -> Any:
    if not location:
        return value if isinstance(value, list) else [] if value is None else [value]
    first, rest = location[0], location[1:]
    if isinstance(value, dict) and first in value:
        return {**value, first: _wrapped(value[first], rest)}
    if isinstance(value, list) and isinstance(first, int) and first < len(value):
        return [*value[:first], _wrapped(value[first], rest), *value[first + 1 :]]
    return _wrapped(value, rest)  # the name of a member of a union
