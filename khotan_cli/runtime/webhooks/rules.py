"""Where something is in a request: a header, a parameter of the query, or a place in the JSON or form body."""

from __future__ import annotations

import hashlib
import json as exact_json
from dataclasses import dataclass
from typing import Any

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.plugs.paths import dig
from khotan_cli.runtime.webhooks.request import WebhookRequest

_LONGEST = 500
_PREFIX = 400


@dataclass(frozen=True)
class Rule:
    """One of `header`, `query`, `json` (dotted path: `data.id`, `items.0.type`) and `form`."""

    header: str | None = None
    query: str | None = None
    json: str | None = None
    form: str | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.header, self.query, self.json, self.form)) != 1:
            raise ConfigError("A rule names one place: header=…, query=…, json=… or form=…")

    @property
    def of_json(self) -> bool:
        return self.json is not None

    def find(self, request: WebhookRequest) -> str | None:
        """The value as text, None where it is absent. Raises ValueError where the body is not JSON and the rule needs it."""
        found: Any
        if self.header is not None:
            found = request.headers.get(self.header)
        elif self.query is not None:
            found = request.query.get(self.query)
        elif self.form is not None:
            found = next((value for name, value in request.form if name == self.form), None)
        else:
            assert self.json is not None
            found = dig(request.json, self.json)
            if isinstance(found, float):
                found = _as_written(request.body, self.json) or found
        if found is None or isinstance(found, (dict, list)) or found == "":
            return None
        text = ("true" if found else "false") if isinstance(found, bool) else str(found)
        return _storable(text)

    def __str__(self) -> str:
        kind, value = next((name, value) for name, value in vars(self).items() if value is not None)
        return f"{'the header' if kind == 'header' else kind} {value}"


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


def rule_of(declared: str | Rule | None) -> Rule | None:
    """A rule as a user declares it: a Rule, or a text that is a dotted path in the JSON body."""
    return Rule(json=declared) if isinstance(declared, str) else declared
