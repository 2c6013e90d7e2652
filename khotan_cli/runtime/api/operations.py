"""Operations: functions that the management API calls, with their method, path and parameters.

    router = Router("/plugs", tags=["plugs"])

    @router.get("/{plug}")
    async def show_plug(plug: CurrentPlug, services: CurrentServices) -> PlugInfo: ...

A parameter named in the path comes from the path, a model from the JSON body, `Annotated[T, Depends(f)]` from `f`,
`Annotated[T, Header]` from the header field of that name; a `Call` is the request itself, and all others come from the
query. Pydantic validates them. Calling an operation needs no web framework; `openapi.py` uses FastAPI to describe them.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qs, unquote

from pydantic import BaseModel, TypeAdapter, ValidationError

from khotan_cli.errors import KhotanError
from khotan_cli.runtime.api.calls import Call

F = TypeVar("F", bound=Callable[..., Any])

_PLACEHOLDER = re.compile(r"\{(\w+)(:path)?\}")
_MISSING: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Depends:
    """Marks a parameter whose value a function returns. The function's parameters are resolved in the same way."""

    function: Callable[..., Any]


class Header:
    """Marks a parameter from a header field: `last_event_id` is `Last-Event-ID`."""


class Source(Enum):
    """The source of a parameter's value."""

    CALL = "call"
    DEPENDENCY = "dependency"
    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    BODY = "body"


@dataclass(frozen=True)
class Parameter:
    """A parameter of an operation or of its dependency."""

    name: str
    source: Source
    annotation: Any
    default: Any = _MISSING
    function: Callable[..., Any] | None = None
    """The function of a dependency."""

    @cached_property
    def many(self) -> bool:
        """Whether a query parameter may be repeated."""
        return any(get_origin(kind) is list for kind in _alternatives(self.annotation))

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.annotation)

    def validated(self, value: Any, *name: str) -> Any:
        """Validate a value. `name` is the field of the request. Raises KhotanError (invalid_input)."""
        try:
            return self._adapter.validate_python(value)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            raise invalid((*name, *first["loc"]), first["msg"]) from None


def parameters(function: Callable[..., Any], path: str) -> list[Parameter]:
    """The parameters of a function at a path, in order."""
    hints = get_type_hints(function, include_extras=True)
    named = {match[1] for match in _PLACEHOLDER.finditer(path)}
    return [
        _parameter(name, hints[name], spec.default, name in named)
        for name, spec in inspect.signature(function).parameters.items()
    ]


def _parameter(name: str, hint: Any, default: Any, in_path: bool) -> Parameter:
    markers = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    for marker in markers:
        if isinstance(marker, Depends):
            return Parameter(name, Source.DEPENDENCY, hint, default, marker.function)
        if marker is Header:
            return Parameter(name, Source.HEADER, get_args(hint)[0], default)
    if hint is Call:
        return Parameter(name, Source.CALL, hint)
    if in_path:
        return Parameter(name, Source.PATH, hint)
    body = any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in _alternatives(hint))
    return Parameter(name, Source.BODY if body else Source.QUERY, hint, default)


def _alternatives(hint: Any) -> Sequence[Any]:
    """The members of a union, else the type itself, without annotations."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


@dataclass(frozen=True)
class Operation:
    """A function of the API. path: with placeholders `{name}` or `{name:path}`. needs: checks that run first and may raise."""

    method: str
    path: str
    function: Callable[..., Awaitable[Any]]
    tags: Sequence[str]
    needs: Sequence[Callable[..., Any]]
    guarded: bool
    """Whether the caller is authorized before the rest of the request is read."""
    operation_id: str | None = None
    documented: bool = True

    @cached_property
    def parameters(self) -> list[Parameter]:
        return parameters(self.function, self.path)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts, end = [], 0
        for match in _PLACEHOLDER.finditer(self.path):
            parts += [re.escape(self.path[end : match.start()]), f"(?P<{match[1]}>{'.*' if match[2] else '[^/]+'})"]
            end = match.end()
        return re.compile("".join([*parts, re.escape(self.path[end:])]))

    def match(self, path: str) -> dict[str, str] | None:
        """The values of the placeholders in a percent-encoded path; None if the path does not match."""
        found = self._pattern.fullmatch(path)
        return None if found is None else {name: unquote(value) for name, value in found.groupdict().items()}

    async def __call__(self, call: Call, values: Mapping[str, str]) -> Any:
        """Call the function with arguments from the request. Raises KhotanError: invalid_input, invalid_json, the function's."""
        arguments = _Arguments(call, values, parse_qs(call.query, keep_blank_values=True))
        for need in self.needs:
            await arguments.result(need, self.path)
        return await self.function(**await arguments.of(self.parameters, self.path))


@dataclass
class Router:
    """Collects the operations below a path prefix."""

    prefix: str = ""
    tags: Sequence[str] = ()
    needs: Sequence[Callable[..., Any]] = ()
    guarded: bool = True
    operations: list[Operation] = field(default_factory=list[Operation])

    def add(
        self,
        method: str,
        path: str,
        *,
        needs: Sequence[Callable[..., Any]] = (),
        operation_id: str | None = None,
        documented: bool = True,
    ) -> Callable[[F], F]:
        def register(function: F) -> F:
            needed = (*self.needs, *needs)
            self.operations.append(
                Operation(
                    method, self.prefix + path, function, self.tags, needed, self.guarded, operation_id, documented
                )
            )
            return function

        return register

    def get(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.add("GET", path, **options)

    def post(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.add("POST", path, **options)

    def put(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.add("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.add("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.add("DELETE", path, **options)


@dataclass
class _Arguments:
    """The arguments of one call. Each dependency is called once."""

    call: Call
    path_values: Mapping[str, str]
    query: Mapping[str, list[str]]
    results: dict[Callable[..., Any], Any] = field(default_factory=dict[Callable[..., Any], Any])

    async def of(self, wanted: Sequence[Parameter], path: str) -> dict[str, Any]:
        """Resolve dependencies first, so that an unknown name is reported before an invalid body."""
        values: dict[str, Any] = {}
        for parameter in wanted:
            if parameter.function is not None:
                values[parameter.name] = await self.result(parameter.function, path)
        for parameter in wanted:
            if parameter.function is None:
                values[parameter.name] = await self._value(parameter)
        return values

    async def result(self, function: Callable[..., Any], path: str) -> Any:
        if function not in self.results:
            returned = function(**await self.of(_parameters_of(function, path), path))
            self.results[function] = await returned if inspect.isawaitable(returned) else returned
        return self.results[function]

    async def _value(self, parameter: Parameter) -> Any:
        name, source = parameter.name, parameter.source
        if source is Source.CALL:
            return self.call
        if source is Source.BODY:
            return await self._body(parameter)
        if source is Source.PATH:
            raw: Any = self.path_values[name]
        elif source is Source.HEADER:
            raw = self.call.headers.get(name.replace("_", "-"))
        else:
            texts = self.query.get(name)
            raw = texts if texts is None or parameter.many else texts[-1]
        if raw is None:
            if parameter.default is _MISSING:
                raise invalid((source.value, name), "Field required")
            return parameter.default
        return parameter.validated(raw, source.value, name)

    async def _body(self, parameter: Parameter) -> Any:
        content = await self.call.read()
        if not content and parameter.default is not _MISSING:
            return parameter.default
        if not content or not _is_json(self.call.headers.get("content-type", "")):
            hint = "Send a JSON object with Content-Type: application/json."
            raise invalid(("body",), "Field required" if not content else "Input should be a JSON object", hint)
        try:
            document = json.loads(content)
        except (UnicodeDecodeError, RecursionError):
            raise KhotanError(
                "The request body is not readable as JSON", code="invalid_json", hint="Send JSON in UTF-8 (RFC 8259)."
            ) from None
        except ValueError:
            raise KhotanError(
                "The request body is not valid JSON", code="invalid_json", hint="Send a JSON object."
            ) from None
        return parameter.validated(document, "body")


@lru_cache(maxsize=256)
def _parameters_of(function: Callable[..., Any], path: str) -> list[Parameter]:
    return parameters(function, path)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def invalid(location: Sequence[Any], message: str, hint: str = "Correct the field.") -> KhotanError:
    """The error for an invalid field of the request. It omits the input, which may be a secret."""
    name = ".".join(str(part) for part in location if part != "body") or "body"
    return KhotanError(
        f"{name}: {message.removeprefix('Value error, ')}", code="invalid_input", hint=hint, details={"field": name}
    )
