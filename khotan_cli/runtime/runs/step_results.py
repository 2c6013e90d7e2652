"""The result of one attempt of a step: a stored value or an exception."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from khotan_cli.errors import FlowError, KhotanError
from khotan_cli.runtime.runs.definition import Step

R = TypeVar("R")


def decode_result(step: Step[Any, R], result: Any) -> R:
    """Decode a stored result to the step's return type. Raises FlowError if it no longer matches."""
    try:
        restored: R = TypeAdapter(step.returns).validate_python(result)
    except ValidationError:
        raise FlowError(
            f"The stored result of step {step.name!r} does not match the step's return type",
            hint="The annotation was changed while the run was pending. Start a new run of the flow.",
            code="step_failed",
        ) from None
    return restored


_MISTAKES = (TypeError, AttributeError, NameError, ImportError, SyntaxError, NotImplementedError)
"""Exceptions that Python raises for programming errors."""


def is_permanent(exc: Exception) -> bool:
    """Whether a retry cannot succeed."""
    return isinstance(exc, _MISTAKES) or (isinstance(exc, KhotanError) and exc.http_status in (404, 409, 422))


def with_step_timeout(name: str, exc: Exception, timeout: float | None) -> Exception:
    """Return the step's exception. A TimeoutError becomes a FlowError that names the step and its timeout."""
    if isinstance(exc, TimeoutError) and timeout is not None:
        return FlowError(
            f"Step {name!r} took longer than {timeout:g} s",
            code="flow_timeout",
            hint="Raise timeout=…, or do less in the step.",
        )
    return exc
