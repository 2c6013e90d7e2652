"""`InboundEndpoint`, the base of wires and ingests: how requests are verified, identified and handled."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from khotan_cli.errors import ConfigError, KhotanError
from khotan_cli.runtime.http.variables import Var
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.store.incoming import Incoming
from khotan_cli.runtime.webhooks.handler import Handler
from khotan_cli.runtime.webhooks.items import check_items
from khotan_cli.runtime.webhooks.request import WebhookRequest
from khotan_cli.runtime.webhooks.verify.challenges import VERIFY_TOKEN, Challenge, MetaChallenge
from khotan_cli.runtime.webhooks.verify.locator import Rule
from khotan_cli.runtime.webhooks.verify.schemes import PublicKey, Scheme, Token, Unsigned

if TYPE_CHECKING:
    from khotan_cli.runtime.runs.environment import Environment

SECRET = "secret"
_SEGMENT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}|[^{}/]+")

Verify = Callable[[WebhookRequest, Mapping[str, str]], Awaitable[bool]]
F = TypeVar("F", bound=Callable[..., Any])


class BodyInvalid(KhotanError):
    """An ingest cannot read the body."""

    default_code = "body_invalid"


class KeyReused(KhotanError):
    """The idempotency key belongs to another record (draft-ietf-httpapi-idempotency-key-header 2.7).

    The sender gets 422; in a run, the run fails.
    """

    default_code = "idempotency_key_reused"


class InboundEndpoint(ABC):
    """An endpoint that external systems send requests to. Each request becomes one or more events.

    `methods`: accepted HTTP methods. `event_methods`: the methods that carry events. `items`: path of the list in the body
    whose elements are the events; empty if a body is one event.
    """

    kind = "wire"
    events: Sequence[str] = ()

    def __init__(
        self,
        *,
        module: str,
        verify: Scheme | None,
        type_rule: Rule | None,
        id_rule: Rule | None,
        challenge: Challenge | None,
        methods: Sequence[str],
        vars: Mapping[str, Var] | None,
        below: Sequence[str] = (),
        duplicates_within: float | None = None,
        items: str = "",
        envelope: str | None = None,
    ) -> None:
        if not methods or isinstance(methods, str):
            raise ConfigError(f"Invalid methods {methods!r}: expected a list of HTTP methods", hint='methods=["POST"]')
        number = isinstance(duplicates_within, (int, float)) and not isinstance(duplicates_within, bool)
        if duplicates_within is not None and not (number and 0 <= duplicates_within < float("inf")):
            raise ConfigError(
                f"Invalid duplicates_within={duplicates_within!r}: expected a number of seconds",
                hint="Use 0 if equal bodies are never duplicates, or None if they always are.",
            )
        check_items(items)
        challenge = challenge or getattr(verify, "challenge", None)
        self.module, self.scheme, self.challenge = module, verify, challenge
        self.below = [_template(path) for path in below]
        self.duplicates_within = duplicates_within
        self.items = items
        self.envelope: str | None = envelope or getattr(verify, "envelope", None)
        """The form field that holds the JSON document, or None if the service does not use one."""
        self.type_rule, self.id_rule = type_rule, id_rule
        self.event_methods = frozenset(method.upper() for method in methods)
        self.methods = self.event_methods | (challenge.methods if challenge else frozenset())
        self.vars: dict[str, Var] = dict(vars or {})
        if verify is not None and verify.secret is None and not isinstance(verify, Unsigned):
            self.vars.setdefault(SECRET, Var(label="Signing secret", secret=True, required=False))
        if isinstance(challenge, MetaChallenge):
            self.vars.setdefault(VERIFY_TOKEN, Var(label="Verify token", secret=True, required=False))
        self.handlers: dict[str, Handler] = {}
        self.verify: Verify | None = None

    @property
    @abstractmethod
    def id(self) -> str:
        """The endpoint's id in commands and tables."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The endpoint's path, relative to the API."""

    @property
    @abstractmethod
    def plug(self) -> Plug | None:
        """The plug of the sending service, or None if it is not a plug of the app."""

    @property
    def managed(self) -> bool:
        """Whether khotan creates the subscription at the service. If not, you create it yourself."""
        return False

    @property
    def owner(self) -> str:
        """The owner name under which the endpoint's variables are stored."""
        return f"wire:{self.id}"

    @property
    def needed(self) -> list[str]:
        """Variables that must be set before the endpoint accepts requests."""
        return [name for name, var in self.vars.items() if var.required or name in (SECRET, VERIFY_TOKEN)]

    @cached_property
    def credentials(self) -> frozenset[str]:
        """Lower-case names of the header fields that hold the sender's credentials."""
        if isinstance(self.scheme, Token):
            header = self.scheme.rule.header
            return frozenset([header.lower()] if header else [])
        if isinstance(self.scheme, PublicKey):
            return frozenset([self.scheme.header.lower()])
        return frozenset(name.lower() for name in getattr(self.scheme, "headers", ()))

    @cached_property
    def reads_json(self) -> bool:
        """Whether the event's type or id is read from its JSON body."""
        return any(rule.of_json for rule in (self.type_rule, self.id_rule) if rule)

    def path_values(self, segments: Sequence[str]) -> dict[str, str] | None:
        """Match the path segments after the wire's own path against `below`. Returns values by name, None if none match.

        segments: percent-encoded, as received.
        """
        if not self.below:
            return None if segments else {}
        for template in self.below:
            if len(template) == len(segments):
                values = {}
                for (name, text), segment in zip(template, segments, strict=True):
                    value = unquote(segment)
                    if name is not None and value:
                        values[name] = value
                    elif name is not None or value != text:
                        break
                else:
                    return values
        return None

    async def completed(self, event: Incoming, env: Environment) -> Incoming:
        """Add what must be looked up before the event is stored."""
        return event

    def env_name(self, var: str) -> str:
        """Return the name of the environment variable for one of the endpoint's variables."""
        declared = self.vars[var].env
        return declared or re.sub(r"[^A-Z0-9]+", "_", f"{self.id}_WEBHOOK_{var}".upper())

    def type_of(self, request: WebhookRequest, found: str | None) -> str:
        """Return the event's type. found: the value that the type rule read."""
        return found or ""

    def check_body(self, request: WebhookRequest) -> None:  # noqa: B027 - a wire accepts any body
        """Raises KhotanError for a body that must not be stored."""

    @property
    def strict_ids(self) -> bool:
        """Whether a repeated id with a different body is rejected. If not, it is counted as a repeat."""
        return False

    def check(self) -> None:
        """Raises ConfigError if the declaration is invalid. Called when the whole app has been loaded."""
        if self.scheme is None and self.verify is None:
            raise ConfigError(
                f"{self.kind.capitalize()} {self.id!r} does not verify requests: anyone could send events",
                hint=f"Add verify=signatures.…, define @{self.kind}.on_verify, or use signatures.unsigned().",
            )

    def on_verify(self, function: Verify) -> Verify:
        """Declare a function that verifies requests, instead of a scheme: `async def …(request, vars) -> bool`."""
        self.verify = coroutine(function)
        return function

    def add(self, handler: Handler) -> Handler:
        """Register a handler. Raises ConfigError if another handler has the same name."""
        known = self.handlers.get(handler.function_name)
        if known is not None and known.module != handler.module:
            raise ConfigError(
                f"Two handlers of wire {self.id!r} are called {handler.function_name!r}: "
                f"in {known.module} and in {handler.module}",
                hint="Rename one of them.",
            )
        self.handlers[handler.function_name] = handler
        return handler

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


def _template(below: str) -> list[tuple[str | None, str]]:
    """Split a path template into segments: (placeholder name, or None; text). Raises ConfigError."""
    parts = below.strip("/").split("/")
    matches = [_SEGMENT.fullmatch(part) for part in parts]
    names = [match[1] for match in matches if match is not None and match[1]]
    if not all(matches) or len(set(names)) < len(names):
        raise ConfigError(
            f"Invalid path template below={below!r}",
            hint='Use a path such as "transactions/{id}"; a placeholder must be a whole segment.',
        )
    return [(match[1], match[0]) for match in matches if match is not None]


def coroutine(function: F) -> F:
    """Return the function. Raises ConfigError if it is not async."""
    if not inspect.iscoroutinefunction(function):
        raise ConfigError(f"{function.__name__!r} is not an async function", hint="Declare it with async def.")
    return function
