"""`Event`: what a handler is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import TypeAdapter

from khotan_cli.runtime.content.json_text import load_json
from khotan_cli.runtime.store.events import EventData
from khotan_cli.runtime.webhooks.decoding import Undecodable
from khotan_cli.runtime.webhooks.request import Headers, WebhookRequest

if TYPE_CHECKING:
    from khotan_cli.runtime.flows.context import FlowContext

M = TypeVar("M")


@dataclass(frozen=True)
class Event(Generic[M]):
    """An event as it came, and what its handler declares it to be.

    `data` is the handler's model, or the JSON body where it has none (text, or bytes, where the body is not JSON), decoded and
    without the vendor's envelope. `body` holds the raw bytes. `path` holds what the wire takes from the path. `id` is
    khotan's, `remote_id` the sender's. `attempt` counts from 1. `ctx` has what a flow has: `session()`, `mapping()`,
    `cache()`, steps, `log()`. `organisation` is whose an ingested record is. Credentials in `headers` are masked.
    """

    data: M
    id: str
    wire: str
    type: str
    remote_id: str
    headers: Mapping[str, str]
    content_type: str
    received_at: datetime
    attempt: int = 1
    organisation: str | None = None
    body: bytes = field(default=b"", repr=False)
    _ctx: FlowContext | None = field(default=None, repr=False)
    path: Mapping[str, str] = field(default_factory=dict[str, str])
    _settled: bool = field(default=True, repr=False)
    """Whether the organisation is part of the record's identity already."""

    @property
    def ctx(self) -> FlowContext:
        """Raises RuntimeError for an event that was made by hand, in a test say, without one."""
        if self._ctx is None:
            raise RuntimeError("This event has no context: it was not made by khotan")
        return self._ctx


class StoredEvent:
    """A row of khotan_webhook_events, read. envelope: the form field that holds the document, from the wire's scheme."""

    def __init__(self, row: EventData, envelope: str | None = None) -> None:
        self.row, self._envelope = row, envelope

    @cached_property
    def request(self) -> WebhookRequest:
        row = self.row
        fields = {**(row.headers or {})}
        if getattr(row, "content_type", ""):
            fields["content-type"] = row.content_type  # the stored header may be masked
        path = getattr(row, "path", None) or {}
        return WebhookRequest(row.method, "", Headers(fields), row.body, self._envelope, path)

    @cached_property
    def content(self) -> Any:
        """The body: JSON where it is, else text, else bytes; the fields of a form. Raw bytes where it cannot be decoded."""
        try:
            if self._form:
                return dict(self.request.form)
            content = self.request.content
        except Undecodable:
            return self.row.body
        try:
            return load_json(content)
        except (ValueError, RecursionError):  # an integer beyond Python's own limit of digits, too
            pass
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content

    def event(self, adapter: TypeAdapter[Any] | None, ctx: FlowContext | None, attempt: int) -> Event[Any]:
        """The event for a handler. Raises pydantic.ValidationError where the body is not what the handler declares, and
        Undecodable where it declares a model and the body cannot be decoded."""
        row = self.row
        data = self.content if adapter is None else self._validated(adapter)
        return Event(
            data,
            str(row.id),
            row.wire,
            row.type,
            row.remote_id,
            dict(row.headers or {}),
            row.content_type,
            row.received_at,
            attempt,
            row.organisation,
            row.body,
            ctx,
            dict(self.request.path),
            row.organisation is not None and getattr(row, "tenant", row.organisation) == row.organisation,
        )

    @cached_property
    def _form(self) -> bool:
        """Whether the body is a form. A JSON object is none, though it says so: `curl -d` does, unless told otherwise."""
        if self.request.content_type != "application/x-www-form-urlencoded":
            return False
        try:
            return not isinstance(self.request.json, dict)
        except Undecodable:
            raise
        except ValueError:
            return True

    def _validated(self, adapter: TypeAdapter[Any]) -> Any:
        if self._form:
            return adapter.validate_strings(self.content)
        return adapter.validate_json(self.request.content)
