"""Fetches a few pages of an endpoint, to check that its paginator works with the service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from khotan_cli.errors import KhotanError, PaginationError, PlugError, ResponseInvalid
from khotan_cli.runtime.content.codec import decode_document
from khotan_cli.runtime.content.json_path import Path, dig
from khotan_cli.runtime.paging.base import PageView, Paginator
from khotan_cli.runtime.paging.declared_path import is_open, items_type
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint, Endpoint
from khotan_cli.runtime.plugs.page_iterator import FetchedPage, PageIterator, PagePosition
from khotan_cli.runtime.plugs.paginator_check import contradictions

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Safe methods (RFC 9110 9.2.1), without TRACE."""


@dataclass
class SeenPage:
    """A received page. `items` is None if the list was not found; `problem` describes a failure of the paginator."""

    response: httpx.Response
    data: Any = None
    items: list[Any] | None = None
    following: PagePosition | None = None
    problem: str = ""
    unreadable: bool = False
    past_the_end: bool = False
    """Whether the service answered that the page does not exist."""


@dataclass
class SeenWalk:
    """The received pages in order. `ended`: the service reported the last page."""

    paginator: Paginator
    start: PagePosition
    pages: list[SeenPage] = field(default_factory=list[SeenPage])
    ended: bool = False
    from_the_start: bool = True
    """Whether paging began at the first page, not at a position in the caller's parameters."""

    @property
    def responses(self) -> list[httpx.Response]:
        """The responses to check: the first one, and later ones with a readable page."""
        later = [page.response for page in self.pages[1:] if not (page.past_the_end or page.unreadable)]
        return [page.response for page in self.pages[:1]] + later


def is_walked(endpoint: Endpoint[Any], default: Paginator | None) -> bool:
    """Whether a comparison fetches more pages: with the endpoint's paginator, or with the plug's if the response has a list.

    `default` is the plug's paginator. It applies only to safe methods; other methods are paged only if the endpoint
    declares a paginator.
    """
    if endpoint.paginator is not None:
        return True
    declared = endpoint.model_for(200)
    if default is None or declared is None or endpoint.method not in SAFE_METHODS or is_open(declared):
        return False
    return items_type(declared, default.items_path) is not None and not contradictions(default, declared, endpoint.item)


async def walk_pages(bound: BoundEndpoint[Any], params: Mapping[str, Any], limit: int) -> SeenWalk:
    """Fetch up to `limit` pages. Raises a call's errors if the service does not respond."""
    walk = PageIterator(bound, (), params)
    call_params = {str(name) for name in params}
    position_params = {str(getattr(walk.paginator, "param", "")), *getattr(walk.paginator, "locations", ())} - {""}
    seen = SeenWalk(walk.paginator, walk.start, from_the_start=not position_params & call_params)
    position: PagePosition | None = walk.start
    while position is not None and len(seen.pages) < limit:
        if seen.pages and walk.paginator.delay:
            await asyncio.sleep(walk.paginator.delay)
        page, position = await _page(walk, position)
        seen.pages.append(page)
        seen.ended = page.past_the_end or (not page.problem and page.following is None and position is None)
    return seen


async def _page(walk: PageIterator, position: PagePosition) -> tuple[SeenPage, PagePosition | None]:
    try:
        fetched = await walk.fetch(position)
    except PlugError as exc:
        if exc.response is None:
            raise
        return _failed(walk, exc, exc.response), None
    if fetched.end:
        return SeenPage(fetched.response, past_the_end=True), None
    items = walk.paginator.items(fetched.data)
    page = SeenPage(fetched.response, fetched.data, items, _following(fetched))
    return page, fetched.following


def _following(fetched: FetchedPage) -> PagePosition | None:
    """The next position; the start if max_pages ended the iteration."""
    return PagePosition() if fetched.cut else fetched.following


def _failed(walk: PageIterator, exc: PlugError, response: httpx.Response) -> SeenPage:
    """A page at which the paginator failed."""
    page = SeenPage(response, problem=exc.message, unreadable=isinstance(exc, ResponseInvalid))
    if isinstance(exc, PaginationError):
        decoder = walk.bound.endpoint.decoder_for(response.status_code)
        try:
            page.data = decode_document(response, walk.bound.plug.parsers, decoder)
            page.items = walk.paginator.items(page.data)
        except (PaginationError, ResponseInvalid):
            pass
    return page


def total_of(walk: SeenWalk) -> int | None:
    """The service's total number of items, at the paginator's path or under a usual name; None without one."""
    for index, page in enumerate(walk.pages):
        if page.items is None:
            continue
        try:
            total = walk.paginator.total_of(PageView(page.response, page.data, index=index))
        except KhotanError:
            total = None
        if total is None:
            total = _usual_total(page)
        if total is not None:
            return total
    return None


_TOTALS = (
    "total",
    "total_count",
    "totalCount",
    "total_items",
    "totalItems",
    "total_results",
    "totalResults",
    "count",
)
_AROUND = ("", "meta", "pagination", "paging", "page", "page_info", "pageInfo")


def _usual_total(page: SeenPage) -> int | None:
    """The total without a declared path: X-Total-Count, or a whole number with a usual name beside the list."""
    header = page.response.headers.get("x-total-count", "")
    if header.isdigit():
        return int(header)
    if not isinstance(page.data, Mapping):
        return None
    for place in _AROUND:
        around = page.data if not place else page.data.get(place)
        if not isinstance(around, Mapping):
            continue
        for name in _TOTALS:
            value = around.get(name)
            # `count` is the number of items on this page for some services, and of all items for others.
            if isinstance(value, int) and not isinstance(value, bool) and not (name == "count" and _fills(page, value)):
                return value
    return None


def _fills(page: SeenPage, count: int) -> bool:
    return count == len(page.items or ())


def repeated(pages: Sequence[SeenPage], id_field: Path | None = None) -> int:
    """The number of items on later pages that were already on an earlier page.

    Records are compared by their identity (`id_field`, else `id` and the like). Items without an identity may be equal by
    chance, so they count only if a whole page is repeated.
    """
    known: set[str] = set()
    contents: list[list[Any]] = []
    count = 0
    for page in pages:
        items = page.items or []
        identities = [identity for item in items if (identity := _identity(item, id_field)) is not None]
        if items and len(identities) == len(items):
            count += sum(1 for identity in identities if identity in known)
            known.update(identities)
        elif items and items in contents:
            count += len(items)
        contents.append(items)
    return count


_IDENTITIES = ("id", "_id", "uuid", "guid", "uid", "key", "sku", "slug")


def _identity(item: Any, id_field: Path | None) -> str | None:
    if not isinstance(item, Mapping):
        return None
    if id_field is not None:
        own = dig(item, id_field)
        return None if own is None else json.dumps(own, sort_keys=True, default=str)
    by_name = {str(name).lower(): value for name, value in item.items()}
    value = next((by_name[name] for name in _IDENTITIES if by_name.get(name) is not None), None)
    return None if value is None else json.dumps(value, sort_keys=True, default=str)
