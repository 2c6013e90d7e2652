"""A walk through the pages of an endpoint, which can be left and taken up again at a position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import httpx

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.http.codec import decode_document, decode_error
from khotan_cli.runtime.http.dry_run import read_only
from khotan_cli.runtime.http.errors import status_error
from khotan_cli.runtime.http.json_path import type_name
from khotan_cli.runtime.http.outgoing import json_parameters, query_text
from khotan_cli.runtime.paging.base import Next, PageView, Paginator, Where
from khotan_cli.runtime.paging.loop_guard import Paging
from khotan_cli.runtime.plugs.operation import BoundOperation


@dataclass(frozen=True)
class PagePosition:
    """Where a page is: the parameters that paging adds to those of the call, or a URL. JSON by `to_json`.

    `index` counts pages from 0, `seen` items on the pages before; `total` is the first total that the service gave, and
    `total_changed` whether a later page gave another.
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
    """A page as it came, and the position of the next.

    `cut`: the paginator's own bound ended the walk. `doubt`: why a walk that has ended may have missed items, or "".
    `end`: the service answered that there is no such page; nothing came.
    """

    response: httpx.Response
    data: Any
    following: PagePosition | None
    cut: bool = False
    doubt: str = ""
    end: bool = False


class PageIterator:
    """Pages of one endpoint under one set of parameters. Raises ParameterError, PaginationError where it is made."""

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
        """Note a position that an earlier part of the walk led to: coming there again is a circle."""
        self._paging.add_position(Next(position.params, position.where, position.url))

    async def fetch(self, position: PagePosition) -> FetchedPage:
        """The page at a position, and where the next is.

        Raises PlugError for an error status and for a body that says that it is an error; ResponseInvalid for a body that
        cannot be read; PaginationError for one that is no page, and for a page or position met before.
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
                hint="Look at what the service sends; another format needs a parser: parsers = {content_type: function}.",
            )
        view = PageView(response, data, query, body, position.index, position.seen)
        try:
            return self._fetched(view, position)
        except PaginationError as exc:
            exc.plug, exc.endpoint, exc.response = plug.name, endpoint.name, response
            exc.next = exc.next or (f"khotan plug {plug.name} --endpoint {endpoint.name} --compare",)
            raise

    async def is_unmoved(self, position: PagePosition, items: Sequence[Any]) -> bool:
        """Whether the page at a position still ends as it did: no item before its end was added or deleted since."""
        response, _, _ = await self._exchange(position)
        if not response.is_success:
            return False
        decoder = self.bound.endpoint.decoder_for(response.status_code)
        again = self.paginator.items(decode_document(response, self.bound.plug.parsers, decoder))
        return bool(items) and again[-1:] == list(items[-1:]) and len(again) == len(items)

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
        here = replace(position, total=first_total, total_changed=changed)
        if following is None:
            doubt = self._doubt(here, total, seen)
            return FetchedPage(view.response, view.data, None, cut=self._paging.cut, doubt=doubt)
        index = position.index + 1
        there = PagePosition(following.params, following.where, following.url, index, seen, first_total, changed)
        return FetchedPage(view.response, view.data, there)

    def _doubt(self, position: PagePosition, total: int | None, seen: int) -> str:
        """Why the walk may have missed items although it came to its end, or ""."""
        if not self.paginator.positional or self.paginator.position_param not in self._first.params:
            return ""
        if position.total_changed:
            return "the total changed during the walk, so that items may have moved between pages"
        if total is not None and seen != total:
            return f"{seen} items came, and the service says that there are {total}"
        return ""

    def _is_end(self, response: httpx.Response, position: PagePosition) -> bool:
        """Whether a status is declared to mean that there is no such page; a 404 of the first page is a wrong path."""
        status = response.status_code
        return status in self.paginator.end_statuses and (position.index > 0 or status != 404)

    def _completed(self, url: str) -> str:
        """A URL of a next page with the parameters of the first request that it lacks, where the paginator keeps them."""
        if not getattr(self.paginator, "keep_params", False):
            return url
        parts = urlsplit(url)
        there = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        lacking = {name: value for name, value in self._call.query.items() if not there & {name, f"{name}[]"}}
        own = query_text(self.bound.plug, lacking, self.bound.endpoint)
        query = "&".join(part for part in (parts.query, own) if part)
        return urlunsplit(parts._replace(query=query))


def paginator_of(bound: BoundOperation) -> Paginator:
    """Raises PaginationError where neither endpoint nor plug has a paginator."""
    found = bound.endpoint.paginator or bound.plug.paginator
    if found is None:
        raise PaginationError(
            f"{bound.plug.name}.{bound.endpoint.name} has no paginator",
            plug=bound.plug.name,
            endpoint=bound.endpoint.name,
            hint="Set paginator=… on the plug or on the endpoint: SinglePagePaginator() where all comes in one response.",
        )
    return found
