"""Sorts a caller's arguments into path values, query and body, and validates them before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from khotan_cli.errors import ParameterError, nearest
from khotan_cli.runtime.content.json_text import encodable
from khotan_cli.runtime.content.present import dump_set, jsonable, query_fields
from khotan_cli.runtime.content.query import is_scalar, plain_query, refuse_nulls, scalar_text

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NO_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass
class Bound:
    """The validated parameters of a call, as JSON values. The path values named in `path_vars` come from variables."""

    path: dict[str, str]
    query: dict[str, Any]
    body: Any
    path_vars: tuple[str, ...] = ()


class Template:
    """A path or URL with `{name}` placeholders."""

    def __init__(self, text: str) -> None:
        pieces = _PLACEHOLDER.split(text)
        self.text = text
        self._literals = pieces[0::2]
        self.names = tuple(pieces[1::2])

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every placeholder replaced by its percent-encoded value."""
        if not self.names:
            return self.text
        filled = [self._literals[0]]
        for name, literal in zip(self.names, self._literals[1:], strict=True):
            filled += (encode_segment(values[name]), literal)
        return "".join(filled)


def encode_segment(value: str) -> str:
    """One path segment, percent-encoded (RFC 3986 3.3); `.` and `..` are encoded too, so that no value changes the path."""
    if value in (".", ".."):
        return value.replace(".", "%2E")
    return quote(value, safe="")


class Binder:
    """Sorts the arguments of one endpoint. Created once per endpoint, at class creation."""

    def __init__(
        self,
        label: str,
        method: str,
        path: Template,
        query: type[BaseModel] | None,
        body: Any,
    ) -> None:
        self.label, self.method, self.path = label, method, path
        self.query_model = query
        self.body_model = body if isinstance(body, type) and issubclass(body, BaseModel) else None
        self._body_adapter: TypeAdapter[Any] | None = None if body is None else TypeAdapter(body)
        self.query_fields = _field_names(query)
        self.body_fields = _field_names(self.body_model)

    def bind(
        self,
        models: Sequence[Any],
        params: Mapping[str, Any],
        variables: Iterable[str] = (),
        query_json: Collection[str] = (),
    ) -> Bound:
        """Sort positional models and keywords.

        A keyword is a path parameter, else a field of the query model, else a field of the body model. If the endpoint
        declares neither model, the other keywords go into the query. `query=` and `body=` take a whole model or mapping,
        unless the endpoint has a parameter of that name. Parameters in `query_json` may be null in a mapping. Raises
        ParameterError, which names every unknown, missing or malformed parameter.
        """
        query, body = self._whole(models, params)
        path: dict[str, str] = {}
        query_fields: dict[str, Any] = {}
        body_fields: dict[str, Any] = {}
        unknown: list[str] = []
        for name, value in params.items():
            if name in self.path.names:
                path[name] = self._path_text(name, value)
            elif name in self.query_fields:
                query_fields[name] = value
            elif name in self.body_fields:
                body_fields[name] = value
            elif name in ("query", "body"):
                continue
            elif self.query_model is None and not self.body_fields:
                query_fields[name] = value
            else:
                unknown.append(name)
        if unknown:
            raise self._unknown(unknown)
        known_vars = set(variables)
        missing = [name for name in self.path.names if name not in path and name not in known_vars]
        if missing:
            raise ParameterError(
                f"{self.label}: missing {_listed(missing)}",
                hint=f"The path is {self.path.text}.",
                details={"missing": missing},
            )
        from_vars = tuple(name for name in self.path.names if name not in path)
        nulls: dict[str, Any] = {}
        if isinstance(query, Mapping):
            refuse_nulls(query, query_json)
            nulls = {self._query_name(name): None for name, value in query.items() if value is None}
        sent = nulls | self._query(query, query_fields)
        return Bound(path, sent, self._body(body, body_fields), from_vars)

    def names(self) -> list[str]:
        """Every parameter the endpoint declares."""
        return [*self.path.names, *self.query_fields, *self.body_fields]

    def _whole(self, models: Sequence[Any], params: Mapping[str, Any]) -> tuple[Any, Any]:
        """The query and body that were passed as whole models or mappings."""
        declared = {*self.path.names, *self.query_fields, *self.body_fields}
        query = params.get("query") if "query" not in declared else None
        body = params.get("body") if "body" not in declared else None
        for model in models:
            if self.query_model is not None and isinstance(model, self.query_model) and query is None:
                query = model
            elif body is None and (self._body_adapter is not None or self.method not in _NO_BODY):
                body = model
            elif query is None and isinstance(model, (BaseModel, Mapping)):
                query = model
            else:
                raise ParameterError(
                    f"{self.label} does not accept a {type(model).__name__}",
                    hint=f"The parameters are {_listed(self.names()) or 'none'}.",
                )
        return query, body

    def _path_text(self, name: str, value: Any) -> str:
        if not is_scalar(value):
            raise ParameterError(
                f"{self.label}: path parameter {name!r} is a {type(value).__name__}, not a single value",
                hint=f"The path is {self.path.text}.",
            )
        text = scalar_text(value)
        if text is None or text == "":
            raise ParameterError(
                f"{self.label}: path parameter {name!r} is empty", hint=f"The path is {self.path.text}."
            )
        return encodable(text, f"{self.label}: path parameter {name!r}")

    def _query_name(self, name: Any) -> str:
        """The service's name of a parameter."""
        field = self.query_fields.get(str(name))
        if field is None or self.query_model is None:
            return str(name)
        return str(_alias(field, self.query_model.model_fields[field]))

    def _query(self, whole: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        query = _as_mapping(whole, f"{self.label}: query")
        if self.query_model is None:
            return plain_query({key: value for key, value in {**query, **fields}.items() if value is not None})
        if isinstance(whole, self.query_model) and not fields:
            return query
        checked = self._validated(TypeAdapter(self.query_model), {**query, **fields}, self.query_model)
        return _as_mapping(checked, self.label)

    def _body(self, whole: Any, fields: Mapping[str, Any]) -> Any:
        if self._body_adapter is None or isinstance(whole, (bytes, bytearray)):
            return jsonable(whole)
        if whole is None and not fields:
            if self.body_model is not None and any(f.is_required() for f in self.body_model.model_fields.values()):
                required = [_alias(n, f) for n, f in self.body_model.model_fields.items() if f.is_required()]
                raise ParameterError(
                    f"{self.label}: missing {_listed(required)} in the body", details={"missing": required}
                )
            if self.body_model is None:
                raise ParameterError(f"{self.label} needs a body", hint="Give it as body=….")
            whole = {}
        if fields:
            whole = {**_body_mapping(whole, f"{self.label}: body"), **fields}
        checked = self._validated(self._body_adapter, whole, self.body_model)
        return dump_set(self._body_adapter, checked)

    def _validated(self, adapter: TypeAdapter[Any], value: Any, model: type[BaseModel] | None) -> Any:
        known = _field_names(model)
        if model is not None and isinstance(value, Mapping) and model.model_config.get("extra", "ignore") != "allow":
            unknown = [str(key) for key in value if key not in known]
            if unknown:
                raise self._unknown(unknown)
        try:
            return adapter.validate_python(value, by_alias=True, by_name=True)
        except ValidationError as exc:
            # The message omits the input, which may be a secret.
            problems = {
                ".".join(map(str, error["loc"])) or "body": error["msg"]
                for error in exc.errors(include_url=False, include_input=False, include_context=False)
            }
            missing = [n for n, message in problems.items() if message == "Field required"]
            wrong = [f"{n}: {message}" for n, message in problems.items() if n not in missing]
            parts = ([f"missing {_listed(missing)}"] if missing else []) + wrong
            details = {"missing": missing} if missing else {}
            raise ParameterError(f"{self.label}: {'; '.join(parts)}", details=details) from None

    def _unknown(self, names: Sequence[str]) -> ParameterError:
        known = self.names()
        near = {name: match for name in names if (match := nearest(name, known))}
        hint = (
            "Did you mean " + ", ".join(f"{match!r}" for match in near.values()) + "?"
            if near
            else f"Known: {_listed(known) or 'none'}."
        )
        return ParameterError(
            f"{self.label} has no parameter {_listed(names)}", hint=hint, details={"unknown": list(names)}
        )


def _as_mapping(value: Any, label: str) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, BaseModel):
        return query_fields(value)
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    raise ParameterError(f"{label} must be a model or a mapping, not {type(value).__name__}")


def _body_mapping(value: Any, label: str) -> dict[str, Any]:
    fields: dict[str, Any] = jsonable(value) if isinstance(value, BaseModel) else _as_mapping(value, label)
    return fields


def _alias(name: str, field: Any) -> str:
    return field.serialization_alias or field.alias or name


def _field_names(model: type[BaseModel] | None) -> dict[str, str]:
    """Every accepted name of a field → the field."""
    names: dict[str, str] = {}
    for name, field in (model.model_fields if model else {}).items():
        names[name] = name
        for alias in (field.alias, field.validation_alias):
            if isinstance(alias, str):
                names[alias] = name
    return names


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
