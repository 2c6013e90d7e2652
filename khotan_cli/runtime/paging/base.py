"""Base of the paginators: they compute the position of the next page from a page, without I/O.

Paging ends when the service says so: by a flag, a total, an absent cursor, or an empty page. An ambiguous end (a body
without the list, a missing flag) raises PaginationError, so that an incomplete run never counts as complete.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict
from urllib.parse import urljoin

import httpx

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.content.json_path import (
    ABSENT,
    BEHIND_NULL,
    NotAContainer,
    Path,
    path_keys,
    path_text,
    type_name,
    value_at,
)
from khotan_cli.runtime.paging.declared_path import NEVER_ITEMS, USUAL_LISTS

Where = Literal["query", "body"]
HEADER = "header:"
"""Prefix of a path that names a response header: `header:X-Total-Count`."""
_YES, _NO = frozenset({"true", "yes", "y", "1"}), frozenset({"false", "no", "n", "0"})


@dataclass(frozen=True)
class PageView:
    """One received page: the response, its parsed body, and the parameters of the request.

    `query` and `body` are the parameters of the request; `index` counts pages from 0; `seen` is the number of items on
    earlier pages. `more` is the service's flag: True, False, or None without a flag.
    """

    response: httpx.Response
    data: Any
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    body: Any = None
    index: int = 0
    seen: int = 0
    more: bool | None = None


@dataclass(frozen=True)
class Next:
    """The position of the next page: parameters to set (paths in a body), or a URL that replaces that of the request."""

    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    where: Where = "query"
    url: str | None = None

    def apply(self, query: Mapping[str, Any], body: Any) -> tuple[dict[str, Any], Any]:
        """The query and body of the next request. The arguments are not changed."""
        if self.where == "query":
            return {**query, **self.params}, body
        changed = dict(body) if isinstance(body, Mapping) else {}
        for path, value in self.params.items():
            changed = _assigned(changed, path_keys(path), value)
        return dict(query), changed


class PagingOptions(TypedDict, total=False):
    """Options of every list paginator; see `Paginator`."""

    items: Path | None
    has_more: Path | None
    is_last: Path | None
    absent_is_empty: bool
    end_statuses: Collection[int]
    delay: float
    max_pages: int | None
    max_empty_pages: int


class Paginator:
    """Base of the paginators. Override `following`, and `starting` if the first request needs parameters.

    items: path of the list of items in the body; None: the body itself if it is a list, else its only list (or the one
    with a usual name: data, items, results, …). has_more: path of a flag that is true if another page follows; is_last:
    path of a flag that is true on the last page. The flag takes precedence over the paginator's own conclusion. A path
    that starts with `header:` names a response header, except for items. absent_is_empty: treat a body without the list,
    or with null instead, as an empty page; otherwise it is an error. end_statuses: statuses that mean "past the last
    page", for example {404}; on the first page, 404 is always an error. delay: seconds between pages. max_pages: maximum
    number of pages; None: unlimited. max_empty_pages: consecutive empty pages that raise an error. where: whether
    positions are sent in the query or the body.

    Keys in a path are joined by dots; a dot in a key is escaped (`@odata\\.nextLink`), or the path is a tuple of keys.
    """

    positional = False
    """Whether positions count records. If the service deletes one during paging, later records move to earlier positions."""
    computed = False
    """Whether positions are computed here, not supplied by the service, which may ignore them."""
    position_param: str = ""
    """The parameter with the position, for positional paginators."""
    value_paths: Mapping[str, Path | None] = {}
    """Options, besides has_more and is_last, that are paths of single values. They are checked against the model."""

    def __init__(
        self,
        *,
        items: Path | None = None,
        has_more: Path | None = None,
        is_last: Path | None = None,
        absent_is_empty: bool = False,
        end_statuses: Collection[int] = (),
        delay: float = 0.0,
        max_pages: int | None = None,
        max_empty_pages: int = 100,
        where: Where = "query",
    ) -> None:
        if delay < 0:
            raise ValueError("delay (seconds) must not be negative")
        if max_pages is not None and max_pages < 1:
            raise ValueError("max_pages must be 1 or more")
        if max_empty_pages < 1:
            raise ValueError("max_empty_pages must be 1 or more")
        if where not in ("query", "body"):
            raise ValueError(f"where={where!r} must be 'query' or 'body'")
        if has_more is not None and is_last is not None:
            raise ValueError("has_more and is_last exclude each other")
        if items is not None and is_header(items):
            raise ValueError(f"items={items!r} must not be a header")
        if any(status not in (204, 404, 410, 416) and not 400 <= status < 500 for status in end_statuses):
            raise ValueError(f"end_statuses={sorted(end_statuses)}: only 204 and 4xx are allowed")
        for path in (items, has_more, is_last):
            check_path(path)
        self.items_path = items
        self.has_more, self.is_last = has_more, is_last
        self.absent_is_empty, self.end_statuses = absent_is_empty, frozenset(end_statuses)
        self.delay = delay
        self.max_pages, self.max_empty_pages = max_pages, max_empty_pages
        self.where: Where = where

    def starting(self, query: Mapping[str, Any], body: Any) -> Next:
        """Parameters to add to the first request; none by default."""
        return Next(where=self.where)

    def following(self, page: PageView) -> Next | None:
        """The next position, or None after the last page."""
        raise PaginationError(f"{type(self).__name__} must define following(page)")

    def total_of(self, page: PageView) -> int | None:
        """The total number of items according to the service; None if the paginator has no path of it."""
        return None

    def items(self, data: Any) -> list[Any]:
        """The items of a page. Raises PaginationError if the body has no list at the declared path."""
        if self.items_path is None:
            return guess_items(data, absent_is_empty=self.absent_is_empty)
        try:
            value = value_at(data, self.items_path)
        except NotAContainer as exc:
            raise _no_list(self.items_path, f"{exc.at or 'the body'!s} is {type_name(exc.value)}") from None
        if isinstance(value, list):
            return value
        if (value is ABSENT or value is None) and self.absent_is_empty:
            return []
        if value is ABSENT or value is BEHIND_NULL:
            raise _no_list(self.items_path, f"it {value.value}", empty_hint=value is ABSENT)
        raise _no_list(self.items_path, f"it is {type_name(value)}", empty_hint=value is None)

    def more(self, page: PageView) -> bool | None:
        """Whether another page follows according to the flag; None if no flag is declared or the page has none."""
        for path, inverse in ((self.has_more, False), (self.is_last, True)):
            if path is not None:
                value = page_value(page, path)
                flag = None if value is None else _flag(value, path)
                return flag if flag is None or not inverse else not flag
        return None

    def next_page(self, page: PageView) -> Next | None:
        """The result of `following`, or None if the page's flag says that it is the last.

        Raises PaginationError if the flag announces a page without a position, or is missing on an apparent last page.
        """
        items = self.items(page.data)
        if page.more is False:
            return None
        following = self.following(page)
        if following is None and page.more:
            raise PaginationError(
                f"Page {page.index + 1} announces another page, but has no position for it",
                hint="Check the path from which the paginator reads the position.",
            )
        flag = self.has_more if self.has_more is not None else self.is_last
        if following is None and items and flag is not None and page.more is None:
            raise PaginationError(
                f"Page {page.index + 1} has no flag at {path_text(flag)!r} and no position of a next page, "
                "so it is unknown whether it is the last page",
                hint="Correct the path of the flag, or omit it.",
            )
        return following

    def _position(self, **params: Any) -> Next:
        return Next(params, self.where)


def page_value(page: PageView, path: Path) -> Any:
    """A single value of a page: at a path of its body, or from a header. None if it is absent or null.

    Raises PaginationError if the path leads through a value without keys.
    """
    if is_header(path):
        assert isinstance(path, str)
        return page.response.headers.get(path.removeprefix(HEADER).strip())
    try:
        value = value_at(page.data, path)
    except NotAContainer as exc:
        raise PaginationError(
            f"Invalid path {path_text(path)!r}: {exc.at or 'the body'} is {type_name(exc.value)}",
            hint="Correct the path in the paginator.",
        ) from None
    return None if value is ABSENT or value is BEHIND_NULL else value


def check_path(path: Path | None) -> None:
    """Raises ValueError for an invalid path, and for a header without a name."""
    if path is None:
        return
    if is_header(path):
        if not str(path).removeprefix(HEADER).strip():
            raise ValueError(f"{path!r} has no header name")
        return
    path_keys(path)


def is_header(path: Path) -> bool:
    return isinstance(path, str) and path.startswith(HEADER)


def guess_items(data: Any, *, absent_is_empty: bool = False) -> list[Any]:
    """The list of items without a declared path: the body, its only list, or the one with a usual name."""
    if isinstance(data, list):
        return data
    if isinstance(data, Mapping):
        usual = next((name for name in USUAL_LISTS if isinstance(data.get(name), list)), None)
        if usual is not None:
            items: list[Any] = data[usual]
            return items
        nulls = [name for name in USUAL_LISTS if name in data and data[name] is None]
        lists = [key for key, value in data.items() if isinstance(value, list) and str(key).lower() not in NEVER_ITEMS]
        if len(lists) == 1 and not nulls:
            return list(data[lists[0]])
        if absent_is_empty and not lists and not any(str(key).lower() in NEVER_ITEMS for key in data):
            return []
    raise PaginationError(
        f"The page has no identifiable list of items: it is {type_name(data)}"
        + (f" with {', '.join(map(repr, list(data)[:8])) or 'no keys'}" if isinstance(data, Mapping) else ""),
        hint="Name the list: items='data' in the paginator. If the service omits empty lists, set absent_is_empty=True.",
    )


def resolve_url(page: PageView, link: str) -> str:
    """A link made absolute against the URL of the page (RFC 3986 5)."""
    return urljoin(str(page.response.request.url), link.strip())


def whole_number(value: Any, what: str) -> int | None:
    """A count from a service, as a number or text; None if absent or negative. Raises PaginationError."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise TypeError
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise PaginationError(
            f"{what} is {type_name(value)}, not a whole number",
            hint="Use the path of the number itself, for example total='hits.total.value'.",
        ) from None
    return None if number < 0 else number


def _no_list(path: Path, reason: str, *, empty_hint: bool = False) -> PaginationError:
    hint = "Correct the paginator's items=… path."
    if empty_hint:
        hint += " If the service omits empty lists, set absent_is_empty=True."
    return PaginationError(f"The page has no list at {path_text(path)!r}: {reason}", hint=hint)


def _flag(value: Any, path: Path) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, (str, int, float)) else ""
    if text in _YES or text in _NO:
        return text in _YES
    raise PaginationError(
        f"The flag at {path_text(path)!r} is {type_name(value)}, not true or false",
        hint="Correct the path of the flag. If the value is a cursor or a URL, use a paginator that reads it.",
    )


def _assigned(target: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    inner = target.get(head)
    below = _assigned(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value
    return {**target, head: below}
