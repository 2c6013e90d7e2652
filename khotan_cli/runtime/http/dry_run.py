"""Suppresses requests that would change something during a dry run.

Requests with unsafe methods (RFC 9110 9.2.1) are recorded and not sent. The caller gets a placeholder instead of a
response, which raises when it is used. Page requests are always sent: many services search by POST.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from khotan_cli.errors import KhotanError

DRY_RUN_ID = "dry-run"
"""Id of a dry run, and of the runs that it would have started."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True)
class SuppressedRequest:
    """A request that was not sent. `target` is path and query, or an absolute URL.

    `body` is the unsent body: JSON values, or the text of a form.
    """

    plug: str
    endpoint: str
    method: str
    target: str
    body: Any


class DryRunRecorder(Protocol):
    """Records suppressed requests and writes."""

    def add_request(self, request: SuppressedRequest) -> None: ...
    def wrote(self, table: str, counts: Mapping[str, int], records: Sequence[Any] = ()) -> None: ...


_recorder: ContextVar[DryRunRecorder | None] = ContextVar("khotan_dry_run_recorder", default=None)
_read_only: ContextVar[bool] = ContextVar("khotan_read_only", default=False)


class MissingResponse:
    """Placeholder for the response to a suppressed request. Any use of it raises KhotanError (answer_held_back)."""

    __slots__ = ("_request",)

    def __init__(self, request: SuppressedRequest) -> None:
        object.__setattr__(self, "_request", request)

    def _raise(self, *_: Any) -> NoReturn:
        raise missing_response_error(self)

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = __contains__ = __call__ = _raise
    __eq__ = __str__ = __int__ = __float__ = _raise
    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return "<response to a suppressed request>"


def missing_response_error(response: MissingResponse, where: str = "here") -> KhotanError:
    """The error that stops a dry run that needs the response to a suppressed request."""
    request: SuppressedRequest = object.__getattribute__(response, "_request")
    name = f"{request.plug}.{request.endpoint}" if request.endpoint else f"{request.plug} {request.method}"
    return KhotanError(
        f"The response of {name} is needed {where}, but a dry run does not send this request",
        code="answer_held_back",
        hint="A dry run cannot show the steps after this point; only a real run can.",
        details={"plug": request.plug, "endpoint": request.endpoint, "method": request.method},
    )


@contextmanager
def suppressing(recorder: DryRunRecorder) -> Iterator[None]:
    """Suppresses unsafe requests of every plug during the block, in this task and the tasks it starts."""
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)


@contextmanager
def read_only() -> Iterator[None]:
    """Marks the requests of the block as reads, whatever their method, so that a dry run sends them."""
    token = _read_only.set(True)
    try:
        yield
    finally:
        _read_only.reset(token)


def suppress(plug: str, endpoint: str, method: str, target: str, body: Callable[[], Any]) -> Any:
    """Record an unsafe request during a dry run and return its MissingResponse. Returns None if it must be sent."""
    recorder = _recorder.get()
    if recorder is None or method in SAFE_METHODS or _read_only.get():
        return None
    request = SuppressedRequest(plug, endpoint, method, target, body())
    recorder.add_request(request)
    return MissingResponse(request)


def is_dry_run() -> bool:
    """Whether the current task belongs to a dry run."""
    return _recorder.get() is not None


def report_write(table: str, counts: Mapping[str, int], records: Sequence[Any] = ()) -> bool:
    """Record a suppressed write during a dry run: counts by kind, and sample records. Returns whether it is a dry run."""
    recorder = _recorder.get()
    if recorder is not None:
        recorder.wrote(table, counts, records)
    return recorder is not None
