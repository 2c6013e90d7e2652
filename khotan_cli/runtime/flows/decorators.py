"""`@inflow`, `@outflow`, `@relay` and `@step`: how a user declares flows and their steps, with the types of their functions."""

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
    for given in (plug, *([] if to is None else [to])):
        if not isinstance(given, Plug):
            raise ConfigError(
                f"@{kind} needs a plug, not {type(given).__name__}", hint=f"Import the plug and write @{kind}(shop)."
            )
    if schedule is not None and variants:
        raise ConfigError(
            f"@{kind} has a schedule and variants",
            hint='Give the schedule to a variant: {"full": Variant(schedule=…)}.',
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
    """Declare a flow that brings records of a service into the application.

    resource: name of a Resource; its mappings are then kept by `ctx.sync` and `ctx.push`. schedule: of the flow's one
    variant; several modes are `variants`. Raises ConfigError where the declaration cannot hold.
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
    """Declare a flow that sends records of the application to a service. Options as for `inflow`."""
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
    """Declare a step: `async def load(ctx, …) -> JSON, or a Pydantic model`.

    attempts: how often it is tried in all where it raises. backoff: seconds before the second try, doubled each time up to
    max_backoff, with full jitter. timeout: seconds for one try. A step is at-least-once: what it does outside of `ctx` may
    be done again after a crash. Raises ConfigError for options that cannot hold.
    """
    if attempts < 1 or backoff < 0 or max_backoff < 0 or (timeout is not None and timeout <= 0):
        raise ConfigError("@step needs attempts of 1 or more, and times above 0")
    retry = Retry(attempts=attempts, backoff=backoff, max_backoff=max_backoff)

    def decorate(function: Callable[Concatenate[FlowContext, P], Awaitable[R]]) -> Step[P, R]:
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(f"Step {function.__name__!r} is not an async function", hint="Declare it: async def …")
        return Step(function, retry, timeout)

    return decorate
