"""The ways in which APIs page: by offset, number, cursor, last key, link, or a function of yours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.plugs.paginate import Next, PageView, Paginator, Where, dig, resolve_url


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


class SinglePagePaginator(Paginator):
    """Everything comes in one response."""

    def following(self, page: PageView) -> Next | None:
        return None


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


def _param(query: Mapping[str, Any], body: Any, where: Where, name: str) -> Any:
    return query.get(name) if where == "query" else dig(body, name)


def _number(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default
