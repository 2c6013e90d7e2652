"""`Event`, the argument of a handler."""

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
    """A received event.

    `data` is an instance of the handler's model, decoded and without the vendor's envelope; without a model it is the JSON
    body, or text or bytes if the body is not JSON. `body` holds the raw bytes. `path` holds the wire's path placeholders.
    `id` is khotan's id, `remote_id` the sender's. `attempt` counts from 1. `ctx` offers what a flow's context offers:
    `session()`, `mapping()`, `cache()`, steps, `log()`. `organisation` is the owner of an ingested record. Credentials in
    `headers` are masked.
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
    """Whether the organisation is already part of the record's identity."""

    @property
    def ctx(self) -> FlowContext:
        """The context of the run. Raises RuntimeError for an event that was created without one, for example in a test."""
        if self._ctx is None:
            raise RuntimeError("This event has no context: it was not created by khotan")
        return self._ctx


class StoredEvent:
    """A row of khotan_webhook_events. envelope: the form field that holds the document, as the wire's scheme declares."""

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
        """The body as JSON, else text, else bytes; a dict for a form. Raw bytes if the body cannot be decoded."""
        try:
            if self._form:
                return dict(self.request.form)
            content = self.request.content
        except Undecodable:
            return self.row.body
        try:
            return load_json(content)
        except (ValueError, RecursionError):  # includes integers beyond Python's limit of digits
            pass
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content

    def event(self, adapter: TypeAdapter[Any] | None, ctx: FlowContext | None, attempt: int) -> Event[Any]:
        """Build the event for a handler.

        Raises pydantic.ValidationError if the body does not match the handler's model, and Undecodable if the handler has a
        model and the body cannot be decoded.
        """
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
        """Whether the body is a form. A JSON object is not, even with a form content type (the default of `curl -d`)."""
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
