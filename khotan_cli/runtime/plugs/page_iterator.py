"""Iterates over the pages of an endpoint. It can stop and resume at any position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import httpx

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.content.codec import decode_document, decode_error
from khotan_cli.runtime.content.json_path import type_name
from khotan_cli.runtime.http.dry_run import read_only
from khotan_cli.runtime.http.errors import status_error
from khotan_cli.runtime.http.outgoing import json_parameters, query_text
from khotan_cli.runtime.paging.base import Next, PageView, Paginator, Where
from khotan_cli.runtime.paging.loop_guard import Paging
from khotan_cli.runtime.plugs.operation import BoundOperation


@dataclass(frozen=True)
class PagePosition:
    """The position of a page: the parameters that paging adds to those of the call, or a URL. `to_json` gives JSON.

    `index` counts pages from 0, `seen` the items on earlier pages; `total` is the first total that the service sent, and
    `total_changed` whether a later page had a different one.
    """

    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    where: Where = "query"
    url: str | None = None
    index: int = 0
    seen: int = 0
    total: int | None = None
    total_changed: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "params": dict(self.params),
            "where": self.where,
            "url": self.url,
            "index": self.index,
            "seen": self.seen,
            "total": self.total,
            "totalChanged": self.total_changed,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PagePosition:
        return cls(
            document["params"],
            document["where"],
            document["url"],
            document.get("index", 0),
            document.get("seen", 0),
            document.get("total"),
            document.get("totalChanged", False),
        )


@dataclass(frozen=True)
class FetchedPage:
    """A received page, and the position of the next one.

    `cut`: max_pages ended the iteration. `doubt`: why an ended iteration may have missed items, or "".
    `end`: the service answered that the page does not exist.
    """

    response: httpx.Response
    data: Any
    following: PagePosition | None
    cut: bool = False
    doubt: str = ""
    end: bool = False


class PageIterator:
    """Iterates over the pages of one endpoint with fixed parameters. The constructor raises ParameterError and
    PaginationError."""

    def __init__(self, bound: BoundOperation, models: Sequence[Any], params: Mapping[str, Any]) -> None:
        self.bound = bound
        self.paginator = paginator_of(bound)
        bound.endpoint.check_paginator(self.paginator, bound.plug.name)
        self._call = bound.endpoint.binder.bind(
            models, params, bound.plug.declared_vars(), json_parameters(bound.plug, bound.endpoint)
        )
        self._first = self.paginator.starting(self._call.query, self._call.body)
        self._base = self._first.apply(self._call.query, self._call.body)
        self._paging = Paging(self.paginator)

    @property
    def start(self) -> PagePosition:
        return PagePosition(self._first.params, self._first.where, self._first.url)

    def passed(self, position: PagePosition) -> None:
        """Record a position from before a resume. Reaching it again is a loop."""
        self._paging.add_position(Next(position.params, position.where, position.url))

    async def fetch(self, position: PagePosition) -> FetchedPage:
        """Fetch the page at a position, with the position of the next one.

        Raises PlugError for an error status and for a body that reports an error; ResponseInvalid for an unreadable body;
        PaginationError for a body that is not a page, and for a repeated page or position.
        """
        response, query, body = await self._exchange(position)
        if self._is_end(response, position):
            return FetchedPage(response, [], None, doubt=self._doubt(position, position.total, position.seen), end=True)
        plug, endpoint = self.bound.plug, self.bound.endpoint
        decoder = endpoint.decoder_for(response.status_code)
        if not response.is_success:
            raise status_error(plug.name, endpoint.name, response, decode_error(response, plug.parsers, decoder))
        data = decode_document(response, plug.parsers, decoder)
        endpoint.raise_error_body(plug, response, data)
        if not isinstance(data, (dict, list)):
            raise PaginationError(
                f"Page {position.index + 1} of {plug.name}.{endpoint.name} is {type_name(data)}, not an object or a list",
                plug=plug.name,
                endpoint=endpoint.name,
                response=response,
                hint="Check the response. Another format needs a parser: parsers = {content_type: function}.",
            )
        view = PageView(response, data, query, body, position.index, position.seen)
        try:
            return self._fetched(view, position)
        except PaginationError as exc:
            exc.plug, exc.endpoint, exc.response = plug.name, endpoint.name, response
            exc.next = exc.next or (f"khotan plug {plug.name} --endpoint {endpoint.name} --compare",)
            raise

    async def is_unmoved(self, position: PagePosition, items: Sequence[Any]) -> bool:
        """Whether the page at a position still ends the same: no item before its end was added or deleted since."""
        response, _, _ = await self._exchange(position)
        if not response.is_success:
            return False
        decoder = self.bound.endpoint.decoder_for(response.status_code)
        current = self.paginator.items(decode_document(response, self.bound.plug.parsers, decoder))
        return bool(items) and current[-1:] == list(items[-1:]) and len(current) == len(items)

    async def _exchange(self, position: PagePosition) -> tuple[httpx.Response, dict[str, Any], Any]:
        query, body = Next(position.params, position.where).apply(*self._base)
        url = None if position.url is None else self._completed(position.url)
        with read_only():
            response = await self.bound.plug.exchange(self.bound.endpoint, self._call.path, query, body, url=url)
        return response, query, body

    def _fetched(self, view: PageView, position: PagePosition) -> FetchedPage:
        items = self.paginator.items(view.data)
        following = self._paging.advance(view)
        total = self.paginator.total_of(view)
        seen = position.seen + len(items)
        first_total = position.total if position.total is not None else total
        changed = position.total_changed or (total is not None and total != first_total)
        current = replace(position, total=first_total, total_changed=changed)
        if following is None:
            doubt = self._doubt(current, total, seen)
            return FetchedPage(view.response, view.data, None, cut=self._paging.cut, doubt=doubt)
        index = position.index + 1
        next_position = PagePosition(
            following.params, following.where, following.url, index, seen, first_total, changed
        )
        return FetchedPage(view.response, view.data, next_position)

    def _doubt(self, position: PagePosition, total: int | None, seen: int) -> str:
        """Why the iteration may have missed items although it ended, or ""."""
        if not self.paginator.positional or self.paginator.position_param not in self._first.params:
            return ""
        if position.total_changed:
            return "the total changed during paging, so items may have moved between pages"
        if total is not None and seen != total:
            return f"{seen} items were received, but the service reports {total}"
        return ""

    def _is_end(self, response: httpx.Response, position: PagePosition) -> bool:
        """Whether a status means that the page does not exist (end_statuses). A 404 of the first page is a wrong path."""
        status = response.status_code
        return status in self.paginator.end_statuses and (position.index > 0 or status != 404)

    def _completed(self, url: str) -> str:
        """The URL of a next page, with missing parameters of the first request added if the paginator keeps them."""
        if not getattr(self.paginator, "keep_params", False):
            return url
        parts = urlsplit(url)
        present = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        missing = {name: value for name, value in self._call.query.items() if not present & {name, f"{name}[]"}}
        added = query_text(self.bound.plug, missing, self.bound.endpoint)
        query = "&".join(part for part in (parts.query, added) if part)
        return urlunsplit(parts._replace(query=query))


def paginator_of(bound: BoundOperation) -> Paginator:
    """The paginator of the endpoint, else of the plug. Raises PaginationError if neither has one."""
    paginator = bound.endpoint.paginator or bound.plug.paginator
    if paginator is None:
        raise PaginationError(
            f"{bound.plug.name}.{bound.endpoint.name} has no paginator",
            plug=bound.plug.name,
            endpoint=bound.endpoint.name,
            hint="Set paginator=… on the plug or on the endpoint: SinglePagePaginator() if one response has all items.",
        )
    return paginator
