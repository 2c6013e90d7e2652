"""What a user declares: flows with their variants, and steps. Names no context: `decorators.py` types the functions."""

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
    """What a flow may return: a message for people, and counts to add to those that sync and push made themselves.

    A `failed` above 0 makes the run partial.
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
"""A flow's function, of its context."""


@dataclass(frozen=True)
class Variant:
    """A named run mode of a flow. Raises ConfigError for a schedule that is none, where it is declared.

    schedule: five fields of cron, in `timezone` (an IANA name). overlap: start a due run though one of this variant is still
    waiting or running; else it is skipped. One of another variant never stands in the way: they queue. hooks: called besides
    the flow's and the app's.
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
    """A declared flow. Calling it with a context runs its function, as the engine does; in tests, say.

    concurrency: runs of this flow at a time, over all processes. timeout: seconds that one execution may take; a resume
    after a crash starts the count anew.
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
            raise ConfigError(f"Flow {self.name!r} is not an async function", hint="Declare it: async def …")
        if self.concurrency < 1:
            raise ConfigError(f"Flow {self.name!r} has a concurrency below 1", hint="1 or more.")
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigError(
                f"Flow {self.name!r} has a timeout of 0 or less", hint="In seconds, or None for no bound."
            )
        for name in self.variants:
            if not name or not name.replace("-", "_").isidentifier():
                raise ConfigError(
                    f"{name!r} is no name for a variant of flow {self.name!r}", hint="Like delta, or full."
                )

    def variant(self, name: str | None) -> str:
        """The variant of that name; without one the first that is declared. Raises UnknownName with the nearest."""
        if name is None:
            return next(iter(self.variants))
        if name not in self.variants:
            raise UnknownName("variant", name, self.variants, where=f"flow {self.name!r}")
        return name

    @property
    def plug(self) -> Plug:
        """The flow's plug. Raises FlowError for an ingest, which may have none."""
        if self._plug is None:
            raise FlowError(f"{self.name} has no plug", hint="Name the plug: ctx.plugs[…], ctx.vars(…).")
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
    """What runs a step, or takes its kept result: the context of a run."""

    async def run_step(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


class Step(Generic[P, R]):
    """A function of a flow whose result is kept: a resumed run takes the result and does not call it again."""

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
        """The annotated type of the result, `Any` where none is given: what a kept result is read as."""
        function = inspect.unwrap(self.function)
        module = sys.modules.get(function.__module__)
        declared = function.__annotations__.get("return", Any)
        if isinstance(declared, str):
            try:
                declared = eval(declared, vars(module) if module else {})  # noqa: S307 - the user's own annotation
            except Exception:  # a name that only a type checker sees
                declared = Any
        return declared
