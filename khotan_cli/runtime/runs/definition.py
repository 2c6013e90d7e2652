"""Declarations: flows with variants, and steps. Independent of FlowContext; flows/decorators.py types the functions."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar

from khotan_cli.errors import ConfigError, FlowError, UnknownName
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.runs.hooks import Hooks
from khotan_cli.runtime.runs.schedule import Schedule

P = ParamSpec("P")
R = TypeVar("R")

FlowKind = Literal["inflow", "outflow", "relay", "catch", "pass", "ingest"]
DEFAULT_VARIANT = "default"
COUNTERS = ("extracted", "transformed", "created", "updated", "deleted", "skipped", "failed")


@dataclass(frozen=True)
class RunResult:
    """The optional return value of a flow: a message, and counts that are added to those of sync and push.

    A `failed` count above 0 makes the run partial.
    """

    message: str = ""
    extracted: int = 0
    transformed: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    skipped: int = 0
    failed: int = 0

    @property
    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in COUNTERS if getattr(self, name)}


FlowFunction = Callable[[Any], Awaitable[RunResult | None]]
"""A flow's function. Its argument is the FlowContext."""


@dataclass(frozen=True)
class Variant:
    """A named run mode of a flow. Raises ConfigError for an invalid schedule.

    schedule: five cron fields, in `timezone` (an IANA name). overlap: start a due run even if a run of this variant is
    pending or running; otherwise it is skipped. Runs of other variants do not matter: they queue. hooks: called in addition
    to the flow's and the app's hooks.
    """

    schedule: str | None = None
    timezone: str = "UTC"
    overlap: bool = False
    hooks: Hooks = field(default_factory=Hooks)

    def __post_init__(self) -> None:
        _ = self.due

    @functools.cached_property
    def due(self) -> Schedule | None:
        return None if self.schedule is None else Schedule(self.schedule, self.timezone)


class Flow:
    """A declared flow. Call it with a context to run its function, for example in tests.

    concurrency: maximum number of concurrent runs of this flow, over all processes. timeout: maximum seconds for one
    execution; a resumed run gets the full time again.
    """

    def __init__(
        self,
        function: FlowFunction,
        kind: FlowKind,
        plug: Plug | None,
        *,
        to: Plug | None = None,
        resource: str | None = None,
        variants: Mapping[str, Variant] | None = None,
        concurrency: int = 1,
        timeout: float | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.function, self.kind, self._plug, self.to = function, kind, plug, to
        self.name = function.__name__
        self.module = function.__module__
        self.doc = inspect.getdoc(function) or ""
        self.resource = resource
        self.variants = dict(variants or {DEFAULT_VARIANT: Variant()})
        self.concurrency, self.timeout, self.hooks = concurrency, timeout, hooks or Hooks()
        self._check()

    def _check(self) -> None:
        if not inspect.iscoroutinefunction(self.function):
            raise ConfigError(f"Flow {self.name!r} is not an async function", hint="Declare it with async def.")
        if self.concurrency < 1:
            raise ConfigError(
                f"Flow {self.name!r}: invalid concurrency {self.concurrency}", hint="Use a number of 1 or more."
            )
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigError(
                f"Flow {self.name!r}: invalid timeout {self.timeout}",
                hint="Use seconds above 0, or None for no limit.",
            )
        for name in self.variants:
            if not name or not name.replace("-", "_").isidentifier():
                raise ConfigError(
                    f"Invalid variant name {name!r} of flow {self.name!r}",
                    hint="Use letters, digits, - and _, for example delta.",
                )

    def variant(self, name: str | None) -> str:
        """Return the variant's name; None selects the first declared variant. Raises UnknownName with the nearest name."""
        if name is None:
            return next(iter(self.variants))
        if name not in self.variants:
            raise UnknownName("variant", name, self.variants, where=f"flow {self.name!r}")
        return name

    @property
    def plug(self) -> Plug:
        """The flow's plug. Raises FlowError for an ingest without a plug."""
        if self._plug is None:
            raise FlowError(f"{self.name} has no plug", hint="Name the plug, as in ctx.plugs[…] or ctx.vars(…).")
        return self._plug

    @property
    def plugs(self) -> tuple[Plug, ...]:
        """The plugs that the flow is declared with."""
        return tuple(plug for plug in (self._plug, self.to) if plug is not None)

    def __call__(self, ctx: Any) -> Awaitable[RunResult | None]:
        return self.function(ctx)

    def __repr__(self) -> str:
        return f"<Flow {self.name} ({self.kind})>"


class StepRunner(Protocol):
    """Runs a step or returns its stored result. Implemented by the context of a run."""

    async def run_step(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


class Step(Generic[P, R]):
    """A function of a flow whose result is stored: a resumed run uses the result and does not call the function again."""

    def __init__(
        self, function: Callable[Concatenate[Any, P], Awaitable[R]], retry: Retry, timeout: float | None
    ) -> None:
        functools.update_wrapper(self, function)
        self.function, self.retry, self.timeout = function, retry, timeout
        self.name = function.__name__

    async def __call__(self, ctx: StepRunner, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = await ctx.run_step(self, args, kwargs)
        return result

    @functools.cached_property
    def returns(self) -> Any:
        """The annotated return type, or Any: the type that a stored result is decoded to."""
        function = inspect.unwrap(self.function)
        module = sys.modules.get(function.__module__)
        declared = function.__annotations__.get("return", Any)
        if isinstance(declared, str):
            try:
                declared = eval(declared, vars(module) if module else {})  # noqa: S307 - the user's own annotation
            except Exception:  # a name that exists only for type checkers
                declared = Any
        return declared
