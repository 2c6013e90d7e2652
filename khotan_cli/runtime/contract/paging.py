"""Whether a paginator works with what the service sends: a short walk through the pages of an endpoint, and what it shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from khotan_cli.errors import KhotanError, PaginationError, PlugError, ResponseInvalid
from khotan_cli.runtime.http.codec import decode_document
from khotan_cli.runtime.http.json_path import Path, dig
from khotan_cli.runtime.paging.base import PageView, Paginator
from khotan_cli.runtime.paging.declared_path import is_open, items_type
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint, Endpoint
from khotan_cli.runtime.plugs.page_iterator import FetchedPage, PageIterator, PagePosition
from khotan_cli.runtime.plugs.paginator_check import contradictions

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that ask for nothing to be changed (RFC 9110 9.2.1), besides TRACE."""


@dataclass
class SeenPage:
    """A page of a walk. `items` is None where its list was not found; `problem` is what the paginator could not do with it."""

    response: httpx.Response
    data: Any = None
    items: list[Any] | None = None
    following: PagePosition | None = None
    problem: str = ""
    unreadable: bool = False
    past_the_end: bool = False
    """The service answered that there is no such page."""


@dataclass
class SeenWalk:
    """The pages of a walk in their order. `ended`: the service said that there are no more pages."""

    paginator: Paginator
    start: PagePosition
    pages: list[SeenPage] = field(default_factory=list[SeenPage])
    ended: bool = False
    from_the_start: bool = True
    """Whether the walk began at the first page, and not at a position that the caller gave."""

    @property
    def responses(self) -> list[httpx.Response]:
        """The responses to judge: the first one, and later ones that hold a page that can be read."""
        later = [page.response for page in self.pages[1:] if not (page.past_the_end or page.unreadable)]
        return [page.response for page in self.pages[:1]] + later


def is_walked(endpoint: Endpoint[Any], default: Paginator | None) -> bool:
    """Whether a comparison of an endpoint walks on: with its own paginator, or with the plug's where its response holds a list.

    `default` is the plug's paginator. It is for lists that are only read: a method that may write is walked only where its
    endpoint declares the paginator.
    """
    if endpoint.paginator is not None:
        return True
    declared = endpoint.model_for(200)
    if default is None or declared is None or endpoint.method not in SAFE_METHODS or is_open(declared):
        return False
    return items_type(declared, default.items_path) is not None and not contradictions(default, declared, endpoint.item)


async def walk_pages(bound: BoundEndpoint[Any], params: Mapping[str, Any], limit: int) -> SeenWalk:
    """Fetch up to `limit` pages. Raises what a call raises where the service does not answer."""
    walk = PageIterator(bound, (), params)
    given = {str(name) for name in params}
    own = {str(getattr(walk.paginator, "param", "")), *getattr(walk.paginator, "places", ())} - {""}
    seen = SeenWalk(walk.paginator, walk.start, from_the_start=not own & given)
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
    """Where the walk would go on; the start of everything where the paginator's own bound cut it."""
    return PagePosition() if fetched.cut else fetched.following


def _failed(walk: PageIterator, exc: PlugError, response: httpx.Response) -> SeenPage:
    """A page that the paginator could not go on from."""
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
    """How many items the service says there are, by the paginator's own path or in a place with a usual name."""
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
    """The total where the paginator names none: X-Total-Count, or a whole number of a usual name beside the list."""
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
            # `count` is the number of items on this page for some services, and that of all items for others.
            if isinstance(value, int) and not isinstance(value, bool) and not (name == "count" and _fills(page, value)):
                return value
    return None


def _fills(page: SeenPage, count: int) -> bool:
    return count == len(page.items or ())


def repeated(pages: Sequence[SeenPage], id_field: Path | None = None) -> int:
    """How many items of later pages were on an earlier page already.

    Records are compared by what identifies them (`id_field`, else `id` and the like). Items without an identity may be equal by
    chance: they count where a whole page repeats an earlier one.
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
