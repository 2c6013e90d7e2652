"""An inbound request as verification and rules see it: raw bytes, headers without regard to case. Sans-IO."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast
from urllib.parse import parse_qsl

import orjson


class Headers(Mapping[str, str]):
    """Header fields by name, in any case; a repeated field's values are joined with a comma (RFC 9110 5.3)."""

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, str] = {}
        pairs = cast("Mapping[str, str]", fields).items() if isinstance(fields, Mapping) else fields
        for name, value in pairs:
            key = name.lower()
            self._fields[key] = f"{self._fields[key]}, {value}" if key in self._fields else value

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


@dataclass(frozen=True)
class WebhookRequest:
    """What came in. `url` is the public one, with its query; `body` is untouched."""

    method: str
    url: str
    headers: Headers
    body: bytes = field(repr=False)

    @cached_property
    def query(self) -> Mapping[str, str]:
        # Not urlsplit: it refuses a URL whose host, which a sender may write as it likes, is none.
        return dict(parse_qsl(self.url.partition("?")[2], keep_blank_values=True))

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty where none was sent."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @cached_property
    def form(self) -> list[tuple[str, str]]:
        """The fields of a form-encoded body; none for another content type."""
        if self.content_type != "application/x-www-form-urlencoded":
            return []
        return parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True)

    @cached_property
    def json(self) -> Any:
        """The body as JSON. Raises ValueError where it is none, or nested too deep to be read."""
        return orjson.loads(self.body)
