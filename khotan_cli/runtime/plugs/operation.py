"""`Operation`: the declaration of one API call, independent of a plug instance."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Generic, Protocol, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from khotan_cli.errors import PaginationError
from khotan_cli.runtime.content.codec import Decoder, Encoding, invalid_model
from khotan_cli.runtime.content.error_body import ErrorBody
from khotan_cli.runtime.http.errors import service_error
from khotan_cli.runtime.http.parameters import Binder, Template
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.paging.base import Paginator
from khotan_cli.runtime.paging.page_items import model_list
from khotan_cli.runtime.plugs.client import Client
from khotan_cli.runtime.plugs.paginator_check import contradictions

M = TypeVar("M")
UNDECLARED: Any = object()
"""Default of `returns`: no declaration. None declares that a successful response has no body."""


class Operation(Generic[M]):
    """A declared API operation: method, path, models by status, and options.

    `returns` is the type of a successful response; `responses` adds types by status (an int, "4XX", or "default"). None as one
    of these types declares a response without a body. `query_json` names query parameters that are sent as JSON text; it
    replaces the plug's. `error_body` declares which successful responses are errors; it replaces the plug's.
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
            raise ValueError(f"Invalid endpoint path {path!r}: it must start with '/'")
        self.name = ""
        self.doc = ""
        self.owner: type[Any] | None = None
        self.method, self.path = method.upper(), Template(path)
        self.returns, self.query, self.body = _declared(returns), query, body
        self.responses = {str(status).upper(): _declared(model) for status, model in (responses or {}).items()}
        self.item, self.paginator, self.error_body = item, paginator, error_body
        self._checked: set[Paginator] = set()
        self.encoding: Encoding | None = encoding
        self.retry, self.timeout, self.headers = retry, timeout, dict(headers or {})
        self.query_json = query_json
        self._decoders: dict[int, Decoder | None] = {}
        self._items: TypeAdapter[Any] | None = None if item is None else TypeAdapter(_list_of(item))
        self._binder: Binder | None = None

    @property
    def binder(self) -> Binder:
        if self._binder is None:
            label = f"Endpoint {self.name!r}"
            self._binder = Binder(label, self.method, self.path, self.query, self.body)
        return self._binder

    def model_for(self, status: int) -> Any:
        """The type declared for a status: exact, `2XX`, `default`, then `returns` for a success.

        NoneType means a response without a body; None means that nothing is declared for the status.
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
        """The items of a page: as the declared item type, else from the page's model, else as raw JSON."""
        raw = paginator.items(data)
        if self._items is not None:
            try:
                return list(self._items.validate_python(raw))
            except ValidationError as exc:
                raise invalid_model(response, exc, self.item) from None
        if isinstance(page, list):
            return page
        items = model_list(page, paginator.items_path) if isinstance(page, BaseModel) else None
        return raw if items is None else items

    def check_paginator(self, paginator: Paginator, plug: str) -> None:
        """Raises PaginationError if the paginator reads fields that the declared response cannot have."""
        if paginator in self._checked:
            return
        problems = contradictions(paginator, self.model_for(200), self.item)
        if problems:
            raise PaginationError(
                f"The paginator of {plug}.{self.name} does not match its response model: {'; '.join(problems)}",
                plug=plug,
                endpoint=self.name,
                hint="Correct the paginator's paths, or declare the field that the service sends.",
            )
        self._checked.add(paginator)

    def raise_error_body(self, plug: Client, response: httpx.Response, data: Any) -> None:
        """Raises PlugError for a successful response that is an error according to `error_body` of the endpoint or plug."""
        error_body = self.error_body or plug.error_body
        reported = None if error_body is None else error_body.find(data)
        if reported is not None:
            raise service_error(plug.name, self.name, response, data, reported)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.method} {self.path.text}>"


def _list_of(item: Any) -> Any:
    return list[item]


def _declared(model: Any) -> Any:
    """A declared response type: None without a declaration, NoneType for a response without a body."""
    return None if model is UNDECLARED else type(None) if model is None else model


class BoundOperation(Protocol):
    """An operation and the plug that makes its calls."""

    @property
    def endpoint(self) -> Operation[Any]: ...
    @property
    def plug(self) -> Client: ...
    def result(self, response: httpx.Response) -> Any: ...
