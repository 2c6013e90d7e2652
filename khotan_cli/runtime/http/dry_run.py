"""Holding back what would change something, while a dry run lasts.

Requests of unsafe methods (RFC 9110 9.2.1) are noted and not sent; what the caller gets in place of an answer raises as
soon as it is looked at. Reading pages is reading, whatever the method: many services search by POST.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from khotan_cli.errors import KhotanError

DRY_RUN_ID = "dry-run"
"""Id of a run that is dry, and of those that it would have started."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True)
class HeldRequest:
    """A request that was not sent. `target` is path and query, or an absolute URL.

    `body` is what would have been sent: JSON values, or the text of a form.
    """

    plug: str
    endpoint: str
    method: str
    target: str
    body: Any


class Holder(Protocol):
    """Notes what is held back."""

    def hold(self, request: HeldRequest) -> None: ...
    def wrote(self, table: str, counts: Mapping[str, int], records: Sequence[Any] = ()) -> None: ...


_holder: ContextVar[Holder | None] = ContextVar("khotan_holder", default=None)
_reading: ContextVar[bool] = ContextVar("khotan_reading", default=False)


class HeldAnswer:
    """Stands for the answer to a request that was not sent. Anything that looks into it raises `answer_held_back`."""

    __slots__ = ("_request",)

    def __init__(self, request: HeldRequest) -> None:
        object.__setattr__(self, "_request", request)

    def _needed(self, *_: Any) -> NoReturn:
        raise needed(self)

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = __contains__ = __call__ = _needed
    __eq__ = __str__ = __int__ = __float__ = _needed
    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return "<an answer that was not asked for>"


def needed(answer: HeldAnswer, where: str = "here") -> KhotanError:
    """The error that stops a dry run where it needs an answer."""
    request: HeldRequest = object.__getattribute__(answer, "_request")
    name = f"{request.plug}.{request.endpoint}" if request.endpoint else f"{request.plug} {request.method}"
    return KhotanError(
        f"The answer of {name} is needed {where}, and a dry run sends nothing that changes something",
        code="answer_held_back",
        hint="What comes after this point is known only after a real run.",
        details={"plug": request.plug, "endpoint": request.endpoint, "method": request.method},
    )


@contextmanager
def holding(holder: Holder) -> Iterator[None]:
    """While it lasts, in this task and those it starts, unsafe requests of every plug are held back."""
    token = _holder.set(holder)
    try:
        yield
    finally:
        _holder.reset(token)


@contextmanager
def reading() -> Iterator[None]:
    """Requests made inside only read."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


def held(plug: str, endpoint: str, method: str, target: str, body: Callable[[], Any]) -> Any:
    """Where a dry run lasts and the request would change something: noted, and what stands for its answer; else None."""
    holder = _holder.get()
    if holder is None or method in SAFE_METHODS or _reading.get():
        return None
    request = HeldRequest(plug, endpoint, method, target, body())
    holder.hold(request)
    return HeldAnswer(request)


def holds() -> bool:
    """Whether a dry run lasts."""
    return _holder.get() is not None


def noted(table: str, counts: Mapping[str, int], records: Sequence[Any] = ()) -> bool:
    """Whether a dry run lasts; it is told then what would have been written: counts by kind, and records for a sample."""
    holder = _holder.get()
    if holder is not None:
        holder.wrote(table, counts, records)
    return holder is not None
