"""A walk through the pages of an endpoint, which can be left and taken up again at a position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.plugs.codec import decode_error, decode_untyped
from khotan_cli.runtime.plugs.failures import status_error
from khotan_cli.runtime.plugs.hold import reading
from khotan_cli.runtime.plugs.paginate import Next, PageView, Paginator, Paging, Where

if TYPE_CHECKING:
    from khotan_cli.runtime.plugs.endpoint import BoundEndpoint


@dataclass(frozen=True)
class Position:
    """Where a page is: the parameters that paging has set so far, or a URL. JSON by `to_json`."""

    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    where: Where = "query"
    url: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"params": dict(self.params), "where": self.where, "url": self.url}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Position:
        return cls(document["params"], document["where"], document["url"])


@dataclass(frozen=True)
class Fetched:
    """A page as it came, and the position of the next. `cut` where the paginator's own bound ended the walk."""

    response: httpx.Response
    data: Any
    following: Position | None
    cut: bool = False


class PageWalk:
    """Pages of one endpoint under one set of parameters. Raises ParameterError, PaginationError where it is made."""

    def __init__(self, bound: BoundEndpoint[Any], models: Sequence[Any], params: Mapping[str, Any]) -> None:
        self.bound = bound
        self.paginator = paginator_of(bound)
        self._call = bound.endpoint.binder.bind(models, params, bound.plug.declared_vars())
        self._paging = Paging(self.paginator)

    @property
    def start(self) -> Position:
        first = self.paginator.starting(self._call.query, self._call.body)
        return Position(first.params, first.where, first.url)

    def passed(self, position: Position) -> None:
        """Note a position that an earlier part of the walk led to: coming there again is a circle."""
        self._paging.passed(Next(position.params, position.where, position.url))

    async def fetch(self, position: Position) -> Fetched:
        """The page at a position, and where the next is.

        Raises PlugError for an error status; PaginationError for a page or position met before.
        """
        plug, endpoint = self.bound.plug, self.bound.endpoint
        here = Next(position.params, position.where)
        query, body = here.apply(self._call.query, self._call.body)
        with reading():
            response = await plug.exchange(endpoint, self._call.path, query, body, url=position.url)
        if not response.is_success:
            decoder = endpoint.decoder_for(response.status_code)
            raise status_error(plug.name, endpoint.name, response, decode_error(response, plug.parsers, decoder))
        data = decode_untyped(response, plug.parsers)
        following = self._paging.advance(PageView(response, data, query, body, self._paging.index))
        if following is None:
            return Fetched(response, data, None, cut=self._paging.cut)
        params = {**position.params, **following.params}
        return Fetched(response, data, Position(params, following.where, following.url))


def paginator_of(bound: BoundEndpoint[Any]) -> Paginator:
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
