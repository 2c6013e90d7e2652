"""`Wire`: a webhook subscription at a plug, and the handlers of its events."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.http.retry import Retry
from khotan_cli.runtime.http.variables import Var
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.runs.hooks import Hooks
from khotan_cli.runtime.webhooks.endpoint import InboundEndpoint, coroutine
from khotan_cli.runtime.webhooks.handler import DEFAULT_RETRY, DEFAULT_TIMEOUT, Handler, HandlerFunction
from khotan_cli.runtime.webhooks.verify.challenges import Challenge
from khotan_cli.runtime.webhooks.verify.locator import Rule, rule_of
from khotan_cli.runtime.webhooks.verify.schemes import Scheme

_RESERVED = ("renew", "sample", "vars")
"""Path segments of the management API."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Subscription:
    """The service's response to a subscription request.

    remote_id: the service's id of the subscription. secret: the signing secret, if the service chose it. expires_at: with a
    time zone; None if the subscription does not expire. If there was an expiry, on_renew must return a new one. data: JSON
    passed to on_renew and on_unsubscribe; it is stored unencrypted, so do not put secrets in it. vars: further variables of
    the wire, stored encrypted.
    """

    remote_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    data: Any = None
    vars: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


@dataclass(frozen=True)
class SubscribeContext:
    """The argument of on_subscribe, on_renew and on_unsubscribe.

    `secret`: the stored secret or a generated one, for services that accept a secret; it is stored only if on_subscribe
    returns it. `remote_id` and `data` belong to the subscription that is renewed or ended.
    """

    wire: str
    plug: Plug
    callback_url: str
    events: list[str]
    secret: str = field(default="", repr=False)
    vars: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    remote_id: str | None = None
    data: Any = None


Subscribe = Callable[[SubscribeContext], Awaitable[Subscription | None]]
Unsubscribe = Callable[[SubscribeContext], Awaitable[None]]


class Wire(InboundEndpoint):
    """A webhook endpoint at `/webhook/<plug>`, or with a name at `/webhook/<plug>/<name>`.

        stripe_wire = Wire(stripe, events=["invoice.paid"], verify=signatures.stripe())

    events: types to subscribe to. verify: the signature scheme, unless you define `@wire.on_verify`. The secret is the wire's
    variable `secret` (environment: `<PLUG>_WEBHOOK_SECRET`), unless the scheme names a variable of the plug. event_type,
    event_id: their location in the request (a dotted path in the JSON body, a Rule, or a sequence joined with dots); default:
    the scheme's. Without an id, the id is a digest of the body. below: templates of subpaths that the wire also receives at
    (`"transactions/{id}"`; `Rule(path="id")` reads the placeholder); default: the wire's own path only. items: path of the
    list if a body holds several events (`"events"`, `"events.*.item"`, or `"*"` if the body is the list); each item is an
    event that models, rules and ordered_by read; None: the scheme's path. envelope: the form field that holds the JSON
    document (`"payload"`); None: the scheme's field. duplicates_within: seconds during which an event without an id is a
    duplicate of one with an equal body; None: always, 0: never. challenge: the service's endpoint validation. methods: HTTP
    methods that carry events. vars: further variables. renew_before: seconds before the expiry at which a subscription is
    renewed. Raises ConfigError.
    """

    def __init__(
        self,
        plug: Plug,
        *,
        name: str | None = None,
        events: Sequence[str] = (),
        verify: Scheme | None = None,
        event_type: str | Rule | Sequence[str | Rule] | None = None,
        event_id: str | Rule | Sequence[str | Rule] | None = None,
        below: str | Sequence[str] = (),
        items: str | None = None,
        envelope: str | None = None,
        duplicates_within: float | None = None,
        challenge: Challenge | None = None,
        methods: Sequence[str] = ("POST", "PUT"),
        vars: Mapping[str, Var] | None = None,
        renew_before: float = 3600.0,
    ) -> None:
        if not isinstance(plug, Plug):
            raise ConfigError(f"A wire needs a plug, not {type(plug).__name__}", hint="Use Wire(shop, verify=…).")
        if name is not None and (not _NAME.fullmatch(name) or name in _RESERVED):
            raise ConfigError(f"Invalid wire name {name!r}", hint="Use letters, digits, _ and -.")
        super().__init__(
            module=sys._getframe(1).f_globals.get("__name__", ""),
            verify=verify,
            type_rule=rule_of(event_type) or (verify.event_type if verify else None),
            id_rule=rule_of(event_id) or (verify.event_id if verify else None),
            challenge=challenge,
            methods=methods,
            vars=vars,
            below=[below] if isinstance(below, str) else below,
            duplicates_within=duplicates_within,
            items=getattr(verify, "items", "") if items is None else items,
            envelope=envelope,
        )
        self._check_path_rules()
        self._plug, self.suffix, self.events = plug, name, list(events)
        self.renew_before = renew_before
        self.subscribe: Subscribe | None = None
        self.unsubscribe: Unsubscribe | None = None
        self.renew: Subscribe | None = None

    def _check_path_rules(self) -> None:
        known = {name for template in self.below for name, _ in template if name is not None}
        rules = [part for rule in (self.type_rule, self.id_rule) if rule is not None for part in rule.parts]
        for rule in rules:
            if rule.path is not None and rule.path not in known:
                raise ConfigError(
                    f"Rule(path={rule.path!r}) has no placeholder in below=…",
                    hint=f'Add below="…/{{{rule.path}}}".',
                )

    @property
    def id(self) -> str:
        """The wire's id in commands, tables and the URL: `<plug>` or `<plug>/<name>`."""
        return self.plug.name if self.suffix is None else f"{self.plug.name}/{self.suffix}"

    @property
    def path(self) -> str:
        return f"/webhook/{self.id}"

    @property
    def plug(self) -> Plug:
        return self._plug

    @property
    def managed(self) -> bool:
        """Whether khotan creates the subscription. If not, you create it at the service."""
        return self.subscribe is not None

    def check(self) -> None:
        super().check()
        if self.renew is not None and self.subscribe is None:
            raise ConfigError(f"Wire {self.id!r} has on_renew but no on_subscribe", hint="Define @wire.on_subscribe.")

    # -- the subscription --------------------------------------------------------------------------------------------

    def on_subscribe(self, function: Subscribe) -> Subscribe:
        """Declare how the subscription is created: `async def …(ctx: SubscribeContext) -> Subscription`."""
        self.subscribe = coroutine(function)
        return function

    def on_unsubscribe(self, function: Unsubscribe) -> Unsubscribe:
        """Declare how the subscription is ended."""
        self.unsubscribe = coroutine(function)
        return function

    def on_renew(self, function: Subscribe) -> Subscribe:
        """Declare how the subscription is renewed before it expires. Default: on_subscribe is called again."""
        self.renew = coroutine(function)
        return function

    # -- handlers ----------------------------------------------------------------------------------------------------

    def catch(
        self,
        *types: str,
        model: Any = None,
        retry: Retry = DEFAULT_RETRY,
        timeout: float | None = DEFAULT_TIMEOUT,
        ordered_by: str | Rule | None = None,
        hooks: Hooks | None = None,
    ) -> Callable[[HandlerFunction], Handler]:
        """Declare a handler: `async def …(event: Event[Model])`, run durably for each event of these types.

        types: patterns such as `invoice.*`; default: all. model: type of the body; an event that does not match is stored and
        its run fails. retry: number of attempts and pauses (seconds, doubled) for a run that raises. timeout: seconds for one
        attempt. ordered_by: dotted path or Rule of the ordering key; events with the same key are processed in order.
        """
        options: dict[str, Any] = {"model": model, "retry": retry, "timeout": timeout, "hooks": hooks}
        return lambda function: self.add(
            Handler(function, self, "catch", types, ordered_by=rule_of(ordered_by), **options)
        )

    def pass_to(
        self,
        plug: Plug,
        *types: str,
        model: Any = None,
        retry: Retry = DEFAULT_RETRY,
        timeout: float | None = DEFAULT_TIMEOUT,
        ordered_by: str | Rule | None = None,
        hooks: Hooks | None = None,
    ) -> Callable[[HandlerFunction], Handler]:
        """Declare a handler that forwards events to another plug, whose variables are available. Options as for `catch`."""
        if not isinstance(plug, Plug):
            raise ConfigError(f"pass_to needs a plug, not {type(plug).__name__}", hint="Use @wire.pass_to(slack, …).")
        options: dict[str, Any] = {"model": model, "retry": retry, "timeout": timeout, "hooks": hooks, "to": plug}
        return lambda function: self.add(
            Handler(function, self, "pass", types, ordered_by=rule_of(ordered_by), **options)
        )
