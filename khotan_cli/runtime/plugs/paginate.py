"""How to get from one page to the next, sans-IO: a page goes in, the position of the next comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urljoin

import httpx
import orjson

from khotan_cli.errors import PaginationError

Where = Literal["query", "body"]
_LOOKED_AT = 16
USUAL_LISTS = ("data", "items", "results", "records", "value", "values", "entries")


@dataclass(frozen=True)
class PageView:
    """One page as it came: the response, its parsed body, and what was asked for.

    `query` and `body` are the parameters of the request; `index` counts pages from 0.
    """

    response: httpx.Response
    data: Any
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    body: Any = None
    index: int = 0


@dataclass(frozen=True)
class Next:
    """Where the next page is: parameters to set (dotted paths in a body), or a URL that replaces the whole request's."""

    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    where: Where = "query"
    url: str | None = None

    def apply(self, query: Mapping[str, Any], body: Any) -> tuple[dict[str, Any], Any]:
        """The query and body of the next request; the given ones stay as they are."""
        if self.where == "query":
            return {**query, **self.params}, body
        changed = dict(body) if isinstance(body, Mapping) else {}
        for path, value in self.params.items():
            changed = _assigned(changed, path.split("."), value)
        return dict(query), changed


class Paginator:
    """Base of the paginators. Override `following`, and `starting` where the first request needs parameters.

    items: dotted path of the list of items in the body; None: the body itself where it is a list, else its one list
    (or the one with a usual name: data, items, results, …).
    has_more: dotted path of a flag; a false one ends the paging. delay: seconds between pages.
    max_pages: end after so many pages; None: no bound. where: whether positions go into the query or the body.
    """

    def __init__(
        self,
        *,
        items: str | None = None,
        has_more: str | None = None,
        delay: float = 0.0,
        max_pages: int | None = None,
        where: Where = "query",
    ) -> None:
        if delay < 0:
            raise ValueError("delay is in seconds and cannot be negative")
        if max_pages is not None and max_pages < 1:
            raise ValueError("max_pages must be 1 or more")
        self.items_path = items
        self.has_more = has_more
        self.delay = delay
        self.max_pages = max_pages
        self.where: Where = where

    def starting(self, query: Mapping[str, Any], body: Any) -> Next:
        """What to add to the first request; nothing by default."""
        return Next(where=self.where)

    def following(self, page: PageView) -> Next | None:
        """The next position, or None after the last page."""
        raise PaginationError(f"{type(self).__name__} does not say how to find the next page: define following(page)")

    def items(self, data: Any) -> list[Any]:
        """The items of a page. Raises PaginationError where the body holds no list at the declared place."""
        if self.items_path is not None:
            found = dig(data, self.items_path)
            if found is None:
                return []
            if not isinstance(found, list):
                raise PaginationError(
                    f"There is no list at {self.items_path!r} in the page, but {type(found).__name__}",
                    hint="Correct the paginator's items=… path.",
                )
            return found
        return guess_items(data)

    def next_page(self, page: PageView) -> Next | None:
        """`following`, unless the page's flag says that it was the last."""
        if self.has_more is not None and not dig(page.data, self.has_more):
            return None
        return self.following(page)

    def _position(self, **params: Any) -> Next:
        return Next(params, self.where)


class Paging:
    """One walk through the pages: where it stands, and the guard against a service that repeats a page for ever.

    `cut` is true once the paginator's max_pages has ended a walk that would have gone on.
    """

    def __init__(self, paginator: Paginator) -> None:
        self._paginator = paginator
        self._positions: set[bytes] = set()
        self._seen: dict[bytes, int] = {}
        self._last_content = b""
        self._index = 0
        self.cut = False

    @property
    def index(self) -> int:
        """Number of pages seen."""
        return self._index

    def advance(self, page: PageView) -> Next | None:
        """The next position, None after the last page. Raises PaginationError for a page or position seen before."""
        self._index += 1
        following = self._paginator.next_page(page)
        if following is None:
            return None
        if self._paginator.max_pages is not None and self._index >= self._paginator.max_pages:
            self.cut = True
            return None
        items = self._paginator.items(page.data)
        if items:
            self._check_content(items)
        if not self._new(following):
            raise self._repeated("leads back to a page that was read already")
        return following

    def passed(self, position: Next) -> None:
        """Count a page that an earlier part of the walk read, and the position it led to."""
        self._index += 1
        self._new(position)

    def _new(self, position: Next) -> bool:
        digest = _digest(repr((position.url, sorted(position.params.items(), key=str))).encode())
        known = digest in self._positions
        self._positions.add(digest)
        return not known

    def _check_content(self, items: list[Any]) -> None:
        # A walk keeps 16 bytes a page, not the pages, and looks at some items of a large one. Equal pages can be honest
        # where items have no ids, so one that comes back after others is only taken for a circle the third time.
        looked_at = items[:: max(1, len(items) // _LOOKED_AT)]
        content = _digest(orjson.dumps([len(items), looked_at]))
        self._seen[content] = self._seen.get(content, 0) + 1
        if content == self._last_content or self._seen[content] > 2:
            raise self._repeated("sends the same page again")
        self._last_content = content

    def _repeated(self, what: str) -> PaginationError:
        return PaginationError(
            f"The service {what} after page {self._index}",
            hint="The paginator and the API disagree: check its parameter names and where the position is read from.",
        )


def dig(data: Any, path: str) -> Any:
    """The value at a dotted path (`paging.next`, `pages.0.id`), or None where a part is absent."""
    for part in path.split("."):
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list) and part.lstrip("-").isdigit() and -len(data) <= int(part) < len(data):
            data = data[int(part)]
        else:
            return None
    return data


def guess_items(data: Any) -> list[Any]:
    """The list of items where the paginator does not say: the body, its one list, or the one with a usual name."""
    if isinstance(data, list):
        return data
    if isinstance(data, Mapping):
        lists = {key: value for key, value in data.items() if isinstance(value, list)}
        usual = next((lists[name] for name in USUAL_LISTS if name in lists), None)
        if usual is not None:
            return usual
        if len(lists) == 1:
            return next(iter(lists.values()))
    raise PaginationError(
        "The page has no list of items that can be told from its shape",
        hint="Name it: items='data' (a dotted path) in the paginator.",
    )


def resolve_url(page: PageView, link: str) -> str:
    """A link made absolute against the URL of the page (RFC 3986 5)."""
    return urljoin(str(page.response.request.url), link.strip())


def _assigned(target: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    inner = target.get(head)
    below = _assigned(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value
    return {**target, head: below}


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
