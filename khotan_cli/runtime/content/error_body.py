"""Successful responses that are errors: a 200 whose body reports a failure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from khotan_cli.runtime.content.json_path import Absence, NotAContainer, Path, dig, path_keys, path_text, value_at

_MESSAGES = ("message", "error_description", "error_message", "msg", "detail", "info", "title", "description")
_CODES = ("code", "error_code", "errcode", "error", "type")


class _Truthy:
    def __repr__(self) -> str:
        return "…"


TRUTHY: Any = _Truthy()


@dataclass(frozen=True)
class ServiceError:
    """The service's own error code and message; each is None if the service sends none."""

    code: str | None
    message: str | None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.code, self.message) if part) or "no reason given"


@dataclass(frozen=True)
class ErrorBody:
    """Declares which successful responses are errors, and where the service's own code and message are.

        ErrorBody(when="errors", message="errors.0.message")      GraphQL: {"data": null, "errors": [{"message": …}]}
        ErrorBody(unless="ok", message="error")                   Slack: {"ok": false, "error": "ratelimited"}
        ErrorBody(unless="errcode", equals=0, message="errmsg")   {"errcode": 40001, "errmsg": …}
        ErrorBody(when="status", equals="error")                  JSend: {"status": "error", "message": …}
        ErrorBody(when=lambda body: "fault" in body)              a predicate of the decoded body

    when: path of a value that is set (not null, false, 0 or empty) only in an error; with `equals`, path of a value that
    has this value, or one of these values, only in an error. unless: path of a value that is set, or equals, only in a
    success; a JSON object without it is an error. code, message: paths; by default the usual members beside or in the
    value. A path matches only JSON objects. Raises ValueError for a contradictory declaration.
    """

    when: Path | Callable[[Any], bool] | None = None
    unless: Path | None = None
    equals: Any = TRUTHY
    code: Path | None = None
    message: Path | None = None

    def __post_init__(self) -> None:
        if (self.when is None) == (self.unless is None):
            raise ValueError("ErrorBody needs either when=… or unless=…")
        if callable(self.when) and self.equals is not TRUTHY:
            raise ValueError("ErrorBody: equals needs a path, not a function")
        for path in (self.when, self.unless, self.code, self.message):
            if path is not None and not callable(path):
                path_keys(path)

    def find(self, body: Any) -> ServiceError | None:
        """The service's error if the decoded body is one, else None."""
        if callable(self.when):
            return self._service_error(body, body) if self.when(body) else None
        if not isinstance(body, Mapping):
            return None
        path = self.when if self.when is not None else self.unless
        assert path is not None
        try:
            value = value_at(body, path)
        except NotAContainer:
            value = Absence.ABSENT
        if self._holds(value) == (self.when is not None):
            return self._service_error(body, None if isinstance(value, Absence) else value)
        return None

    def _holds(self, value: Any) -> bool:
        if isinstance(value, Absence):
            return False
        if self.equals is TRUTHY:
            return bool(value)
        many = isinstance(self.equals, Collection) and not isinstance(self.equals, (str, bytes, Mapping))
        return any(_same(value, wanted) for wanted in (self.equals if many else [self.equals]))

    def _service_error(self, body: Any, value: Any) -> ServiceError:
        near = value[0] if isinstance(value, list) and value else value
        code, message = self._text(body, self.code), self._text(body, self.message)
        if code is None and self.code is None:
            code = _first(near, _CODES) or _first(body, _CODES)
        if message is None and self.message is None:
            message = near if isinstance(near, str) and self.when is not None and self.equals is TRUTHY else None
            message = message or _first(near, _MESSAGES) or _first(body, _MESSAGES)
        if code == message:  # one member is both
            return ServiceError(None, message) if self.message is not None else ServiceError(code, None)
        return ServiceError(code, message)

    @staticmethod
    def _text(body: Any, path: Path | None) -> str | None:
        value = None if path is None else dig(body, path)
        return None if value is None else str(value)

    def __str__(self) -> str:
        path = self.when if self.when is not None else self.unless
        return "a function" if callable(path) else path_text(path or "")


def _same(value: Any, wanted: Any) -> bool:
    """JSON equality, in which true is not 1."""
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _first(value: Any, names: tuple[str, ...]) -> str | None:
    if not isinstance(value, Mapping):
        return None
    candidates = (value.get(name) for name in names)
    return next((str(item) for item in candidates if isinstance(item, (str, int)) and not isinstance(item, bool)), None)
