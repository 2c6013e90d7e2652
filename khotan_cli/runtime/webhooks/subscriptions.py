"""Creates, renews and ends the subscriptions of managed wires."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from khotan_cli.errors import KhotanError, UsageError
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.redaction.masker import Masker
from khotan_cli.runtime.resources.caches import json_value
from khotan_cli.runtime.runs.errors import failure_of, masker_of
from khotan_cli.runtime.store.wires import WireData
from khotan_cli.runtime.webhooks.endpoint import SECRET
from khotan_cli.runtime.webhooks.environment import WebhookEnvironment
from khotan_cli.runtime.webhooks.wire import SubscribeContext, Subscription, Wire

LOOK_SECONDS = 5.0
_CLAIM = timedelta(minutes=2)
"""How long a claimed renewal is reserved for the process that claimed it."""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)

T = TypeVar("T")

logger = logging.getLogger("khotan.webhooks")


class Subscriptions:
    def __init__(self, env: WebhookEnvironment) -> None:
        self._env = env
        self._looked_at: datetime | None = None

    async def create(self, wire: Wire, callback_url: str) -> WireData | None:
        """Create the subscription at the service. An existing subscription is replaced and then ended.

        A wire without on_subscribe is set up manually: only the URL is stored. Raises what on_subscribe raises.
        """
        former = await self._env.rows.get(wire.id)
        if wire.subscribe is None:
            await self._env.rows.save(wire.id, {"callback_url": callback_url, "subscribed": False, "error": None})
            return await self._env.rows.get(wire.id)
        context = await self._context(wire, callback_url, None)
        created = _subscription(wire, await self._call(wire, wire.subscribe, context))
        await self._save(wire, created, context, former)
        if former is not None and former.subscribed and former.remote_id and former.remote_id != created.remote_id:
            await self._end(wire, former)
        return await self._env.rows.get(wire.id)

    async def renew(self, wire: Wire) -> WireData | None:
        """Renew a subscription now. If on_subscribe renews it, the former subscription is ended afterwards.

        Raises UsageError if there is no subscription or on_renew returns no expires_at, and what on_renew raises.
        """
        renewing = wire.renew or wire.subscribe
        if renewing is None:
            raise UsageError(
                f"Wire {wire.id!r} is set up manually: khotan cannot renew it",
                code="wire_not_managed",
                hint="Renew it at the service, or define @wire.on_subscribe.",
            )
        row = await self._subscribed(wire)
        context = await self._context(wire, row.callback_url or "", row)
        renewed = returned = _subscription(wire, await self._call(wire, renewing, context))
        if wire.renew is not None:
            renewed = Subscription(
                returned.remote_id or row.remote_id,
                returned.secret,
                returned.expires_at or row.expires_at,
                row.data if returned.data is None else returned.data,
                returned.vars,
            )
        await self._save(wire, renewed, context, row)
        if wire.renew is None:
            if row.remote_id and row.remote_id != renewed.remote_id:
                await self._end_former(wire, row)
        elif returned.expires_at is None and row.expires_at is not None:
            raise UsageError(
                f"Wire {wire.id!r}: on_renew returned no expires_at",
                code="wire_invalid",
                hint="Return Subscription(expires_at=…).",
            )
        return await self._env.rows.get(wire.id)

    async def delete(self, wire: Wire) -> None:
        """End the subscription at the service and delete it here. For a manual wire, only the stored URL is deleted.

        Raises UsageError if there is none.
        """
        row = await self._subscribed(wire)
        await self._end(wire, row)
        cleared = dict.fromkeys(("callback_url", "remote_id", "data", "expires_at", "renew_at", "error"))
        await self._env.rows.save(wire.id, {**cleared, "subscribed": False, "failures": 0})
        if wire.managed and SECRET in wire.vars:
            await self._env.base.vars.delete(wire.owner, [SECRET])
        self._env.forget(wire)

    async def renew_due(self) -> None:
        """Renew subscriptions that expire soon, each in one process. Failed renewals are retried with growing pauses."""
        managed = {wire.id: wire for wire in self._env.wires.values() if isinstance(wire, Wire) and wire.managed}
        now = utc_now()
        if not managed or (self._looked_at and abs((now - self._looked_at).total_seconds()) < LOOK_SECONDS):
            return
        self._looked_at = now
        for row in await self._env.rows.claim_renewals(list(managed), _CLAIM):
            wire = managed[row.id]
            try:
                await self.renew(wire)
            except Exception as exc:  # the user's code, or the service
                await self._failed(wire, row, exc)

    async def _failed(self, wire: Wire, row: WireData, exc: Exception) -> None:
        masker = await masker_of(self._env.base, None)
        error = error_document(exc, masker)
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(row.failures, 12))
        logger.warning("Wire %s could not be renewed: %s", wire.id, error["message"])
        values = {"error": error, "failures": row.failures + 1, "renew_at": utc_now() + pause}
        await self._env.rows.save(wire.id, values)

    async def _subscribed(self, wire: Wire) -> WireData:
        row = await self._env.rows.get(wire.id)
        if not wire.managed and (row is None or not row.callback_url):
            raise UsageError(
                f"Wire {wire.id!r} is set up manually and has no stored URL",
                code="wire_not_subscribed",
                hint="If a subscription exists, end it at the service.",
            )
        if row is None or (wire.managed and not row.subscribed):
            raise UsageError(
                f"Wire {wire.id!r} has no subscription",
                code="wire_not_subscribed",
                hint="Create it first.",
                next=[f"khotan wire create {wire.id}"],
            )
        return row

    async def _context(self, wire: Wire, callback_url: str, row: WireData | None) -> SubscribeContext:
        values = await self._env.values(wire, fresh=True)
        secret = (values.get(SECRET) or "").partition("\n")[0]
        if not secret and wire.scheme is not None and wire.scheme.secret is None:
            try:
                secret = wire.scheme.make_secret()
            except KhotanError:
                secret = ""  # the service provides a public key
        return SubscribeContext(
            wire.id,
            wire.plug,
            callback_url,
            list(wire.events),
            secret,
            values,
            None if row is None else row.remote_id,
            None if row is None else row.data,
        )

    async def _call(self, wire: Wire, function: Callable[[SubscribeContext], Awaitable[T]], ctx: SubscribeContext) -> T:
        """Call the user's code. Raises KhotanError for any exception, with the secrets of the call masked."""
        try:
            return await function(ctx)
        except Exception as exc:
            document = await failure_of(exc, self._env.base, None)
            secret = {name for name, var in wire.vars.items() if var.secret}
            known = [line for name in secret for line in ctx.vars.get(name, "").splitlines()]
            document = Masker([ctx.secret, *known]).value(document)
            if isinstance(exc, KhotanError):
                exc.message, exc.hint = document["message"], document.get("hint", exc.hint)
                exc.details = {name: document[name] for name in exc.details if name in document}
                exc.args = (exc.message,)
                raise exc from None
            location = f" ({document['place']})" if "place" in document else ""
            message = f"{wire.id}: {document['message']}{location}"
            raise KhotanError(message, code="wire_failed", hint="Correct the wire's code.") from None

    async def _save(self, wire: Wire, new: Subscription, ctx: SubscribeContext, former: WireData | None) -> None:
        """Store a subscription. If a new one cannot be stored, it is ended at the service, so that it is not orphaned."""
        try:
            _check(wire, new)
            await self._store(wire, new, ctx.callback_url)
        except Exception:
            if former is None or not former.subscribed or new.remote_id not in (None, former.remote_id):
                await self._undo(wire, replace(ctx, remote_id=new.remote_id, data=new.data))
            raise

    async def _undo(self, wire: Wire, ctx: SubscribeContext) -> None:
        if wire.unsubscribe is None:
            return
        try:
            await self._call(wire, wire.unsubscribe, ctx)
        except Exception as exc:  # the caller reports the original failure
            message = error_document(exc, Masker())["message"]
            logger.error(
                "Wire %s: subscription %s could be neither stored nor ended: %s", wire.id, ctx.remote_id, message
            )

    async def _store(self, wire: Wire, new: Subscription, callback_url: str) -> None:
        values: dict[str, str] = dict(new.vars)
        for name in values:
            if name not in wire.vars:
                raise UsageError(
                    f"Wire {wire.id!r} does not declare the variable {name!r}",
                    code="unknown_var",
                    hint="Declare it with Wire(…, vars={…: Var()}).",
                )
        data = None if new.data is None else json_value("data", new.data)
        if new.secret:
            former_secrets = (await self._env.values(wire)).get(SECRET, "").splitlines()
            # Requests in flight are signed with the former secret.
            values[SECRET] = "\n".join(dict.fromkeys([new.secret, *former_secrets[:1]]))
        if values:
            await self._env.base.vars.save(wire.owner, values)
        self._env.forget(wire)
        row: dict[str, Any] = {
            "subscribed": True,
            "callback_url": callback_url,
            "remote_id": new.remote_id,
            "data": data,
            "expires_at": new.expires_at,
            "renew_at": renewal_at(new.expires_at, wire.renew_before),
            "failures": 0,
            "error": None,
        }
        await self._env.rows.save(wire.id, row)

    async def _end(self, wire: Wire, row: WireData) -> None:
        if wire.unsubscribe is not None:
            await self._call(wire, wire.unsubscribe, await self._context(wire, row.callback_url or "", row))

    async def _end_former(self, wire: Wire, former: WireData) -> None:
        """End a subscription that was replaced. A failure is stored, not raised: another renewal would create a third one."""
        try:
            await self._end(wire, former)
        except Exception as exc:  # the user's code, or the service
            error = error_document(exc, Masker())
            error["message"] = f"The former subscription {former.remote_id} was not ended: {error['message']}"
            logger.warning("Wire %s: %s", wire.id, error["message"])
            await self._env.rows.save(wire.id, {"error": error})


def _subscription(wire: Wire, returned: Any) -> Subscription:
    if returned is None:
        return Subscription()
    if not isinstance(returned, Subscription):
        raise UsageError(
            f"Wire {wire.id!r}: on_subscribe returned {type(returned).__name__}, not a Subscription",
            code="wire_invalid",
            hint="Return Subscription(remote_id=…, secret=…).",
        )
    return returned


def _check(wire: Wire, subscription: Subscription) -> None:
    """Raises UsageError if the subscription cannot be stored."""
    expires_at, remote_id = subscription.expires_at, subscription.remote_id
    if expires_at is not None and (not isinstance(expires_at, datetime) or expires_at.tzinfo is None):
        raise UsageError(
            f"Wire {wire.id!r}: expires_at of a Subscription must be a datetime with a time zone, not {expires_at!r}",
            code="wire_invalid",
            hint="Use datetime.now(UTC) + …, or datetime.fromisoformat(…) with Z or an offset.",
        )
    if remote_id is not None and not isinstance(remote_id, str):
        raise UsageError(
            f"Wire {wire.id!r}: remote_id of a Subscription must be a str, not {type(remote_id).__name__}",
            code="wire_invalid",
            hint="Use Subscription(remote_id=str(…)).",
        )


def renewal_at(expires_at: datetime | None, before: float) -> datetime | None:
    """Return when to renew: `before` seconds before the expiry, but not in the first two thirds of the lifetime."""
    if expires_at is None:
        return None
    now = utc_now()
    lifetime = max(0.0, (expires_at - now).total_seconds())
    return expires_at - timedelta(seconds=min(before, lifetime / 3))


def error_document(exc: Exception, masker: Masker) -> dict[str, Any]:
    if isinstance(exc, KhotanError):
        document: Mapping[str, Any] = {"error": exc.code, "message": exc.message, "hint": exc.hint}
    else:
        text = " ".join(str(exc).split())[:500]
        document = {"error": "failed", "message": f"{type(exc).__name__}: {text}", "hint": "Correct the wire's code."}
    masked: dict[str, Any] = masker.value(dict(document))
    return masked
