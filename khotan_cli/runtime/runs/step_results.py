"""What comes of one try of a step: its result as it was kept, or an exception."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from khotan_cli.errors import FlowError, KhotanError
from khotan_cli.runtime.runs.definition import Step

R = TypeVar("R")


def decode_result(step: Step[Any, R], result: Any) -> R:
    """The kept result as the step returns it. Raises FlowError where it is that no more."""
    try:
        restored: R = TypeAdapter(step.returns).validate_python(result)
    except ValidationError:
        raise FlowError(
            f"The kept result of step {step.name!r} is not what the step returns now",
            hint="Its annotation was changed while the run was pending: run the flow afresh.",
            code="step_failed",
        ) from None
    return restored


_MISTAKES = (TypeError, AttributeError, NameError, ImportError, SyntaxError, NotImplementedError)
"""What Python raises for code that is wrong, whatever the data."""


def is_permanent(exc: Exception) -> bool:
    """Whether another try must end the same way."""
    return isinstance(exc, _MISTAKES) or (isinstance(exc, KhotanError) and exc.http_status in (404, 409, 422))


def with_step_timeout(name: str, exc: Exception, timeout: float | None) -> Exception:
    """What a step raised; a timeout of its own says which."""
    if isinstance(exc, TimeoutError) and timeout is not None:
        return FlowError(
            f"Step {name!r} took longer than {timeout:g} s",
            code="flow_timeout",
            hint="Raise timeout=…, or do less in it.",
        )
    return exc
