"""`@inflow`, `@outflow`, `@relay` and `@step`: typed declarations of flows and steps."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.flows.context import FlowContext
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.runs.definition import DEFAULT_VARIANT, Flow, FlowKind, RunResult, Step, Variant
from khotan_cli.runtime.runs.hooks import Hooks

P = ParamSpec("P")
R = TypeVar("R")

FlowFunction = Callable[[FlowContext], Awaitable[RunResult | None]]


def _declare(
    kind: FlowKind,
    plug: Plug,
    to: Plug | None,
    resource: str | None,
    variants: Mapping[str, Variant] | None,
    schedule: str | None,
    options: Mapping[str, Any],
) -> Callable[[FlowFunction], Flow]:
    for argument in (plug, *([] if to is None else [to])):
        if not isinstance(argument, Plug):
            raise ConfigError(
                f"@{kind} needs a plug, not {type(argument).__name__}",
                hint=f"Import the plug and write @{kind}(shop).",
            )
    if schedule is not None and variants:
        raise ConfigError(
            f"@{kind} has both schedule and variants",
            hint='Move the schedule to a variant: {"full": Variant(schedule=…)}.',
        )
    if schedule is not None:
        variants = {DEFAULT_VARIANT: Variant(schedule=schedule)}

    def decorate(function: FlowFunction) -> Flow:
        return Flow(function, kind, plug, to=to, resource=resource, variants=variants, **options)

    return decorate


def inflow(
    plug: Plug,
    *,
    resource: str | None = None,
    variants: Mapping[str, Variant] | None = None,
    schedule: str | None = None,
    concurrency: int = 1,
    timeout: float | None = None,
    hooks: Hooks | None = None,
) -> Callable[[FlowFunction], Flow]:
    """Declare a flow that reads records from a service into the application.

    resource: name of a Resource whose mappings `ctx.sync` and `ctx.push` maintain. schedule: cron schedule of the only
    variant. variants: several run modes by name. Raises ConfigError if the declaration is invalid.
    """
    options = {"concurrency": concurrency, "timeout": timeout, "hooks": hooks}
    return _declare("inflow", plug, None, resource, variants, schedule, options)


def outflow(
    plug: Plug,
    *,
    resource: str | None = None,
    variants: Mapping[str, Variant] | None = None,
    schedule: str | None = None,
    concurrency: int = 1,
    timeout: float | None = None,
    hooks: Hooks | None = None,
) -> Callable[[FlowFunction], Flow]:
    """Declare a flow that sends records from the application to a service. Options as for `inflow`."""
    options = {"concurrency": concurrency, "timeout": timeout, "hooks": hooks}
    return _declare("outflow", plug, None, resource, variants, schedule, options)


def relay(
    plug: Plug,
    *,
    to: Plug,
    resource: str | None = None,
    variants: Mapping[str, Variant] | None = None,
    schedule: str | None = None,
    concurrency: int = 1,
    timeout: float | None = None,
    hooks: Hooks | None = None,
) -> Callable[[FlowFunction], Flow]:
    """Declare a flow from one service to another. Options as for `inflow`."""
    options = {"concurrency": concurrency, "timeout": timeout, "hooks": hooks}
    return _declare("relay", plug, to, resource, variants, schedule, options)


def step(
    *, attempts: int = 1, backoff: float = 0.5, max_backoff: float = 30.0, timeout: float | None = None
) -> Callable[[Callable[Concatenate[FlowContext, P], Awaitable[R]]], Step[P, R]]:
    """Declare a step: `async def load(ctx, …)` that returns JSON or a Pydantic model.

    attempts: maximum number of attempts if it raises. backoff: seconds before the second attempt, doubled each time up to
    max_backoff, with full jitter. timeout: seconds for one attempt. A step runs at least once: effects outside `ctx` may be
    repeated after a crash. Raises ConfigError for invalid options.
    """
    if attempts < 1 or backoff < 0 or max_backoff < 0 or (timeout is not None and timeout <= 0):
        raise ConfigError("@step: attempts must be 1 or more, backoff 0 or more, and timeout above 0")
    retry = Retry(attempts=attempts, backoff=backoff, max_backoff=max_backoff)

    def decorate(function: Callable[Concatenate[FlowContext, P], Awaitable[R]]) -> Step[P, R]:
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(f"Step {function.__name__!r} is not an async function", hint="Declare it with async def.")
        return Step(function, retry, timeout)

    return decorate
