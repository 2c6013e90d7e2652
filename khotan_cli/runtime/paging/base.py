"""How to get from one page to the next, sans-IO: a page goes in, the position of the next comes out.

A walk ends where the service says so: by a flag, a total, an absent cursor, an empty page. Whatever only looks like an end
(a body without the list, a flag that is missing) raises PaginationError, so that no walk counts as complete that is not.
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
    """One page as it came: the response, its parsed body, and what was asked for.

    `query` and `body` are the parameters of the request; `index` counts pages from 0; `seen` is the number of items on the
    pages before. `more` is what the service's flag says: True, False, or None where there is no flag.
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
    """Where the next page is: parameters to set (paths in a body), or a URL that replaces the whole request's."""

    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    where: Where = "query"
    url: str | None = None

    def apply(self, query: Mapping[str, Any], body: Any) -> tuple[dict[str, Any], Any]:
        """The query and body of the next request; the given ones stay as they are."""
        if self.where == "query":
            return {**query, **self.params}, body
        changed = dict(body) if isinstance(body, Mapping) else {}
        for path, value in self.params.items():
            changed = _assigned(changed, path_keys(path), value)
        return dict(query), changed


class PagingOptions(TypedDict, total=False):
    """Options that every paginator of a list has; see `Paginator`."""

    items: Path | None
    has_more: Path | None
    is_last: Path | None
    absent_is_empty: bool
    end_statuses: Collection[int]
    delay: float
    max_pages: int | None
    max_empty_pages: int


class Paginator:
    """Base of the paginators. Override `following`, and `starting` where the first request needs parameters.

    items: path of the list of items in the body; None: the body itself where it is a list, else its one list (or the one
    with a usual name: data, items, results, …). has_more: path of a flag that is true where another page follows; is_last:
    path of one that is true on the last page. The flag wins over what the paginator would conclude. A path starting with
    `header:` names a response header, except for items. absent_is_empty: a body without the list, or with null in its
    place, is an empty page; otherwise it is an error. end_statuses: statuses that mean "past the last page", for example
    {404}; 404 never does on the first page. delay: seconds between pages. max_pages: end after so many pages; None: no
    bound. max_empty_pages: consecutive empty pages after which the walk raises. where: whether positions go into the query
    or the body.

    Keys in a path are joined by dots; a dot in a key is escaped (`@odata\\.nextLink`), or the path is a tuple of keys.
    """

    positional = False
    """Positions count records: one that the service deletes during the walk shifts those behind it to an earlier place."""
    computed = False
    """Positions are worked out here, not handed out by the service: it may ignore them."""
    position_param: str = ""
    """Of a positional paginator: the parameter that holds the position."""
    value_paths: Mapping[str, Path | None] = {}
    """Options that are paths of single values, by name, besides has_more and is_last; judged against the declared model."""

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
            raise ValueError("delay is in seconds and cannot be negative")
        if max_pages is not None and max_pages < 1:
            raise ValueError("max_pages must be 1 or more")
        if max_empty_pages < 1:
            raise ValueError("max_empty_pages must be 1 or more")
        if where not in ("query", "body"):
            raise ValueError(f"where={where!r} is neither 'query' nor 'body'")
        if has_more is not None and is_last is not None:
            raise ValueError("has_more and is_last exclude each other: a service has one flag")
        if items is not None and is_header(items):
            raise ValueError(f"items={items!r}: a header holds no list of items")
        if any(status not in (204, 404, 410, 416) and not 400 <= status < 500 for status in end_statuses):
            raise ValueError(
                f"end_statuses={sorted(end_statuses)}: only 204 and 4xx can mean that there is no such page"
            )
        for path in (items, has_more, is_last):
            check_path(path)
        self.items_path = items
        self.has_more, self.is_last = has_more, is_last
        self.absent_is_empty, self.end_statuses = absent_is_empty, frozenset(end_statuses)
        self.delay = delay
        self.max_pages, self.max_empty_pages = max_pages, max_empty_pages
        self.where: Where = where

    def starting(self, query: Mapping[str, Any], body: Any) -> Next:
        """What to add to the first request; nothing by default."""
        return Next(where=self.where)

    def following(self, page: PageView) -> Next | None:
        """The next position, or None after the last page."""
        raise PaginationError(f"{type(self).__name__} does not say how to find the next page: define following(page)")

    def total_of(self, page: PageView) -> int | None:
        """How many items the service says there are, where the paginator knows the place; None otherwise."""
        return None

    def items(self, data: Any) -> list[Any]:
        """The items of a page. Raises PaginationError where the body has no list in the declared place."""
        if self.items_path is None:
            return guess_items(data, absent_is_empty=self.absent_is_empty)
        try:
            found = value_at(data, self.items_path)
        except NotAContainer as exc:
            raise _no_list(self.items_path, f"{exc.at or 'the body'!s} is {type_name(exc.value)}") from None
        if isinstance(found, list):
            return found
        if (found is ABSENT or found is None) and self.absent_is_empty:
            return []
        if found is ABSENT or found is BEHIND_NULL:
            raise _no_list(self.items_path, f"it {found.value}", empty_hint=found is ABSENT)
        raise _no_list(self.items_path, f"it is {type_name(found)}", empty_hint=found is None)

    def more(self, page: PageView) -> bool | None:
        """What the flag says: whether another page follows; None where none is declared, or the page has none."""
        for path, inverse in ((self.has_more, False), (self.is_last, True)):
            if path is not None:
                value = page_value(page, path)
                flag = None if value is None else _flag(value, path)
                return flag if flag is None or not inverse else not flag
        return None

    def next_page(self, page: PageView) -> Next | None:
        """`following`, unless the page's flag says that it was the last.

        Raises PaginationError where the flag promises a page that cannot be asked for, or is absent at what looks like an end.
        """
        items = self.items(page.data)
        if page.more is False:
            return None
        following = self.following(page)
        if following is None and page.more:
            raise PaginationError(
                f"Page {page.index + 1} says that more follows, but gives no position of the next page",
                hint="Check where the paginator reads the position.",
            )
        flag = self.has_more if self.has_more is not None else self.is_last
        if following is None and items and flag is not None and page.more is None:
            raise PaginationError(
                f"Page {page.index + 1} has no flag at {path_text(flag)!r} and no position of a next page: "
                "whether it is the last cannot be known",
                hint="Correct the path of the flag, or leave it out.",
            )
        return following

    def _position(self, **params: Any) -> Next:
        return Next(params, self.where)


def page_value(page: PageView, path: Path) -> Any:
    """A single value of a page: at a path of its body, or of a header. None where it is absent or null.

    Raises PaginationError where the path leads through something that has no keys.
    """
    if is_header(path):
        assert isinstance(path, str)
        return page.response.headers.get(path.removeprefix(HEADER).strip())
    try:
        value = value_at(page.data, path)
    except NotAContainer as exc:
        raise PaginationError(
            f"The path {path_text(path)!r} leads nowhere: {exc.at or 'the body'} is {type_name(exc.value)}",
            hint="Correct the path in the paginator.",
        ) from None
    return None if value is ABSENT or value is BEHIND_NULL else value


def check_path(path: Path | None) -> None:
    """Raises ValueError for what is no path, and for a header without a name."""
    if path is None:
        return
    if is_header(path):
        if not str(path).removeprefix(HEADER).strip():
            raise ValueError(f"{path!r} names no header")
        return
    path_keys(path)


def is_header(path: Path) -> bool:
    return isinstance(path, str) and path.startswith(HEADER)


def guess_items(data: Any, *, absent_is_empty: bool = False) -> list[Any]:
    """The list of items where the paginator does not say: the body, its one list, or the one with a usual name."""
    if isinstance(data, list):
        return data
    if isinstance(data, Mapping):
        usual = next((name for name in USUAL_LISTS if isinstance(data.get(name), list)), None)
        if usual is not None:
            found: list[Any] = data[usual]
            return found
        nulls = [name for name in USUAL_LISTS if name in data and data[name] is None]
        lists = [key for key, value in data.items() if isinstance(value, list) and str(key).lower() not in NEVER_ITEMS]
        if len(lists) == 1 and not nulls:
            return list(data[lists[0]])
        if absent_is_empty and not lists and not any(str(key).lower() in NEVER_ITEMS for key in data):
            return []
    raise PaginationError(
        f"The page has no list of items that can be told from its shape: it is {type_name(data)}"
        + (f" with {', '.join(map(repr, list(data)[:8])) or 'no keys'}" if isinstance(data, Mapping) else ""),
        hint="Name the list: items='data' in the paginator. absent_is_empty=True if the service leaves an empty list out.",
    )


def resolve_url(page: PageView, link: str) -> str:
    """A link made absolute against the URL of the page (RFC 3986 5)."""
    return urljoin(str(page.response.request.url), link.strip())


def whole_number(value: Any, what: str) -> int | None:
    """A count that a service sends, a number or its text; None for absent and negative ones. Raises PaginationError."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise TypeError
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise PaginationError(
            f"{what} is {type_name(value)}, not a whole number",
            hint="Name the number itself, for example total='hits.total.value'.",
        ) from None
    return None if number < 0 else number


def _no_list(path: Path, why: str, *, empty_hint: bool = False) -> PaginationError:
    hint = "Correct the paginator's items=… path."
    if empty_hint:
        hint += " If the service leaves out an empty list, say so: absent_is_empty=True."
    return PaginationError(f"The page has no list at {path_text(path)!r}: {why}", hint=hint)


def _flag(value: Any, path: Path) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, (str, int, float)) else ""
    if text in _YES or text in _NO:
        return text in _YES
    raise PaginationError(
        f"The flag at {path_text(path)!r} is {type_name(value)} that is neither true nor false",
        hint="Correct the path of the flag; where it holds a cursor or a URL, use the paginator that reads it.",
    )


def _assigned(target: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    inner = target.get(head)
    below = _assigned(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value
    return {**target, head: below}
