"""Event handlers: catch and pass. Each matching handler of an event gets its own run."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

from pydantic import TypeAdapter

from khotan_cli.errors import ConfigError, FlowError
from khotan_cli.runtime.flows.context import FlowContext
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.runs.definition import Flow, RunResult
from khotan_cli.runtime.runs.hooks import Hooks
from khotan_cli.runtime.webhooks.event import Event
from khotan_cli.runtime.webhooks.request import WebhookRequest
from khotan_cli.runtime.webhooks.verify.locator import Rule

HandlerFunction = Callable[[Event[Any]], Awaitable[Any]]
DEFAULT_RETRY = Retry(attempts=43, backoff=2.0, max_backoff=3600.0)
"""The attempts span more than a day, to outlast an outage of a service."""
SHORTEST_PAUSE = 0.75
"""Minimum share of a pause. The rest is random, so that runs do not all resume at once."""
DEFAULT_TIMEOUT = 300.0


def pause_of(retry: Retry, failures: int) -> float:
    """Return the longest pause in seconds after `failures` failed attempts: doubled each time, up to max_backoff."""
    return float(min(retry.max_backoff, retry.backoff * 2 ** min(failures - 1, 60)))


def span_of(retry: Retry) -> float:
    """Return the minimum time in seconds from the first failure to the last attempt."""
    return SHORTEST_PAUSE * sum(pause_of(retry, failures) for failures in range(1, retry.attempts))


class EventSource(Protocol):
    """The part of a wire or ingest that a handler needs."""

    @property
    def id(self) -> str: ...
    @property
    def plug(self) -> Plug | None: ...
    @property
    def envelope(self) -> str | None: ...


class Handler(Flow):
    """A function that processes events. Call it with an event to run the function, for example in tests.

    types: patterns of event types (`invoice.paid`, `invoice.*`, `*`). ordered_by: location of the ordering key; events with
    the same key are processed one after another.
    """

    def __init__(
        self,
        function: HandlerFunction,
        wire: EventSource,
        kind: Literal["catch", "pass", "ingest"],
        types: tuple[str, ...],
        *,
        to: Plug | None = None,
        model: Any = None,
        retry: Retry = DEFAULT_RETRY,
        timeout: float | None = DEFAULT_TIMEOUT,
        ordered_by: Rule | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            name = getattr(function, "__name__", repr(function))
            raise ConfigError(f"Handler {name!r} is not an async function", hint="Declare it with async def …(event).")
        self.handler, self.wire, self.types = function, wire, types or ("*",)
        self.retry, self.ordered_by, self.model = retry, ordered_by, model
        self.adapter: TypeAdapter[Any] | None = None if model is None else TypeAdapter(model)
        super().__init__(self._run, kind, wire.plug, to=to, timeout=timeout, hooks=hooks)
        self.function_name = function.__name__
        self.module, self.doc = function.__module__, inspect.getdoc(function) or ""

    @property
    def name(self) -> str:
        """The handler's name in runs, commands and tables: `<wire>.<function>`."""
        return f"{self.wire.id}.{self.function_name}"

    @name.setter
    def name(self, value: str) -> None:
        """Ignored: the name always comes from the function."""

    def takes(self, event_type: str) -> bool:
        return any(fnmatchcase(event_type, pattern) for pattern in self.types)

    def order_key(self, request: WebhookRequest) -> str | None:
        """Return the event's ordering key, or None if the event has none. Events without a key are not ordered."""
        if self.ordered_by is None:
            return None
        try:
            key = self.ordered_by.find(request)
        except ValueError:
            return None
        return None if key is None else f"{self.name}|{key}"

    async def _run(self, ctx: FlowContext) -> RunResult | None:
        result = await self.handler(self.event_of(ctx))
        return result if isinstance(result, RunResult) else None

    def event_of(self, ctx: FlowContext) -> Event[Any]:
        """Return the context's event. Raises FlowError if there is none."""
        if not isinstance(ctx.event, Event):
            raise FlowError(
                f"Handler {self.name} can only be run by an event", hint="Use khotan wire send or khotan wire replay."
            )
        return ctx.event

    def __call__(self, event: Any) -> Awaitable[Any]:
        return self.handler(event)

    def __repr__(self) -> str:
        return f"<Handler {self.name} ({self.kind} {', '.join(self.types)})>"
