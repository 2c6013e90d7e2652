"""Where something is in a request: a header, the query, the path below the wire's, or the JSON or form body."""

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
    """One of `header`, `query`, `json` (dotted path: `data.id`, `items.0.type`), `form`, and `path` (a name in `below=`)."""

    header: str | None = None
    query: str | None = None
    json: str | None = None
    form: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        places = (self.header, self.query, self.json, self.form, self.path)
        if sum(value is not None for value in places) != 1:
            raise ConfigError("A rule names one place: header=…, query=…, json=…, form=… or path=…")

    @property
    def of_json(self) -> bool:
        """Whether it needs a JSON body."""
        return self.json is not None

    @property
    def parts(self) -> tuple[Rule, ...]:
        """The rules it consists of: itself."""
        return (self,)

    def find(self, request: WebhookRequest) -> str | None:
        """The value as text, None where it is absent. Raises ValueError where the body is not JSON and the rule needs it."""
        found: Any
        if self.header is not None:
            found = request.headers.get(self.header)
        elif self.query is not None:
            found = request.query.get(self.query)
        elif self.path is not None:
            found = request.path.get(self.path)
        elif self.form is not None:
            found = next((value for name, value in request.form if name == self.form), None)
        else:
            assert self.json is not None
            found = dig(request.json, self.json)
            if isinstance(found, float):
                found = _as_written(request.content, self.json) or found
        if found is None or isinstance(found, (dict, list)) or found == "":
            return None
        text = ("true" if found else "false") if isinstance(found, bool) else str(found)
        return _storable(text)

    def __str__(self) -> str:
        kind, value = next((name, value) for name, value in vars(self).items() if value is not None)
        return f"{'the header' if kind == 'header' else kind} {value}"


@dataclass(frozen=True)
class Joined(Rule):
    """Several places, joined with a separator: `issue.opened` from `entity` and `action`. Absent ones are left out."""

    rules: tuple[Rule, ...] = ()
    separator: str = "."

    def __post_init__(self) -> None:
        if len(self.rules) < 2:
            raise ConfigError("joined() needs two rules or more", hint='joined("entity", "action")')

    @property
    def of_json(self) -> bool:
        return any(rule.of_json for rule in self.rules)

    @property
    def parts(self) -> tuple[Rule, ...]:
        return self.rules

    def find(self, request: WebhookRequest) -> str | None:
        found = [rule.find(request) for rule in self.rules]
        return _storable(self.separator.join(value for value in found if value is not None)) or None

    def __str__(self) -> str:
        return " and ".join(str(rule) for rule in self.rules)


def joined(*rules: str | Rule, separator: str = ".") -> Joined:
    """A value that is composed of several places: `Wire(…, event_type=joined("entity", "action"))`. A text is a dotted path
    in the JSON body. Raises ConfigError for fewer than two."""
    made = tuple(Rule(json=rule) if isinstance(rule, str) else rule for rule in rules)
    return Joined(rules=made, separator=separator)


def _as_written(body: bytes, path: str) -> Any:
    """The number as it stands in the body: as floats two ids beyond 64 bits are one. None where it cannot be read so."""
    try:
        return dig(exact_json.loads(body, parse_int=str, parse_float=str), path)
    except (ValueError, RecursionError):
        return None


def _storable(text: str) -> str:
    """The text, short enough for an index and without NUL, which PostgreSQL refuses; different ones stay different."""
    if len(text) <= _LONGEST and "\x00" not in text:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{text[:_PREFIX].replace(chr(0), '')}~sha256:{digest}"


def rule_of(declared: str | Rule | Sequence[str | Rule] | None) -> Rule | None:
    """A rule as it is declared: a Rule, a text that is a dotted path in the JSON body, or a sequence of them, which is joined
    with dots."""
    if isinstance(declared, str):
        return Rule(json=declared)
    if declared is None or isinstance(declared, Rule):
        return declared
    return joined(*declared) if len(declared) != 1 else rule_of(declared[0])
