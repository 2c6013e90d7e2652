"""An inbound request for verification and rules: raw body bytes, case-insensitive headers. Does no I/O."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast
from urllib.parse import parse_qsl

from khotan_cli.runtime.content.json_text import load_json
from khotan_cli.runtime.webhooks.decoding import (
    FORM,
    Undecodable,
    as_utf8,
    form_charset,
    is_json,
    media_type,
    uncompressed,
)


class Headers(Mapping[str, str]):
    """Header fields by case-insensitive name. Values of a repeated field are joined with a comma (RFC 9110 5.3)."""

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, str] = {}
        pairs = cast("Mapping[str, str]", fields).items() if isinstance(fields, Mapping) else fields
        for name, value in pairs:
            key = name.lower()
            self._fields[key] = f"{self._fields[key]}, {value}" if key in self._fields else value

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def items(self) -> ItemsView[str, str]:
        return self._fields.items()

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(frozen=True)
class WebhookRequest:
    """A received request. `url` is the public URL with its query; `body` holds the raw bytes, which are verified.

    `envelope` is the form field that holds the vendor's JSON document. `path` holds the values of the wire's path
    placeholders by name.
    """

    method: str
    url: str
    headers: Headers
    body: bytes = field(repr=False)
    envelope: str | None = None
    path: Mapping[str, str] = field(default_factory=dict[str, str])

    @cached_property
    def query(self) -> Mapping[str, str]:
        # Not urlsplit: it raises for an invalid host, and the sender controls the host.
        return dict(parse_qsl(self.url.partition("?")[2], keep_blank_values=True))

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty if the header is missing."""
        return media_type(self.headers.get("content-type", ""))

    @cached_property
    def decoded(self) -> bytes:
        """The body without its content coding, text as UTF-8. Raises Undecodable, a ValueError."""
        plain = uncompressed(self.body, self.headers.get("content-encoding", ""))
        return as_utf8(plain, self.headers.get("content-type", ""))

    @cached_property
    def content(self) -> bytes:
        """The decoded body, or the envelope field if the body is a form with that field. Raises Undecodable."""
        if self.envelope is None or self.content_type != FORM:
            return self.decoded
        inner = next((value for name, value in self._fields() if name == self.envelope), None)
        return self.decoded if inner is None else inner.encode()

    @cached_property
    def form(self) -> list[tuple[str, str]]:
        """The fields of a form-encoded body; empty for another content type or an undecodable body."""
        try:
            return self._fields()
        except Undecodable:
            return []

    def _fields(self) -> list[tuple[str, str]]:
        if self.content_type != FORM:
            return []
        charset = form_charset(self.headers.get("content-type", ""))
        text = self.decoded.decode("utf-8", "replace")
        try:
            return parse_qsl(text, keep_blank_values=True, encoding=charset, errors="strict")
        except UnicodeError:
            raise Undecodable(f"The form is not valid {charset[:40]}") from None

    @cached_property
    def json(self) -> Any:
        """The content as JSON; integers may have any length. Raises ValueError if it is not JSON or nested too deep."""
        try:
            return load_json(self.content)
        except RecursionError:
            raise ValueError("The content is nested too deep") from None

    def problem(self, *, json_needed: bool = False) -> str | None:
        """Return why the body cannot be read, or None. json_needed: a body without a content type must be JSON."""
        try:
            content = self.content
            if self.content_type == FORM:
                self._fields()
        except Undecodable as exc:
            return str(exc)
        unwrapped = content is not self.decoded
        if unwrapped or is_json(self.headers.get("content-type", "")) or (json_needed and not self.content_type):
            try:
                _ = self.json
            except ValueError:
                where = f"The form field {self.envelope!r}" if unwrapped else "The body"
                return f"{where} is not valid JSON, or is nested too deep"
        return None


class RequestRejected(Exception):
    """The wire rejects the request. The message gives the reason for the app's log; it is not sent to the caller."""
