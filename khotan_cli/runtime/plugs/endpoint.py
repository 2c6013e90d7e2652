"""Typed endpoints of a plug: declared on the class, called on an instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar, cast, overload

import httpx
from pydantic import BaseModel

from khotan_cli.errors import ResponseInvalid
from khotan_cli.runtime.content.codec import Encoding, decode_error, decode_untyped
from khotan_cli.runtime.content.error_body import ErrorBody
from khotan_cli.runtime.http.dry_run import MissingResponse
from khotan_cli.runtime.http.errors import status_error
from khotan_cli.runtime.http.outgoing import json_parameters
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.paging.base import Paginator
from khotan_cli.runtime.plugs.batch import BatchResult, batch_post
from khotan_cli.runtime.plugs.blocking import blocking_loop, iterate
from khotan_cli.runtime.plugs.client import Client
from khotan_cli.runtime.plugs.operation import UNDECLARED, Operation
from khotan_cli.runtime.plugs.page_iterator import PageIterator, PagePosition, paginator_of

M = TypeVar("M")
P_co = TypeVar("P_co", covariant=True)
I_co = TypeVar("I_co", covariant=True)
Item = TypeVar("Item")


class _HasData(Protocol[I_co]):
    @property
    def data(self) -> Sequence[I_co]: ...


class _HasItems(Protocol[I_co]):
    @property
    def items(self) -> Sequence[I_co]: ...


class _HasResults(Protocol[I_co]):
    @property
    def results(self) -> Sequence[I_co]: ...


class Endpoint(Operation[M]):
    """One call of an API, declared as a class attribute of a Plug with `get`, `post`, …

    On an instance it is a `BoundEndpoint`. See `Operation` for the options.
    """

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = self.name or name
        self.owner = self.owner or owner

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: Any, owner: type[Any]) -> BoundEndpoint[M]: ...
    def __get__(self, instance: Any | None, owner: type[Any]) -> Self | BoundEndpoint[M]:
        return self if instance is None else BoundEndpoint(self, instance)


class ListEndpoint(Endpoint[M], Generic[M, Item]):
    """An endpoint that is declared with `item=`, the type of its pages' items."""

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: Any, owner: type[Any]) -> BoundListEndpoint[M, Item]: ...
    def __get__(self, instance: Any | None, owner: type[Any]) -> Self | BoundListEndpoint[M, Item]:
        return self if instance is None else BoundListEndpoint(self, instance)


class BoundEndpoint(Generic[P_co]):
    """An endpoint of one plug instance: `await plug.endpoint(...)`, `.pages()`, `.items()`, `.raw()`, `.batch_post()`."""

    __slots__ = ("endpoint", "plug")

    def __init__(self, endpoint: Endpoint[Any], plug: Client) -> None:
        self.endpoint, self.plug = endpoint, plug

    async def __call__(self, *models: Any, **params: Any) -> P_co:
        """Call the endpoint and return the declared model.

        Raises ParameterError before anything is sent; PlugError for an error status, with the model declared for it as
        `.body`; ResponseInvalid, PlugUnreachable, PlugTimeout and AuthError.
        """
        response = await self.raw(*models, **params)
        result: P_co = cast(P_co, response) if isinstance(response, MissingResponse) else self.result(response)
        return result

    @property
    def blocking(self) -> BlockingEndpoint[P_co]:
        """The same calls for code that is not async: `plug.endpoint.blocking(...)`, `.blocking.items()`, …"""
        return BlockingEndpoint(self)

    async def raw(self, *models: Any, **params: Any) -> httpx.Response:
        """Call the endpoint and return the response, whatever its status. Authenticates and retries, but does not validate."""
        bound = self.endpoint.binder.bind(
            models, params, self.plug.declared_vars(), json_parameters(self.plug, self.endpoint)
        )
        return await self.plug.exchange(self.endpoint, bound.path, bound.query, bound.body)

    async def pages(self, *models: Any, **params: Any) -> AsyncIterator[P_co]:
        """Iterate over the pages. Raises PaginationError without a paginator, or if the service repeats pages."""
        async for page, _, _ in self._walk(models, params):
            yield page

    @overload
    def items(self: BoundEndpoint[list[Item]], *models: Any, **params: Any) -> AsyncIterator[Item]: ...
    @overload
    def items(self: BoundEndpoint[_HasData[Item]], *models: Any, **params: Any) -> AsyncIterator[Item]: ...
    @overload
    def items(self: BoundEndpoint[_HasItems[Item]], *models: Any, **params: Any) -> AsyncIterator[Item]: ...
    @overload
    def items(self: BoundEndpoint[_HasResults[Item]], *models: Any, **params: Any) -> AsyncIterator[Item]: ...
    @overload
    def items(self, *models: Any, **params: Any) -> AsyncIterator[Any]: ...
    def items(self, *models: Any, **params: Any) -> AsyncIterator[Any]:
        """Iterate over the items of all pages. Statically typed for lists, and for pages with `data`, `items` or `results`."""
        return self._items(models, params)

    def batch_post(
        self, records: Sequence[Any], *, size: int = 100, concurrency: int = 4, key: str | None = None, **params: Any
    ) -> AsyncIterator[BatchResult[P_co]]:
        """Send records in batches of `size`, at most `concurrency` at a time; see `batch.batch_post`."""
        return batch_post(self, records, size=size, concurrency=concurrency, key=key, params=params)

    async def _items(self, models: Sequence[Any], params: Mapping[str, Any]) -> AsyncIterator[Any]:
        async for items in self.item_lists(models, params):
            for item in items:
                yield item

    async def item_lists(self, models: Sequence[Any], params: Mapping[str, Any]) -> AsyncIterator[list[Any]]:
        """The items of each page."""
        paginator = paginator_of(self)
        async for page, data, response in self._walk(models, params):
            yield self.endpoint.items_of(page, data, paginator, response)

    def walk(self, *models: Any, **params: Any) -> PageIterator:
        """A page iterator that can stop at any position and resume there."""
        return PageIterator(self, models, params)

    async def _walk(
        self, models: Sequence[Any], params: Mapping[str, Any]
    ) -> AsyncIterator[tuple[Any, Any, httpx.Response]]:
        walk = PageIterator(self, models, params)
        position: PagePosition | None = walk.start
        while position is not None:
            fetched = await walk.fetch(position)
            if fetched.end:
                return
            page = self._decoded(fetched.response)
            yield page, fetched.data, fetched.response
            position = fetched.following
            if position is not None and walk.paginator.delay:
                await asyncio.sleep(walk.paginator.delay)

    def result(self, response: httpx.Response) -> Any:
        """The declared model of a response. Raises PlugError for an error status, ResponseInvalid."""
        endpoint, plug = self.endpoint, self.plug
        if response.is_success:
            if (endpoint.error_body or plug.error_body) is not None and response.content:
                endpoint.raise_error_body(plug, response, decode_untyped(response, plug.parsers))
            return self._decoded(response)
        decoder = endpoint.decoder_for(response.status_code)
        raise status_error(plug.name, endpoint.name, response, decode_error(response, plug.parsers, decoder))

    def _decoded(self, response: httpx.Response) -> Any:
        """The declared model of a successful response."""
        decoder = self.endpoint.decoder_for(response.status_code)
        if decoder is None:
            return decode_untyped(response, self.plug.parsers)
        try:
            return decoder.decode(response, self.plug.parsers)
        except ResponseInvalid as exc:
            exc.next = (*exc.next, f"khotan plug {self.plug.name} --endpoint {self.endpoint.name} --compare")
            raise

    def __repr__(self) -> str:
        return f"<{self.plug.name}.{self.endpoint.name} {self.endpoint.method} {self.endpoint.path.text}>"


class BoundListEndpoint(BoundEndpoint[P_co], Generic[P_co, I_co]):
    """A bound endpoint whose items have a declared type."""

    __slots__ = ()

    @property
    def blocking(self) -> BlockingListEndpoint[P_co, I_co]:
        return BlockingListEndpoint(self)

    def items(self, *models: Any, **params: Any) -> AsyncIterator[I_co]:
        """Item after item of every page."""
        return self._items(models, params)


class BlockingEndpoint(Generic[P_co]):
    """The calls of a bound endpoint, each of which waits for its result in the calling thread.

    Inside a running event loop they block that loop. Raises what the awaited calls raise, and KhotanError (blocking_in_loop)
    where a call would wait for itself: in a hook or an auth function of a plug.
    """

    __slots__ = ("_bound", "_name")

    def __init__(self, bound: BoundEndpoint[P_co]) -> None:
        self._bound = bound
        self._name = f"{bound.plug.name}.{bound.endpoint.name}"

    def __call__(self, *models: Any, **params: Any) -> P_co:
        """Call, and return the declared model."""
        return blocking_loop.run(lambda: self._bound(*models, **params), self._name)

    def raw(self, *models: Any, **params: Any) -> httpx.Response:
        """Call, and return the response whatever its status."""
        return blocking_loop.run(lambda: self._bound.raw(*models, **params), self._name)

    def pages(self, *models: Any, **params: Any) -> Iterator[P_co]:
        """Page after page, each fetched when it is asked for."""
        return iterate(self._bound.pages(*models, **params), self._name)

    @overload
    def items(self: BlockingEndpoint[list[Item]], *models: Any, **params: Any) -> Iterator[Item]: ...
    @overload
    def items(self: BlockingEndpoint[_HasData[Item]], *models: Any, **params: Any) -> Iterator[Item]: ...
    @overload
    def items(self: BlockingEndpoint[_HasItems[Item]], *models: Any, **params: Any) -> Iterator[Item]: ...
    @overload
    def items(self: BlockingEndpoint[_HasResults[Item]], *models: Any, **params: Any) -> Iterator[Item]: ...
    @overload
    def items(self, *models: Any, **params: Any) -> Iterator[Any]: ...
    def items(self, *models: Any, **params: Any) -> Iterator[Any]:
        """Item after item of every page. A page is fetched when its first item is asked for."""
        return self._items(models, params)

    def _items(self, models: Sequence[Any], params: Mapping[str, Any]) -> Iterator[Any]:
        for items in iterate(self._bound.item_lists(models, params), self._name):
            yield from items

    def batch_post(
        self, records: Sequence[Any], *, size: int = 100, concurrency: int = 4, key: str | None = None, **params: Any
    ) -> Iterator[BatchResult[P_co]]:
        """Send records in batches of `size`, at most `concurrency` at a time."""
        batches = self._bound.batch_post(records, size=size, concurrency=concurrency, key=key, **params)
        return iterate(batches, self._name)


class BlockingListEndpoint(BlockingEndpoint[P_co], Generic[P_co, I_co]):
    """Blocking calls of an endpoint whose items have a declared type."""

    __slots__ = ()

    def items(self, *models: Any, **params: Any) -> Iterator[I_co]:
        """Item after item of every page. A page is fetched when its first item is asked for."""
        return self._items(models, params)


class Declare:
    """Declares endpoints of one HTTP method: `list_orders = get("/orders", returns=OrderPage)`."""

    def __init__(self, method: str) -> None:
        self.method = method

    @overload
    def __call__(
        self,
        path: str,
        *,
        returns: type[M],
        query: type[BaseModel] | None = None,
        body: Any = None,
        responses: Mapping[int | str, Any] | None = None,
        item: type[Item],
        paginator: Paginator | None = None,
        error_body: ErrorBody | None = None,
        encoding: Encoding | None = None,
        retry: Retry | None = None,
        timeout: float | httpx.Timeout | None = None,
        headers: Mapping[str, str] | None = None,
        query_json: Collection[str] | None = None,
    ) -> ListEndpoint[M, Item]: ...
    @overload
    def __call__(
        self,
        path: str,
        *,
        returns: type[M],
        query: type[BaseModel] | None = None,
        body: Any = None,
        responses: Mapping[int | str, Any] | None = None,
        item: Any = None,
        paginator: Paginator | None = None,
        error_body: ErrorBody | None = None,
        encoding: Encoding | None = None,
        retry: Retry | None = None,
        timeout: float | httpx.Timeout | None = None,
        headers: Mapping[str, str] | None = None,
        query_json: Collection[str] | None = None,
    ) -> Endpoint[M]: ...
    @overload
    def __call__(
        self,
        path: str,
        *,
        returns: Any = UNDECLARED,
        query: type[BaseModel] | None = None,
        body: Any = None,
        responses: Mapping[int | str, Any] | None = None,
        item: Any = None,
        paginator: Paginator | None = None,
        error_body: ErrorBody | None = None,
        encoding: Encoding | None = None,
        retry: Retry | None = None,
        timeout: float | httpx.Timeout | None = None,
        headers: Mapping[str, str] | None = None,
        query_json: Collection[str] | None = None,
    ) -> Endpoint[Any]: ...
    def __call__(self, path: str, **options: Any) -> Endpoint[Any]:
        return endpoint(self.method, path, **options)


def endpoint(method: str, path: str, **options: Any) -> Endpoint[Any]:
    """Declare an endpoint of any HTTP method."""
    kind = Endpoint if options.get("item") is None else ListEndpoint
    return kind(method, path, **options)


get, post, put = Declare("GET"), Declare("POST"), Declare("PUT")
patch, delete = Declare("PATCH"), Declare("DELETE")
head, options = Declare("HEAD"), Declare("OPTIONS")
