"""How to get from one page to the next, sans-IO: a page goes in, the position of the next comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urljoin

import httpx
import orjson

from khotan_cli.errors import PaginationError

Where = Literal["query", "body"]
_COMMON_LISTS = ("data", "items", "results", "records", "value", "values", "entries")


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


class OffsetPaginator(Paginator):
    """`?offset=200&limit=100`. Ends at an empty page, at the total where `total=` names its path, or at has_more."""

    def __init__(
        self,
        *,
        offset_param: str = "offset",
        limit_param: str | None = "limit",
        limit: int | None = None,
        start: int = 0,
        total: str | None = None,
        items: str | None = None,
        has_more: str | None = None,
        delay: float = 0.0,
        max_pages: int | None = None,
        where: Where = "query",
    ) -> None:
        super().__init__(items=items, has_more=has_more, delay=delay, max_pages=max_pages, where=where)
        self.offset_param, self.limit_param = offset_param, limit_param
        self.limit, self.start, self.total = limit, start, total

    def starting(self, query: Mapping[str, Any], body: Any) -> Next:
        params: dict[str, Any] = {}
        if _param(query, body, self.where, self.offset_param) is None:
            params[self.offset_param] = self.start
        if self.limit_param and self.limit and _param(query, body, self.where, self.limit_param) is None:
            params[self.limit_param] = self.limit
        return Next(params, self.where)

    def following(self, page: PageView) -> Next | None:
        count = len(self.items(page.data))
        offset = _number(_param(page.query, page.body, self.where, self.offset_param), self.start) + count
        total = dig(page.data, self.total) if self.total else None
        if count == 0 or (total is not None and offset >= self.start + _number(total, 0)):
            return None
        return Next({self.offset_param: offset}, self.where)


class PageNumberPaginator(Paginator):
    """`?page=3&per_page=100`. Ends at an empty page, at `total_pages=`'s count, or at has_more."""

    def __init__(
        self,
        *,
        page_param: str = "page",
        size_param: str | None = None,
        size: int | None = None,
        start: int = 1,
        total_pages: str | None = None,
        items: str | None = None,
        has_more: str | None = None,
        delay: float = 0.0,
        max_pages: int | None = None,
        where: Where = "query",
    ) -> None:
        super().__init__(items=items, has_more=has_more, delay=delay, max_pages=max_pages, where=where)
        self.page_param, self.size_param, self.size = page_param, size_param, size
        self.start, self.total_pages = start, total_pages

    def starting(self, query: Mapping[str, Any], body: Any) -> Next:
        params: dict[str, Any] = {}
        if _param(query, body, self.where, self.page_param) is None:
            params[self.page_param] = self.start
        if self.size_param and self.size and _param(query, body, self.where, self.size_param) is None:
            params[self.size_param] = self.size
        return Next(params, self.where)

    def following(self, page: PageView) -> Next | None:
        number = _number(_param(page.query, page.body, self.where, self.page_param), self.start)
        total = dig(page.data, self.total_pages) if self.total_pages else None
        last = total is not None and number >= _number(total, 0) + self.start - 1
        if last or not self.items(page.data):
            return None
        return Next({self.page_param: number + 1}, self.where)


class CursorPaginator(Paginator):
    """A cursor that the service hands out. Ends where it is absent, null or empty.

    `cursor` is its dotted path in the body, `header` the name of a response header instead. A compound cursor maps each
    parameter to its place: `CursorPaginator(params={"after_id": "next.id", "after_time": "next.time"})`; a place that
    starts with `header:` is a response header.
    """

    def __init__(
        self,
        *,
        param: str = "cursor",
        cursor: str = "next_cursor",
        header: str | None = None,
        params: Mapping[str, str] | None = None,
        items: str | None = None,
        has_more: str | None = None,
        delay: float = 0.0,
        max_pages: int | None = None,
        where: Where = "query",
    ) -> None:
        super().__init__(items=items, has_more=has_more, delay=delay, max_pages=max_pages, where=where)
        self.places = dict(params or {param: f"header:{header}" if header else cursor})

    def following(self, page: PageView) -> Next | None:
        found: dict[str, Any] = {}
        for param, place in self.places.items():
            if place.startswith("header:"):
                found[param] = page.response.headers.get(place.removeprefix("header:"))
            else:
                found[param] = dig(page.data, place)
        if all(value is None or value in ("", False) for value in found.values()):
            return None
        return Next({param: value for param, value in found.items() if value is not None}, self.where)


class KeysetPaginator(Paginator):
    """The last item's id is the position: `?starting_after=ch_9` (Stripe's list convention). Ends at an empty page."""

    def __init__(
        self,
        *,
        param: str = "starting_after",
        id_field: str = "id",
        items: str | None = None,
        has_more: str | None = None,
        delay: float = 0.0,
        max_pages: int | None = None,
        where: Where = "query",
    ) -> None:
        super().__init__(items=items, has_more=has_more, delay=delay, max_pages=max_pages, where=where)
        self.param, self.id_field = param, id_field

    def following(self, page: PageView) -> Next | None:
        items = self.items(page.data)
        if not items:
            return None
        last = dig(items[-1], self.id_field)
        if last is None:
            raise PaginationError(
                f"The last item of page {page.index + 1} has no {self.id_field!r}",
                hint="Correct the paginator's id_field=…",
            )
        return Next({self.param: last}, self.where)


class LinkHeaderPaginator(Paginator):
    """`Link: <…>; rel="next"` (RFC 8288), relative or absolute."""

    def following(self, page: PageView) -> Next | None:
        link = page.response.links.get("next", {}).get("url")
        return Next(url=resolve_url(page, link)) if link else None


class NextUrlPaginator(Paginator):
    """A URL of the next page in the body, relative or absolute: `NextUrlPaginator(path="paging.next")`."""

    def __init__(
        self,
        *,
        path: str = "next",
        items: str | None = None,
        has_more: str | None = None,
        delay: float = 0.0,
        max_pages: int | None = None,
    ) -> None:
        super().__init__(items=items, has_more=has_more, delay=delay, max_pages=max_pages)
        self.path = path

    def following(self, page: PageView) -> Next | None:
        found = dig(page.data, self.path)
        if isinstance(found, Mapping):  # a JSON:API link object
            found = found.get("href")
        if found is None or found == "":
            return None
        if not isinstance(found, str):
            raise PaginationError(
                f"The next URL at {self.path!r} is {type(found).__name__}, not a string",
                hint="Correct the paginator's path=…",
            )
        return Next(url=resolve_url(page, found))


class JsonApiPaginator(NextUrlPaginator):
    """JSON:API 1.1: items in `data`, the next page in `links.next`, a string or a link object with `href`."""

    def __init__(self, *, delay: float = 0.0, max_pages: int | None = None) -> None:
        super().__init__(path="links.next", items="data", delay=delay, max_pages=max_pages)


class FunctionPaginator(Paginator):
    """Paging by a function: it sees the page and returns parameters for the next, a URL, or None after the last."""

    def __init__(
        self,
        function: Callable[[PageView], Mapping[str, Any] | str | None],
        *,
        items: str | None = None,
        delay: float = 0.0,
        max_pages: int | None = None,
        where: Where = "query",
    ) -> None:
        super().__init__(items=items, delay=delay, max_pages=max_pages, where=where)
        self.function = function

    def following(self, page: PageView) -> Next | None:
        found = self.function(page)
        if found is None:
            return None
        if isinstance(found, str):
            return Next(url=resolve_url(page, found))
        return Next(found, self.where)


class Paging:
    """One walk through the pages: where it stands, and the guard against a service that repeats a page for ever."""

    def __init__(self, paginator: Paginator) -> None:
        self._paginator = paginator
        self._positions: set[bytes] = set()
        self._seen: dict[bytes, int] = {}
        self._last_content = b""
        self._index = 0

    @property
    def index(self) -> int:
        """Number of pages seen."""
        return self._index

    def advance(self, page: PageView) -> Next | None:
        """The next position, None after the last page. Raises PaginationError for a page or position seen before."""
        self._index += 1
        following = self._paginator.next_page(page)
        if following is None or (self._paginator.max_pages is not None and self._index >= self._paginator.max_pages):
            return None
        items = self._paginator.items(page.data)
        if items:
            self._check_content(items)
        position = _digest(repr((following.url, sorted(following.params.items(), key=str))).encode())
        if position in self._positions:
            raise self._repeated("leads back to a page that was read already")
        self._positions.add(position)
        return following

    def _check_content(self, items: list[Any]) -> None:
        # A walk keeps 16 bytes a page, not the pages. Equal pages can be honest where items have no ids, so one that
        # comes back after others is only taken for a circle the third time.
        content = _digest(orjson.dumps(items))
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
        usual = next((lists[name] for name in _COMMON_LISTS if name in lists), None)
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


def _param(query: Mapping[str, Any], body: Any, where: Where, name: str) -> Any:
    return query.get(name) if where == "query" else dig(body, name)


def _number(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def _assigned(target: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    inner = target.get(head)
    below = _assigned(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value
    return {**target, head: below}


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
