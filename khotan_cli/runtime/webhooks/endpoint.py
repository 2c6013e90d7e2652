"""`InboundEndpoint`: what wires and ingests have in common: how requests are verified, told apart and handled."""

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
    """A body that an ingest cannot read."""

    default_code = "body_invalid"


class KeyReused(KhotanError):
    """A key that names another record already (draft-ietf-httpapi-idempotency-key-header 2.7): 422, or a run that fails."""

    default_code = "idempotency_key_reused"


class InboundEndpoint(ABC):
    """A place that others send requests to, each of which becomes an event.

    `methods`: those that are answered; `event_methods`: those that events come with. `items`: path of the list in the body
    whose elements are the events; empty where a body is one event.
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
            raise ConfigError(f"No event comes with the methods {methods!r}", hint='methods=["POST"]')
        number = isinstance(duplicates_within, (int, float)) and not isinstance(duplicates_within, bool)
        if duplicates_within is not None and not (number and 0 <= duplicates_within < float("inf")):
            raise ConfigError(
                f"duplicates_within={duplicates_within!r} is not a number of seconds",
                hint="0: equal bodies are never duplicates. None: they always are.",
            )
        check_items(items)
        challenge = challenge or getattr(verify, "challenge", None)
        self.module, self.scheme, self.challenge = module, verify, challenge
        self.below = [_template(one) for one in below]
        self.duplicates_within = duplicates_within
        self.items = items
        self.envelope: str | None = envelope or getattr(verify, "envelope", None)
        """The form field in which the service sends the JSON document; None where it sends none."""
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
        """What commands and tables call it."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Where it receives, below the API."""

    @property
    @abstractmethod
    def plug(self) -> Plug | None:
        """The service that sends, where it is one of the app's plugs."""

    @property
    def managed(self) -> bool:
        """Whether khotan has the service send here; else that is arranged by hand."""
        return False

    @property
    def owner(self) -> str:
        """Under which its variables are stored."""
        return f"wire:{self.id}"

    @property
    def needed(self) -> list[str]:
        """The variables without which it receives nothing."""
        return [name for name, var in self.vars.items() if var.required or name in (SECRET, VERIFY_TOKEN)]

    @cached_property
    def credentials(self) -> frozenset[str]:
        """Names, in lower case, of the header fields in which the scheme finds what lets a sender in."""
        if isinstance(self.scheme, Token):
            header = self.scheme.rule.header
            return frozenset([header.lower()] if header else [])
        if isinstance(self.scheme, PublicKey):
            return frozenset([self.scheme.header.lower()])
        return frozenset(name.lower() for name in getattr(self.scheme, "headers", ()))

    @cached_property
    def reads_json(self) -> bool:
        """Whether type or id of an event are in its JSON body."""
        return any(rule.of_json for rule in (self.type_rule, self.id_rule) if rule)

    def path_values(self, segments: Sequence[str]) -> dict[str, str] | None:
        """What `below` finds in the path segments after the wire's own path, by name. None where they do not match.

        segments: as they were sent, percent-encoded.
        """
        if not self.below:
            return None if segments else {}
        for template in self.below:
            if len(template) == len(segments):
                found = {}
                for (name, text), segment in zip(template, segments, strict=True):
                    value = unquote(segment)
                    if name is not None and value:
                        found[name] = value
                    elif name is not None or value != text:
                        break
                else:
                    return found
        return None

    async def completed(self, event: Incoming, env: Environment) -> Incoming:
        """The event, with what has to be asked for before it is stored."""
        return event

    def env_name(self, var: str) -> str:
        """The environment variable that is read for one of its variables."""
        declared = self.vars[var].env
        return declared or re.sub(r"[^A-Z0-9]+", "_", f"{self.id}_WEBHOOK_{var}".upper())

    def type_of(self, request: WebhookRequest, found: str | None) -> str:
        """The event's type: what the rule found."""
        return found or ""

    def check_body(self, request: WebhookRequest) -> None:  # noqa: B027 - a wire takes any body
        """Raises KhotanError for a body that is not even to be stored."""

    @property
    def strict_ids(self) -> bool:
        """Whether a request whose id has come before with another body is refused, rather than counted."""
        return False

    def check(self) -> None:
        """Raises ConfigError where the declaration cannot hold; asked when the app loads, when all of it is known."""
        if self.scheme is None and self.verify is None:
            raise ConfigError(
                f"{self.kind.capitalize()} {self.id!r} verifies nothing: anybody could send events",
                hint=f"Give it verify=signatures.…, define @{self.kind}.on_verify, or say signatures.unsigned().",
            )

    def on_verify(self, function: Verify) -> Verify:
        """Declare how a request is verified, instead of a scheme: `async def …(request, vars) -> bool`."""
        self.verify = coroutine(function)
        return function

    def add(self, handler: Handler) -> Handler:
        """Register a handler. Raises ConfigError where another has its name."""
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
    """The segments of a path: the name of a placeholder, or None and the text. Raises ConfigError."""
    parts = below.strip("/").split("/")
    matches = [_SEGMENT.fullmatch(part) for part in parts]
    names = [found[1] for found in matches if found is not None and found[1]]
    if not all(matches) or len(set(names)) < len(names):
        raise ConfigError(
            f"below={below!r} is not a path template",
            hint='Like "transactions/{id}": a placeholder is a whole segment.',
        )
    return [(found[1], found[0]) for found in matches if found is not None]


def coroutine(function: F) -> F:
    """The function. Raises ConfigError for one that is not async."""
    if not inspect.iscoroutinefunction(function):
        raise ConfigError(f"{function.__name__!r} is not an async function", hint="Declare it: async def …")
    return function
