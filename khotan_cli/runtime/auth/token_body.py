"""Bodies of token requests: JSON values with variables, validated when they are declared."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from khotan_cli.runtime.auth.schemes import shown
from khotan_cli.runtime.content.codec import Encoding
from khotan_cli.runtime.http.call_context import CallContext
from khotan_cli.runtime.http.variables import Var

_SECRET_NAME = re.compile(r"pass|secret|pwd|pin$|token|key|assertion|credential|signature|code$", re.IGNORECASE)


def check_body(option: str, body: Any, encoding: Encoding) -> None:
    """Raises ValueError, naming the member and the rule, for a body that cannot be sent in the encoding.

    JSON takes text, Var, true, false, finite numbers, None, lists and mappings with text keys. A form takes a mapping
    of the same values without None.
    """
    if encoding not in ("json", "form"):
        raise ValueError(f"encoding={encoding!r} is not supported. Use 'json' or 'form'.")
    if not isinstance(body, Mapping) and (encoding == "form" or not isinstance(body, (list, tuple))):
        raise ValueError(f"{option} is {type(body).__name__}, not a mapping. Pass a mapping of names to values.")
    for path, value in _leaves(body, option):
        problem = _problem(value, encoding)
        if problem:
            raise ValueError(f"{path} {problem}")


def check_statuses(renew_on: Collection[int]) -> frozenset[int]:
    """The statuses of `renew_on`. Raises ValueError for a value that is not an error status (400 to 599)."""
    if not isinstance(renew_on, Collection) or isinstance(renew_on, (str, bytes)):
        raise ValueError(
            f"renew_on={renew_on!r} is not a collection of statuses. Use renew_on=(401, 403), for example."
        )
    for status in renew_on:
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(f"renew_on: {status!r} is not an error status. Use numbers from 400 to 599.")
    return frozenset(renew_on)


def filled(ctx: CallContext, body: Any, extra: Mapping[str, str]) -> Any:
    """The body with its variables replaced by their values, and `{name}` in texts by the values of `extra`."""
    if isinstance(body, (str, Var)):
        text = ctx.value(body)
        for name, value in extra.items():
            text = text.replace("{" + name + "}", value)
        return text
    if isinstance(body, Mapping):
        return {name: filled(ctx, value, extra) for name, value in body.items()}
    return [filled(ctx, value, extra) for value in body] if isinstance(body, (list, tuple)) else body


def described(body: Any) -> Any:
    """The body's shape, with names of variables and a placeholder for literals."""
    if isinstance(body, Mapping):
        return {name: described(value) for name, value in body.items()}
    return [described(value) for value in body] if isinstance(body, (list, tuple)) else shown(body)


def literal_secrets(body: Any) -> list[str]:
    """Literal texts of the declaration under a name such as `password`."""
    return [
        value
        for path, value in _leaves(body, "")
        if isinstance(value, str) and _SECRET_NAME.search(re.sub(r"\[\d+\]$", "", path).rpartition(".")[2])
    ]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{path}: the name {name!r} is {type(name).__name__}, not text. Use text for names.")
            yield from _leaves(item, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _problem(value: Any, encoding: Encoding) -> str:
    if isinstance(value, str):
        lone = any("\ud800" <= char <= "\udfff" for char in value)
        return "contains a lone surrogate, which UTF-8 cannot encode. Correct the text." if lone else ""
    if isinstance(value, (Var, bool)):
        return ""
    if value is None:
        return "is None, but forms have no null value. Omit it, or use ''." if encoding == "form" else ""
    if isinstance(value, (int, float)):
        return (
            "" if math.isfinite(value) else f"is {value}, which JSON and forms cannot represent. Use a finite number."
        )
    return (
        f"is of type {type(value).__name__}. Use text, a Var, a boolean, a number, a list or a mapping with text names."
    )
