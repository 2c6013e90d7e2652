"""Declared values without parts, judged by Pydantic's validators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Literal

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaValidator, ValidationError, to_json

from khotan_cli.runtime.contract.rules import is_bound, rule_words
from khotan_cli.runtime.contract.tables import compiled

Issue = Literal[
    "missing",
    "extra",
    "type_mismatch",
    "format",
    "enum",
    "constraint",
    "dropped",
    "null",
    "empty",
    "unjudged",
    "paging",
]
Grade = Literal["breaking", "warning", "info"]

TRANSLATING = frozenset({"function-before", "function-wrap"})
"""Validators that may change a value before the declared type reads it."""
KINDS = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_NUMBERS = frozenset({"integer", "number"})
_REMEMBERED = 4096
_PLAIN: Mapping[str, tuple[type[Any], ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}
_PLAIN_KEYS = frozenset({"type", "metadata", "ref", "serialization", "strict"})
_DEMANDING = ("str_", "allow_inf_nan", "regex_engine")
"""Model config that can make a plain string or number invalid."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A fault of a value. `rule`: the broken rule, "" if the declared type describes it."""

    issue: Issue
    grade: Grade
    rule: str = ""


def kind_of(value: Any) -> str:
    """JSON type of a value: null, boolean, integer, number, string, array, object."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def as_json(value: Any) -> bytes:
    """A value as JSON, with NaN and infinite numbers in the form that Pydantic's parser accepts."""
    return to_json(value, inf_nan_mode="constants")


def _hides(core: Any) -> bool:
    """Whether a core schema contains one of Pydantic's secret types, recognised by its serializer."""
    if not isinstance(core, Mapping):
        return any(_hides(inner) for inner in core) if isinstance(core, (list, tuple)) else False
    return hides_itself(core) or any(_hides(inner) for name, inner in core.items() if name != "metadata")


def hides_itself(core: Mapping[str, Any]) -> bool:
    """Whether a core schema itself is one of Pydantic's secret types."""
    written = core.get("serialization")
    function = written.get("function") if isinstance(written, Mapping) else None
    return getattr(function, "__module__", "") == "pydantic.types" and "secret" in getattr(function, "__name__", "")


class Leaf:
    """A declared scalar, or a type whose inside only its validator knows."""

    __slots__ = ("__dict__", "_accepted", "_config", "_core", "_definitions", "anything", "plain")

    def __init__(self, core: Mapping[str, Any], config: Mapping[str, Any], definitions: Mapping[str, Any]) -> None:
        self._core, self._config, self._definitions = core, config, definitions
        simple = core.keys() <= _PLAIN_KEYS and not any(key.startswith(_DEMANDING) for key in config)
        self.plain = _PLAIN.get(core["type"], ()) if simple else ()
        self.anything = core["type"] == "any" or (
            core["type"] == "json-or-python" and core["json_schema"]["type"] == "any"
        )
        self._accepted: set[Any] = set()

    def accepts(self, value: Any) -> bool | None:
        """Whether Pydantic accepts the value in lax mode. None if a validator needs more than the value."""
        try:
            self._validator.validate_json(as_json(value))
        except ValidationError:
            return False
        except Exception:  # a user's validator that reads other fields, or raises another exception
            return None
        return True

    def changed(self, value: Any) -> bool:
        """Whether an accepted value is valid only because a validator changed it before the declared type read it."""
        inner = self._before
        return inner is not None and inner.accepts(value) is False

    @cached_property
    def _before(self) -> Leaf | None:
        """The type inside the outermost validator that may change a value before the type reads it."""
        core = self._core
        while isinstance(inner := core.get("schema"), Mapping):
            if core["type"] in TRANSLATING:
                return Leaf(inner, self._config, self._definitions)
            core = inner
        return None

    def broken(self, value: Any) -> str:
        """The rule that a rejected value breaks, described without the value; "" for a user's own rule."""
        return next((words for error in self._errors(value) if (words := rule_words(error))), "")

    def locations(self, value: Any) -> list[tuple[tuple[int | str, ...], bool]]:
        """The locations of Pydantic's errors in a value, and whether each is a missing value."""
        return [(error["loc"], error["type"] == "missing") for error in self._errors(value)]

    def _errors(self, value: Any) -> list[Any]:
        try:
            self._validator.validate_json(as_json(value))
        except ValidationError as exc:
            return list(exc.errors(include_url=False, include_input=False))
        except Exception:  # another exception of a user's validator
            return []
        return []

    def judge(self, value: Any) -> Verdict | None:
        """The fault of the value; None if it is valid."""
        if self.anything or (type(value) in self.plain):
            return None
        key = (type(value), value) if isinstance(value, (str, int, float)) else None
        if key is not None and key in self._accepted:
            return None
        verdict = self._judge(value)
        if verdict is None and key is not None and len(self._accepted) < _REMEMBERED:
            self._accepted.add(key)
        return verdict

    def _judge(self, value: Any) -> Verdict | None:
        raw = as_json(value)
        try:
            self._validator.validate_json(raw, strict=True)
        except ValidationError:
            return self._judge_lax(value, raw)
        except Exception:  # as above: the validation of the whole document decides
            return None
        return self._odd(value)

    def _odd(self, value: Any) -> Verdict | None:
        """What even strict validation lets through, and is not what is declared."""
        if isinstance(value, bool) and "boolean" not in self.kinds and self.kinds < KINDS:
            return Verdict("type_mismatch", "warning")  # True == 1, so Literal[1] takes it
        if kind_of(value) in _NUMBERS and "boolean" in self.kinds and not self.kinds & _NUMBERS:
            return Verdict("type_mismatch", "warning")  # and Literal[True] takes 1
        if isinstance(value, str) and self.format in ("date-time", "date") and "-" not in value[1:]:
            return Verdict("format", "warning")  # Unix time in a string
        return None

    def _judge_lax(self, value: Any, raw: bytes) -> Verdict | None:
        kind = kind_of(value)
        fits = kind in self.kinds or (kind == "integer" and "number" in self.kinds)
        try:
            self._validator.validate_json(raw)
        except ValidationError as exc:
            error = exc.errors(include_url=False, include_input=False)[0]
            return Verdict(self._issue(error["type"], value, fits), "breaking", rule_words(error))
        except Exception:  # as above
            return None
        if isinstance(value, float) and value.is_integer() and "integer" in self.kinds:
            return None  # JSON has one type of number: 1.0 is an integer (JSON Schema 2020-12, 6.1.1)
        if fits and kind == "string" and self.kinds < KINDS:
            return Verdict("format" if self.format else "constraint", "warning")
        return None if fits else Verdict("type_mismatch", "warning")

    def _issue(self, error: str, value: Any, fits: bool) -> Issue:
        if error in ("literal_error", "enum"):
            return "enum" if fits else "type_mismatch"
        if not fits or value is None:
            return "type_mismatch"
        if is_bound(error):
            return "constraint"
        if isinstance(value, str) and self.format:
            return "format"
        unread = error.endswith(("_parsing", "_type")) or error.startswith(("uuid_", "url_", "json_"))
        return "format" if unread and isinstance(value, str) else "constraint"

    @cached_property
    def _validator(self) -> SchemaValidator:
        core: Any = self._core
        if self._definitions and _refers(core):
            core = {"type": "definitions", "schema": core, "definitions": list(self._definitions.values())}
        config: Any = self._config
        return compiled(core, config or None)

    @cached_property
    def _schema(self) -> Mapping[str, Any]:
        core: Any = self._core
        try:
            return GenerateJsonSchema(by_alias=True).generate(core, mode="validation")
        except Exception:  # types without a JSON schema, and users' own hooks for it: described by their kind
            return {}

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The JSON types it takes when strict; all of them where the type does not say."""
        return frozenset(_kinds(self._schema)) or KINDS

    @cached_property
    def format(self) -> str:
        """Format of a string: date-time, uuid, uri, …; "" where it has none."""
        found = next((one["format"] for one in _members(self._schema) if one.get("format")), "")
        if not found and self._core["type"] == "decimal":
            return "decimal"
        return str(found)

    @cached_property
    def secret(self) -> bool:
        """Whether the type says that its values are not to be shown (SecretStr, SecretBytes, Secret[…])."""
        return self.format == "password" or _hides(self._core)

    @property
    def literals(self) -> list[Any]:
        """The strings, numbers and booleans of a Literal type; none of another type."""
        expected = self._core.get("expected", ()) if self._core["type"] == "literal" else ()
        plain = (value.value if isinstance(value, Enum) else value for value in expected)
        return [value for value in plain if isinstance(value, (str, int))]

    @cached_property
    def label(self) -> str:
        """The type in words."""
        if self._core["type"] == "decimal":
            return "decimal (number or string)"
        words = [_word(one) for one in _members(self._schema)]
        return " | ".join(dict.fromkeys(words)) or "any"


def _members(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    inner = schema.get("anyOf") or schema.get("oneOf")
    if inner:
        for one in inner:
            yield from _members(one)
    else:
        yield schema


def _kinds(schema: Mapping[str, Any]) -> Iterator[str]:
    for one in _members(schema):
        if "const" in one:
            yield kind_of(one["const"])
        elif "enum" in one:
            yield from (kind_of(value) for value in one["enum"])
        elif isinstance(one.get("type"), str):
            yield one["type"]
        else:
            yield from KINDS


def _word(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return literal_text(schema["const"])
    if "enum" in schema:
        return " | ".join(literal_text(value) for value in schema["enum"])
    kind = schema.get("type")
    if kind and schema.get("format"):
        return f"{kind} ({schema['format']})"
    return str(kind) if kind else "any"


def literal_text(value: Any) -> str:
    """A declared literal as text: `'card'`, `1`, `true`."""
    return repr(value) if isinstance(value, str) else to_json(value).decode()


def _refers(core: Any) -> bool:
    """Whether a schema mentions a definition."""
    if isinstance(core, Mapping):
        return core.get("type") == "definition-ref" or any(
            _refers(inner) for key, inner in core.items() if key != "metadata"
        )
    return isinstance(core, (list, tuple)) and any(_refers(inner) for inner in core)
