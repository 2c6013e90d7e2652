"""Reads the items of a page as the endpoint's declared type. With skip_invalid, invalid items are collected separately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx
import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from khotan_cli.errors import ResponseInvalid
from khotan_cli.runtime.content.json_path import Path, dig
from khotan_cli.runtime.paging.declared_path import items_type
from khotan_cli.runtime.plugs.client import Client
from khotan_cli.runtime.plugs.operation import BoundOperation
from khotan_cli.runtime.plugs.page_iterator import FetchedPage, PageIterator, PagePosition

_LONGEST_REASON = 500
_LONGEST_KEY = 100


@dataclass
class Page:
    """Items in order: instances of the declared model, or mappings without one. `invalid`: (raw item, reason)."""

    items: list[Any]
    invalid: list[tuple[Any, str]] = field(default_factory=list[tuple[Any, str]])


class PageReader:
    """Reads the items of an endpoint's pages."""

    def __init__(self, walk: PageIterator, *, skip_invalid: bool) -> None:
        self._walk, self._skip = walk, skip_invalid
        endpoint = walk.bound.endpoint
        self.model = item_model(walk.bound, walk.paginator.items_path)
        self._adapter: TypeAdapter[Any] | None = None
        if endpoint.item is not None or self.model is not None:
            declared: Any = endpoint.item if endpoint.item is not None else self.model
            self._adapter = TypeAdapter(declared)

    def read(self, fetched: FetchedPage) -> Page:
        """Read a page. Raises ResponseInvalid if the page (with skip_invalid: its envelope) does not match the declaration."""
        if fetched.end:
            return Page([])
        try:
            page = self._walk.bound.result(fetched.response)
        except ResponseInvalid:
            if not self._skip or self._adapter is None or not isinstance(fetched.data, (dict, list)):
                raise
            return self._one_by_one(fetched)
        try:
            return Page(self._walk.bound.endpoint.items_of(page, fetched.data, self._walk.paginator, fetched.response))
        except ResponseInvalid:
            if not self._skip:
                raise
            return self._one_by_one(fetched)

    def _one_by_one(self, fetched: FetchedPage) -> Page:
        assert self._adapter is not None
        read = Page([])
        for raw in self._walk.paginator.items(fetched.data):
            try:
                # Validated as JSON, so that strict types and formats behave as for the whole page.
                read.items.append(self._adapter.validate_json(orjson.dumps(raw)))
            except ValidationError as exc:
                read.invalid.append((raw, reason_of(exc)))
        return read


def reason_of(exc: Exception) -> str:
    """Return why a record was rejected, without its values."""
    if isinstance(exc, ValidationError):
        errors = exc.errors(include_url=False, include_input=False, include_context=False)
        shown = [f"{'.'.join(map(str, error['loc'])) or 'record'}: {error['msg']}" for error in errors[:5]]
        return "; ".join(shown)[:_LONGEST_REASON]
    return f"{type(exc).__name__}: {exc}"[:_LONGEST_REASON]


def of_record(reason: str, record: Any, key: Sequence[str]) -> str:
    """Prefix a reason with the record's key, if the record has one."""
    try:
        fields = as_mapping(record)
    except TypeError:
        return reason
    parts = [fields.get(name) for name in key]
    if any(part is None for part in parts):
        return reason
    return f"record {', '.join(map(str, parts))[:_LONGEST_KEY]}: {reason}"


def shown(record: Any) -> Any:
    """Convert a record to JSON for inspection. Values that are not JSON become their repr."""
    return to_jsonable_python(record, fallback=repr)


def item_model(bound: BoundOperation, items_path: Path | None) -> type[BaseModel] | None:
    """Return the Pydantic model that the endpoint declares for an item, or None."""
    endpoint = bound.endpoint
    declared = endpoint.item if endpoint.item is not None else items_type(endpoint.returns, items_path)
    return _model(declared)


def _model(declared: Any) -> type[BaseModel] | None:
    return declared if isinstance(declared, type) and issubclass(declared, BaseModel) else None


def as_mapping(record: Any) -> Mapping[str, Any]:
    """Return a record's fields by name, with unchanged values. Raises TypeError if it is not a record."""
    if isinstance(record, BaseModel):
        return record.__dict__ if not record.__pydantic_extra__ else {**record.__dict__, **record.__pydantic_extra__}
    if isinstance(record, Mapping):
        return record
    if hasattr(record, "_mapping"):
        return dict(record._mapping)
    raise TypeError(f"a record must be a mapping or a model, not {type(record).__name__}")


def as_document(record: Any) -> dict[str, Any]:
    """Convert a record to the service's form: JSON values, aliases instead of names, unset fields omitted.

    For a row of a table, all columns are included.
    """
    if isinstance(record, BaseModel):
        return record.model_dump(mode="json", by_alias=True, exclude_unset=not hasattr(record, "__table__"))
    document: dict[str, Any] = to_jsonable_python(dict(as_mapping(record)), inf_nan_mode="strings")
    return document


def answer_value(answer: Any, path: Path) -> Any:
    """Return the value at a path of a response, which may be a model, a mapping or an httpx.Response."""
    if isinstance(answer, httpx.Response):
        answer = answer.json()
    return dig(answer.model_dump(mode="json", by_alias=True) if isinstance(answer, BaseModel) else answer, path)


async def without_secrets(position: PagePosition, plug: Client) -> PagePosition:
    """Remove credentials from the position's link before it is stored. The plug adds its own credentials again."""
    if position.url is None:
        return position
    secrets = {*(await plug.resolve()).secrets(), *plug.shared.tokens.secrets()}
    parts = urlsplit(position.url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in query if value not in secrets]
    if len(kept) == len(query):
        return position
    return replace(position, url=urlunsplit(parts._replace(query=urlencode(kept))))
