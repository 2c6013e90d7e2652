"""Paginators by offset, page number, cursor, last key, or a custom function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Unpack

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.content.json_path import Path, dig, path_text, type_name
from khotan_cli.runtime.paging.base import (
    HEADER,
    Next,
    PageView,
    Paginator,
    PagingOptions,
    Where,
    check_path,
    page_value,
    resolve_url,
    whole_number,
)


class _CountedPaginator(Paginator):
    """Base of paginators whose positions count items or pages, with an optional page size parameter."""

    positional = True
    computed = True

    def __init__(
        self,
        param: str,
        start: int,
        size_param: str | None,
        size: int | None,
        total: Path | None,
        where: Where,
        options: PagingOptions,
    ) -> None:
        super().__init__(where=where, **options)
        if size is not None and size < 1:
            raise ValueError(f"{type(self).__name__}: a page size must be 1 or more, not {size}")
        if size is not None and not size_param:
            raise ValueError(f"{type(self).__name__}: a page size needs the name of its parameter")
        check_path(total)
        self.param, self.start, self.total = param, start, total
        self.position_param = param
        self.size_param, self.size = size_param, size
        self.value_paths = {"total": total}

    def starting(self, query: Mapping[str, Any], body: Any) -> Next:
        params: dict[str, Any] = {}
        if _param(query, body, self.where, self.param) is None:
            params[self.param] = self.start
        if self.size_param and self.size and _param(query, body, self.where, self.size_param) is None:
            params[self.size_param] = self.size
        return Next(params, self.where)

    def total_of(self, page: PageView) -> int | None:
        if self.total is None:
            return None
        return whole_number(page_value(page, self.total), f"The total at {path_text(self.total)!r}")

    def _number(self, page: PageView) -> int:
        value = _param(page.query, page.body, self.where, self.param)
        try:
            return self.start if value is None else int(value)
        except (TypeError, ValueError):
            raise PaginationError(
                f"{self.param}={value!r} is not a whole number", hint="Pass a whole number."
            ) from None

    def _page_size(self, page: PageView) -> int | None:
        if not self.size_param:
            return None
        return whole_number(_param(page.query, page.body, self.where, self.size_param), f"{self.size_param}=…")


class OffsetPaginator(_CountedPaginator):
    """`?offset=200&limit=100`. Ends at an empty page, at the total if `total=` is its path, or at the flag.

    limit: items per page, sent as `limit_param`. step: what the offset grows by: "items", the number received, or
    "limit", for services that omit items from a page (deleted, or not visible) but still count them.
    """

    def __init__(
        self,
        *,
        offset_param: str = "offset",
        limit_param: str | None = "limit",
        limit: int | None = None,
        start: int = 0,
        total: Path | None = None,
        step: Literal["items", "limit"] = "items",
        where: Where = "query",
        **options: Unpack[PagingOptions],
    ) -> None:
        super().__init__(offset_param, start, limit_param, limit, total, where, options)
        if step not in ("items", "limit"):
            raise ValueError(f"step={step!r} must be 'items' or 'limit'")
        if step == "limit" and not limit_param:
            raise ValueError("step='limit' needs limit_param, the name of the limit parameter")
        self.step = step

    def following(self, page: PageView) -> Next | None:
        count, offset, total = len(self.items(page.data)), self._number(page), self.total_of(page)
        more = page.more
        if more is None and total is not None:
            # The step counts, even if fewer items were received.
            more = offset + (count if self.step == "items" else self._limit(page)) < self.start + total
        if more is False or (more is None and count == 0):
            return None
        if count == 0 and self.step == "items" and self._page_size(page) is None:
            raise PaginationError(
                f"The page at {self.param}={offset} is empty, but the service reports more items",
                hint="If the service omits items from pages, set limit=… and step='limit'.",
            )
        return self._position(
            **{self.param: offset + (self._limit(page) if self.step == "limit" or not count else count)}
        )

    def _limit(self, page: PageView) -> int:
        limit = self._page_size(page)
        if not limit:
            raise PaginationError(
                "step='limit' needs a limit", hint="Set limit=… on the paginator, or pass it in the call."
            )
        return limit


class PageNumberPaginator(_CountedPaginator):
    """`?page=3&per_page=100`. Ends at an empty page, at the count of `total_pages=` or `total=` (items), or at the flag.

    size: items per page, sent as `size_param`.
    """

    def __init__(
        self,
        *,
        page_param: str = "page",
        size_param: str | None = None,
        size: int | None = None,
        start: int = 1,
        total_pages: Path | None = None,
        total: Path | None = None,
        where: Where = "query",
        **options: Unpack[PagingOptions],
    ) -> None:
        super().__init__(page_param, start, size_param, size, total, where, options)
        check_path(total_pages)
        self.total_pages = total_pages
        self.value_paths = {"total": total, "total_pages": total_pages}

    def following(self, page: PageView) -> Next | None:
        count, number, total = len(self.items(page.data)), self._number(page), self.total_of(page)
        more = page.more
        if more is None and self.total_pages is not None:
            what = f"The number of pages at {path_text(self.total_pages)!r}"
            pages = whole_number(page_value(page, self.total_pages), what)
            more = None if pages is None else number < pages + self.start - 1
        if more is None and total is not None and number - self.start == page.index:
            more = page.seen + count < total
            if more and not count:
                more = self._more_behind_empty(page, number, total)
        if more is False or (more is None and count == 0):
            return None
        return self._position(**{self.param: number + 1})

    def _more_behind_empty(self, page: PageView, number: int, total: int) -> bool:
        """Whether pages can follow an empty page: the service may omit items but still count them."""
        size = self._page_size(page)
        if size is None:
            raise PaginationError(
                f"Page {number} is empty, but only {page.seen} of {total} items were received",
                hint="Correct total=…, or omit it if it is an estimate.",
            )
        return (number - self.start + 1) * size < total


class CursorPaginator(Paginator):
    """A cursor from the service. Ends if it is absent, null or empty, or one of `end_values`.

    `cursor` is its path in the body, `header` the name of a response header instead. A compound cursor maps each
    parameter to its path: `CursorPaginator(params={"after_id": "next.id", "after_time": "next.time"})`; a path that
    starts with `header:` is a response header. Each cursor replaces the previous one with all of its parts. end_values:
    cursors that mean "no more", for example `("-1",)`; 0 is a cursor unless it is one of them.
    """

    def __init__(
        self,
        *,
        param: str = "cursor",
        cursor: Path | None = None,
        header: str | None = None,
        params: Mapping[str, Path] | None = None,
        end_values: Collection[Any] = (),
        where: Where = "query",
        **options: Unpack[PagingOptions],
    ) -> None:
        super().__init__(where=where, **options)
        if cursor is not None and header is not None:
            raise ValueError("cursor and header exclude each other")
        if params is not None and (cursor is not None or header is not None or param != "cursor"):
            raise ValueError("params excludes param, cursor and header: it lists all parts of a compound cursor")
        if params is not None and not params:
            raise ValueError("params must not be empty")
        location: Path = f"{HEADER}{header}" if header is not None else cursor if cursor is not None else "next_cursor"
        self.locations: dict[str, Path] = dict(params or {param: location})
        self.end_values = {str(value) for value in end_values}
        for path in self.locations.values():
            check_path(path)
        self.value_paths = {f"params[{name!r}]" if params else "cursor": path for name, path in self.locations.items()}

    def following(self, page: PageView) -> Next | None:
        cursor = {param: self._cursor(page_value(page, path), path) for param, path in self.locations.items()}
        if all(value is None or str(value) in self.end_values for value in cursor.values()):
            return None
        return Next({param: value for param, value in cursor.items() if value is not None}, self.where)

    def _cursor(self, value: Any, path: Path) -> Any:
        """The cursor to send; None for no cursor. Only a body, not a query, can contain an object or a list."""
        if value is None or value == "" or value is False:
            return None
        if isinstance(value, (dict, list)) and self.where == "query":
            raise PaginationError(
                f"The cursor at {path_text(path)!r} is {type_name(value)}, which a query cannot contain",
                hint="List its parts: params={parameter: path}.",
            )
        return value or None if isinstance(value, (dict, list)) else value


class KeysetPaginator(Paginator):
    """Uses the last item's id as the position: `?starting_after=ch_9` (Stripe's convention). Ends at an empty page.

    id_field: path of the id in an item.
    """

    computed = True

    def __init__(
        self,
        *,
        param: str = "starting_after",
        id_field: Path = "id",
        where: Where = "query",
        **options: Unpack[PagingOptions],
    ) -> None:
        super().__init__(where=where, **options)
        check_path(id_field)
        self.param, self.id_field = param, id_field

    def following(self, page: PageView) -> Next | None:
        items = self.items(page.data)
        if not items:
            return None
        last = dig(items[-1], self.id_field)
        if last is None or isinstance(last, (dict, list)):
            raise PaginationError(
                f"The last item of page {page.index + 1} has no id at {path_text(self.id_field)!r}",
                hint="Correct the paginator's id_field=….",
            )
        return self._position(**{self.param: last})


class SinglePagePaginator(Paginator):
    """For endpoints that return all items in one response."""

    def __init__(self, *, items: Path | None = None, absent_is_empty: bool = False) -> None:
        super().__init__(items=items, absent_is_empty=absent_is_empty)

    def following(self, page: PageView) -> Next | None:
        return None


class FunctionPaginator(Paginator):
    """Pages with a function that returns the parameters of the next page, its URL, or None after the last page.

    The parameters are added to those of the first request. Parameters of earlier pages are not sent again.
    """

    def __init__(
        self,
        function: Callable[[PageView], Mapping[str, Any] | str | None],
        *,
        where: Where = "query",
        **options: Unpack[PagingOptions],
    ) -> None:
        super().__init__(where=where, **options)
        self.function = function

    def following(self, page: PageView) -> Next | None:
        position = self.function(page)
        if position is None:
            return None
        if isinstance(position, str):
            return Next(url=resolve_url(page, position))
        return Next(position, self.where)


def _param(query: Mapping[str, Any], body: Any, where: Where, name: str) -> Any:
    return query.get(name) if where == "query" else dig(body, name)
