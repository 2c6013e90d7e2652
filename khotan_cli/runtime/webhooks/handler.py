"""Handlers of events: catches and passes. Each event is a run of its own for each handler it is for."""

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
"""Tries over a day or more: what an outage of a service may take."""
SHORTEST_PAUSE = 0.75
"""Part of a pause that is always waited; the rest is random, so that runs do not all come back at once."""
DEFAULT_TIMEOUT = 300.0


def pause_of(retry: Retry, failures: int) -> float:
    """Seconds of the longest pause after so many failed tries: doubled each time, up to max_backoff."""
    return float(min(retry.max_backoff, retry.backoff * 2 ** min(failures - 1, 60)))


def span_of(retry: Retry) -> float:
    """Seconds that the tries cover at least, from the first failure to the last try."""
    return SHORTEST_PAUSE * sum(pause_of(retry, failures) for failures in range(1, retry.attempts))


class EventSource(Protocol):
    """What a handler needs of the wire or ingest whose events it takes."""

    @property
    def id(self) -> str: ...
    @property
    def plug(self) -> Plug | None: ...
    @property
    def envelope(self) -> str | None: ...


class Handler(Flow):
    """A function of an event. Calling it with an event runs the function, as the engine does; in tests, say.

    types: patterns of event types (`invoice.paid`, `invoice.*`, `*`). ordered_by: where the event holds the key whose events
    are to be processed one after another.
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
            raise ConfigError(f"Handler {name!r} is not an async function", hint="Declare it: async def …(event)")
        self.handler, self.wire, self.types = function, wire, types or ("*",)
        self.retry, self.ordered_by, self.model = retry, ordered_by, model
        self.adapter: TypeAdapter[Any] | None = None if model is None else TypeAdapter(model)
        super().__init__(self._run, kind, wire.plug, to=to, timeout=timeout, hooks=hooks)
        self.function_name = function.__name__
        self.module, self.doc = function.__module__, inspect.getdoc(function) or ""

    @property
    def name(self) -> str:
        """`<wire>.<function>`: what runs, commands and tables call it."""
        return f"{self.wire.id}.{self.function_name}"

    @name.setter
    def name(self, value: str) -> None:
        """The name is that of the function."""

    def takes(self, event_type: str) -> bool:
        return any(fnmatchcase(event_type, pattern) for pattern in self.types)

    def order_key(self, request: WebhookRequest) -> str | None:
        """What the event is ordered by; None where it holds no such key: such an event waits for no other."""
        if self.ordered_by is None:
            return None
        try:
            found = self.ordered_by.find(request)
        except ValueError:
            return None
        return None if found is None else f"{self.name}|{found}"

    async def _run(self, ctx: FlowContext) -> RunResult | None:
        done = await self.handler(self.event_of(ctx))
        return done if isinstance(done, RunResult) else None

    def event_of(self, ctx: FlowContext) -> Event[Any]:
        """The event that a context is for. Raises FlowError where there is none."""
        if not isinstance(ctx.event, Event):
            raise FlowError(f"{self.name} is run by events, not by hand", hint="khotan wire send, or replay.")
        return ctx.event

    def __call__(self, event: Any) -> Awaitable[Any]:
        return self.handler(event)

    def __repr__(self) -> str:
        return f"<Handler {self.name} ({self.kind} {', '.join(self.types)})>"
