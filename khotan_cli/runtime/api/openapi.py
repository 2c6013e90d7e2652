"""The API's OpenAPI document. FastAPI generates it from functions with the operations' parameters and results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Annotated, Any, get_type_hints

from fastapi import Body, FastAPI, Header, Path, Query
from fastapi.responses import JSONResponse, StreamingResponse

from khotan_cli import __version__
from khotan_cli.runtime.api.calls import EventStream
from khotan_cli.runtime.api.models.common import ErrorDocument
from khotan_cli.runtime.api.operations import Operation, Parameter, Source, parameters
from khotan_cli.runtime.api.routing import operations

_MARKERS: dict[Source, Callable[[], Any]] = {
    Source.PATH: Path,
    Source.QUERY: Query,
    Source.HEADER: Header,
    Source.BODY: Body,
}


@cache
def document() -> dict[str, Any]:
    """The document without `servers`, because the mount path is known only from a request."""
    api = FastAPI(title="khotan", version=__version__)
    failed: dict[int | str, dict[str, Any]] = {
        "default": {"model": ErrorDocument, "description": "An error: code, message and hint"}
    }
    for operation in operations():
        result = get_type_hints(operation.function)["return"]
        streamed = result is EventStream
        api.add_api_route(
            operation.path,
            _described(operation),
            methods=[operation.method],
            tags=list(operation.tags),
            response_model=None if streamed else result,
            response_class=StreamingResponse if streamed else JSONResponse,
            responses=failed,
            operation_id=operation.operation_id,
            include_in_schema=operation.documented,
        )
    return api.openapi()


def _described(operation: Operation) -> Callable[..., Any]:
    """An empty function with the parameters of the operation's caller."""

    async def stand_in() -> None: ...

    caller_parameters = {
        parameter.name: parameter for parameter in _caller_parameters(operation.function, operation.path)
    }
    stand_in.__name__, stand_in.__doc__ = operation.function.__name__, operation.function.__doc__
    stand_in.__signature__ = inspect.Signature([_declared(parameter) for parameter in caller_parameters.values()])  # type: ignore[attr-defined]
    return stand_in


def _caller_parameters(function: Callable[..., Any], path: str) -> Iterator[Parameter]:
    wanted: Iterable[Parameter] = parameters(function, path)
    for parameter in wanted:
        if parameter.function is not None:
            yield from _caller_parameters(parameter.function, path)
        elif parameter.source is not Source.CALL:
            yield parameter


def _declared(parameter: Parameter) -> inspect.Parameter:
    return inspect.Parameter(
        parameter.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[parameter.annotation, _MARKERS[parameter.source]()],
        default=parameter.default,
    )
