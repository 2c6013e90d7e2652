"""Value locators: where a value is in a request. A header, the query, a path placeholder, or the JSON or form body."""

from __future__ import annotations

import hashlib
import json as exact_json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.content.json_path import dig
from khotan_cli.runtime.webhooks.request import WebhookRequest

_LONGEST = 500
_PREFIX = 400


@dataclass(frozen=True)
class Rule:
    """The location of a value: `header`, `query`, `json` (dotted path: `data.id`, `items.0.type`), `form` or `path` (a
    placeholder in `below=`). Exactly one is set."""

    header: str | None = None
    query: str | None = None
    json: str | None = None
    form: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        locations = (self.header, self.query, self.json, self.form, self.path)
        if sum(value is not None for value in locations) != 1:
            raise ConfigError("A Rule needs exactly one of header=…, query=…, json=…, form=… and path=…")

    @property
    def of_json(self) -> bool:
        """Whether the rule reads the JSON body."""
        return self.json is not None

    @property
    def parts(self) -> tuple[Rule, ...]:
        """The rules that this rule consists of."""
        return (self,)

    def find(self, request: WebhookRequest) -> str | None:
        """Return the value as text, or None if it is absent. Raises ValueError if the rule reads JSON and the body is not."""
        value: Any
        if self.header is not None:
            value = request.headers.get(self.header)
        elif self.query is not None:
            value = request.query.get(self.query)
        elif self.path is not None:
            value = request.path.get(self.path)
        elif self.form is not None:
            value = next((text for name, text in request.form if name == self.form), None)
        else:
            assert self.json is not None
            value = dig(request.json, self.json)
            if isinstance(value, float):
                value = _as_written(request.content, self.json) or value
        if value is None or isinstance(value, (dict, list)) or value == "":
            return None
        text = ("true" if value else "false") if isinstance(value, bool) else str(value)
        return _storable(text)

    def __str__(self) -> str:
        kind, value = next((name, value) for name, value in vars(self).items() if value is not None)
        return f"{'the header' if kind == 'header' else kind} {value}"


@dataclass(frozen=True)
class Joined(Rule):
    """Several values joined with a separator: `issue.opened` from `entity` and `action`. Absent values are omitted."""

    rules: tuple[Rule, ...] = ()
    separator: str = "."

    def __post_init__(self) -> None:
        if len(self.rules) < 2:
            raise ConfigError("joined() needs at least two rules", hint='Use joined("entity", "action").')

    @property
    def of_json(self) -> bool:
        return any(rule.of_json for rule in self.rules)

    @property
    def parts(self) -> tuple[Rule, ...]:
        return self.rules

    def find(self, request: WebhookRequest) -> str | None:
        values = [rule.find(request) for rule in self.rules]
        return _storable(self.separator.join(value for value in values if value is not None)) or None

    def __str__(self) -> str:
        return " and ".join(str(rule) for rule in self.rules)


def joined(*rules: str | Rule, separator: str = ".") -> Joined:
    """Combine several rules: `Wire(…, event_type=joined("entity", "action"))`. A str is a dotted path in the JSON body.

    Raises ConfigError for fewer than two rules.
    """
    parts = tuple(Rule(json=rule) if isinstance(rule, str) else rule for rule in rules)
    return Joined(rules=parts, separator=separator)


def _as_written(body: bytes, path: str) -> Any:
    """Return a number as written in the body, or None: as floats, different large ids would be equal."""
    try:
        return dig(exact_json.loads(body, parse_int=str, parse_float=str), path)
    except (ValueError, RecursionError):
        return None


def _storable(text: str) -> str:
    """Shorten the text for an index and remove NUL, which PostgreSQL rejects. Different texts stay different."""
    if len(text) <= _LONGEST and "\x00" not in text:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{text[:_PREFIX].replace(chr(0), '')}~sha256:{digest}"


def rule_of(declared: str | Rule | Sequence[str | Rule] | None) -> Rule | None:
    """Convert a declaration to a Rule: a Rule, a dotted path in the JSON body, or a sequence of them, joined with dots."""
    if isinstance(declared, str):
        return Rule(json=declared)
    if declared is None or isinstance(declared, Rule):
        return declared
    return joined(*declared) if len(declared) != 1 else rule_of(declared[0])
