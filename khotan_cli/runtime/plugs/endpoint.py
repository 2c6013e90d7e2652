"""Typed endpoints of a plug: declared on the class, called on an instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast, overload

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from khotan_cli.errors import PaginationError, ResponseInvalid
from khotan_cli.runtime.plugs.codec import Decoder, Encoding, decode_error, decode_untyped, invalid_model
from khotan_cli.runtime.plugs.error_body import ErrorBody
from khotan_cli.runtime.plugs.failures import service_error, status_error
from khotan_cli.runtime.plugs.hold import HeldAnswer
from khotan_cli.runtime.plugs.outgoing import json_parameters
from khotan_cli.runtime.plugs.page_items import model_list
from khotan_cli.runtime.plugs.paginate import Paginator
from khotan_cli.runtime.plugs.paginator_check import contradictions
from khotan_cli.runtime.plugs.params import Binder, Template
from khotan_cli.runtime.plugs.retry import Retry
from khotan_cli.runtime.plugs.walk import PageWalk, Position, paginator_of

if TYPE_CHECKING:
    from khotan_cli.runtime.plugs.batch import BatchResult
    from khotan_cli.runtime.plugs.plug import Plug

M = TypeVar("M")
P_co = TypeVar("P_co", covariant=True)
I_co = TypeVar("I_co", covariant=True)
Item = TypeVar("Item")
UNDECLARED: Any = object()
"""Default of `returns`: nothing is declared. None declares that a successful response has no body."""


class _HasData(Protocol[I_co]):
    @property
    def data(self) -> Sequence[I_co]: ...


class _HasItems(Protocol[I_co]):
    @property
    def items(self) -> Sequence[I_co]: ...


class _HasResults(Protocol[I_co]):
    @property
    def results(self) -> Sequence[I_co]: ...


class Endpoint(Generic[M]):
    """One call of an API, declared as a class attribute of a Plug with `get`, `post`, …

    On an instance it is a `BoundEndpoint`. `returns` is the type of a successful answer; `responses` adds types by status
    (an int, "4XX", or "default"). None as one of these types declares a response without a body. `query_json` names query
    parameters that are sent as JSON text; it replaces the plug's. `error_body` says which successful answers are errors,
    instead of the plug's.
    """

    def __init__(
        self,
        method: str,
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
    ) -> None:
        if not path.startswith("/") and path != "":
            raise ValueError(f"An endpoint's path starts with '/': {path!r}")
        self.name = ""
        self.doc = ""
        self.owner: type[Any] | None = None
        self.method, self.path = method.upper(), Template(path)
        self.returns, self.query, self.body = _declared(returns), query, body
        self.responses = {str(status).upper(): _declared(model) for status, model in (responses or {}).items()}
        self.item, self.paginator, self.error_body = item, paginator, error_body
        self._fitting: set[Paginator] = set()
        self.encoding: Encoding | None = encoding
        self.retry, self.timeout, self.headers = retry, timeout, dict(headers or {})
        self.query_json = query_json
        self._decoders: dict[int, Decoder | None] = {}
        self._items: TypeAdapter[Any] | None = None if item is None else TypeAdapter(_list_of(item))
        self._binder: Binder | None = None

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = self.name or name
        self.owner = self.owner or owner

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: Plug, owner: type[Any]) -> BoundEndpoint[M]: ...
    def __get__(self, instance: Plug | None, owner: type[Any]) -> Self | BoundEndpoint[M]:
        return self if instance is None else BoundEndpoint(self, instance)

    @property
    def binder(self) -> Binder:
        if self._binder is None:
            label = f"Endpoint {self.name!r}"
            self._binder = Binder(label, self.method, self.path, self.query, self.body)
        return self._binder

    def model_for(self, status: int) -> Any:
        """The type declared for a status: exact, `2XX`, `default`, then `returns` for a success.

        The type of None stands for a response without a body, and None for a status that nothing is declared for.
        """
        for key in (str(status), f"{status // 100}XX", "DEFAULT"):
            if key in self.responses and not (key == "DEFAULT" and status < 400 and self.returns is not None):
                return self.responses[key]
        return self.returns if 200 <= status < 300 else None

    def decoder_for(self, status: int) -> Decoder | None:
        """The compiled decoder of that type."""
        if status not in self._decoders:
            model = self.model_for(status)
            self._decoders[status] = None if model is None else Decoder(model)
        return self._decoders[status]

    def items_of(self, page: Any, data: Any, paginator: Paginator, response: httpx.Response) -> list[Any]:
        """The items of a page: as the declared item type, else as they are in the page's model, else as raw JSON."""
        raw = paginator.items(data)
        if self._items is not None:
            try:
                return list(self._items.validate_python(raw))
            except ValidationError as exc:
                raise invalid_model(response, exc, self.item) from None
        if isinstance(page, list):
            return page
        found = model_list(page, paginator.items_path) if isinstance(page, BaseModel) else None
        return raw if found is None else found

    def check_paginator(self, paginator: Paginator, plug: str) -> None:
        """Raises PaginationError where the paginator reads what the declared response cannot have."""
        if paginator in self._fitting:
            return
        problems = contradictions(paginator, self.model_for(200), self.item)
        if problems:
            raise PaginationError(
                f"The paginator of {plug}.{self.name} does not fit its response model: {'; '.join(problems)}",
                plug=plug,
                endpoint=self.name,
                hint="Correct the paginator's paths, or declare what the service sends.",
            )
        self._fitting.add(paginator)

    def raise_error_body(self, plug: Plug, response: httpx.Response, data: Any) -> None:
        """Raises PlugError where a successful answer says that it is an error (`error_body` of endpoint or plug)."""
        rule = self.error_body or plug.error_body
        found = None if rule is None else rule.find(data)
        if found is not None:
            raise service_error(plug.name, self.name, response, data, found)

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.method} {self.path.text}>"


class BoundEndpoint(Generic[P_co]):
    """An endpoint of one plug instance: `await plug.endpoint(...)`, `.pages()`, `.items()`, `.raw()`, `.batch_post()`."""

    __slots__ = ("endpoint", "plug")

    def __init__(self, endpoint: Endpoint[Any], plug: Plug) -> None:
        self.endpoint, self.plug = endpoint, plug

    async def __call__(self, *models: Any, **params: Any) -> P_co:
        """Call, and return the declared model.

        Raises ParameterError before anything is sent; PlugError for an error status, with the model declared for it as
        `.body`; ResponseInvalid, PlugUnreachable, PlugTimeout, AuthError.
        """
        response = await self.raw(*models, **params)
        result: P_co = cast(P_co, response) if isinstance(response, HeldAnswer) else self.result(response)
        return result

    async def raw(self, *models: Any, **params: Any) -> httpx.Response:
        """Call, and return the response whatever its status: authenticated, retried and read, not judged."""
        bound = self.endpoint.binder.bind(
            models, params, self.plug.declared_vars(), json_parameters(self.plug, self.endpoint)
        )
        return await self.plug.exchange(self.endpoint, bound.path, bound.query, bound.body)

    async def pages(self, *models: Any, **params: Any) -> AsyncIterator[P_co]:
        """Page after page. Raises PaginationError where there is no paginator, or the service repeats itself."""
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
        """Item after item of every page. Statically typed for a list, and for pages with `data`, `items` or `results`."""
        return self._items(models, params)

    def batch_post(
        self, records: Sequence[Any], *, size: int = 100, concurrency: int = 4, key: str | None = None, **params: Any
    ) -> AsyncIterator[BatchResult[P_co]]:
        """Send records in batches of `size`, at most `concurrency` at a time; see `batch.batch_post`."""
        from khotan_cli.runtime.plugs.batch import batch_post

        return batch_post(self, records, size=size, concurrency=concurrency, key=key, params=params)

    async def _items(self, models: Sequence[Any], params: Mapping[str, Any]) -> AsyncIterator[Any]:
        paginator = paginator_of(self)
        async for page, data, response in self._walk(models, params):
            for item in self.endpoint.items_of(page, data, paginator, response):
                yield item

    def walk(self, *models: Any, **params: Any) -> PageWalk:
        """A walk through the pages that can be left at any position and taken up there again."""
        return PageWalk(self, models, params)

    async def _walk(
        self, models: Sequence[Any], params: Mapping[str, Any]
    ) -> AsyncIterator[tuple[Any, Any, httpx.Response]]:
        walk = PageWalk(self, models, params)
        position: Position | None = walk.start
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


def _list_of(item: Any) -> Any:
    return list[item]


def _declared(model: Any) -> Any:
    """A declared response type: None where nothing is declared, the type of None where no body is."""
    return None if model is UNDECLARED else type(None) if model is None else model


class Declare:
    """Declares endpoints of one method: `list_orders = get("/orders", returns=OrderPage)`."""

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
        return Endpoint(self.method, path, **options)


def endpoint(method: str, path: str, **options: Any) -> Endpoint[Any]:
    """Declare an endpoint of any method."""
    return Endpoint(method, path, **options)


get, post, put = Declare("GET"), Declare("POST"), Declare("PUT")
patch, delete = Declare("PATCH"), Declare("DELETE")
head, options = Declare("HEAD"), Declare("OPTIONS")
