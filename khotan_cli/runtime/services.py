"""What a running app consists of: settings, plugs, database, and the stores that bind the two together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from khotan_cli.errors import DatabaseNotMigrated, KhotanError, UnknownName
from khotan_cli.request_signing import Verifier
from khotan_cli.runtime.auth.schemes import PlugAuth
from khotan_cli.runtime.database.crypto import Cipher
from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.fingerprint import fingerprint_of
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.redaction.known_secrets import known
from khotan_cli.runtime.registry import Registry
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.hooks import EventInfo, Hooks, RunInfo
from khotan_cli.runtime.store.caches import CacheStore
from khotan_cli.runtime.store.mappings import MappingStore
from khotan_cli.runtime.store.rate_limits import DatabaseRateStore
from khotan_cli.runtime.store.variables import DatabaseVarStore
from khotan_cli.runtime.webhooks.environment import WebhookEnvironment
from khotan_cli.runtime.webhooks.handling.replay import Replays
from khotan_cli.runtime.webhooks.handling.worker import HandlerWorker
from khotan_cli.runtime.webhooks.inbound.group_commit import GroupCommit
from khotan_cli.runtime.webhooks.inbound.receive import Receiver
from khotan_cli.runtime.webhooks.subscriptions import Subscriptions
from khotan_cli.runtime.worker.dispatch import Dispatcher
from khotan_cli.runtime.worker.engine import Engine
from khotan_cli.runtime.worker.maintenance import Maintenance
from khotan_cli.settings import Settings

API_PATH = "/api/khotan"
"""Where the management API and the webhooks are, below the application's own root."""

_CODE_SECONDS = 1.0
"""For how long the fingerprint of the files is not computed again."""

logger = logging.getLogger("khotan")

Authorize = Callable[[Any], bool | Awaitable[bool]] | Literal[False] | None
"""Decides on a request to the management API: a function of it, sync or async; None refuses all; False allows all."""


@dataclass(frozen=True)
class LoggedHooks(Hooks):
    """The app's own hooks, and a line in the log when a flow's run begins and ends; handlers' runs are too many for that."""

    app: Hooks = field(default_factory=Hooks)

    async def started(self, run: RunInfo) -> None:
        if _of_flow(run):
            logger.info("%s (%s) begins: run %s", run.flow, run.variant, run.id)
        await self.app.started(run)

    async def ended(self, run: RunInfo) -> None:
        if _of_flow(run):
            counts = ", ".join(f"{count:,} {name}" for name, count in run.counts.items() if count) or "nothing counted"
            seconds = run.seconds or 0.0
            logger.info(
                "%s (%s) %s after %.1f s, %s: run %s", run.flow, run.variant, run.status, seconds, counts, run.id
            )
        await self.app.ended(run)

    async def received(self, event: EventInfo) -> None:
        await self.app.received(event)


def _of_flow(run: RunInfo) -> bool:
    """Names of handlers begin with their wire's: `shop.record_order`."""
    return "." not in run.flow


class Services:
    """Made once per app."""

    def __init__(
        self, settings: Settings, registry: Registry, authorize: Authorize, hooks: Hooks | None = None
    ) -> None:
        self.settings, self.registry, self.authorize = settings, registry, authorize
        secret = settings.secret.get_secret_value()
        self.cipher = Cipher(secret, settings.previous_secrets) if secret else None
        self.verifier = Verifier(secret) if secret else None
        self.database = Database(settings.database_url, settings.root)
        self.vars = DatabaseVarStore(self.database, self.cipher)
        self.rates = DatabaseRateStore(self.database)
        self.bound = False
        self.host = Environment(
            self.database,
            self.vars,
            registry.plugs,
            registry.flows,
            registry.resources,
            registry.caches,
            LoggedHooks(app=hooks or Hooks()),
            registry.code,
        )
        self.webhooks = WebhookEnvironment(self.host, registry.wires, settings.public_url)
        self.host.more_secrets.append(self.webhooks.all_secrets)
        self.dispatcher = Dispatcher(self.host, self._known)
        self.subscriptions = Subscriptions(self.webhooks)
        self.deliverer = HandlerWorker(self.webhooks, concurrency=settings.concurrency)
        self.replays = Replays(self.webhooks, self.deliverer.wake)
        self.engine = Engine(
            self.host,
            concurrency=settings.concurrency,
            maintenance=Maintenance(
                Dispatcher(self.host),
                retention_days=settings.retention_days,
                periodic=[self.subscriptions.renew_due],
                retentions=[self.webhooks.events.sweep],
            ),
            background=self.deliverer,
        )
        self._code_now = (0.0, "")
        self._receivers: dict[asyncio.AbstractEventLoop, Receiver] = {}

    @property
    def receiver(self) -> Receiver:
        """Of the running event loop: events that arrive there are committed together."""
        loop = asyncio.get_running_loop()
        if loop not in self._receivers:
            inbox = GroupCommit(self.webhooks.events, self.deliverer.wake)
            self._receivers = {loop: Receiver(self.webhooks, inbox)}
        return self._receivers[loop]

    @property
    def has_work(self) -> bool:
        """Whether there is anything that an engine would do."""
        return bool(self.registry.flows or self.registry.wires)

    def _known(self, name: str) -> Flow | None:
        """The flow, or the handler, of that name."""
        return self.registry.flows.get(name) or self.webhooks.handlers.get(name)

    def runnable(self, name: str) -> Flow:
        """The flow, or the handler, of that name. Raises UnknownName with the nearest of both."""
        known: dict[str, Flow] = {**self.registry.flows, **self.webhooks.handlers}
        if name not in known:
            raise UnknownName("flow", name, known)
        return known[name]

    @property
    def mappings(self) -> MappingStore:
        return self.host.mappings

    @property
    def caches(self) -> CacheStore:
        return self.host.entries

    @property
    def development(self) -> bool:
        return self.settings.env == "development"

    async def start(self) -> None:
        """Bind the plugs to the database; say in the log what is wrong with it and with the secret."""
        try:
            if await self.database.detect_pooler():
                logger.info(
                    "%s is behind a pooler in transaction mode: prepared statements are off", self.database.name
                )
            await self.bind()
            if not self.bound:
                logger.info("%s is not migrated: variables come from the environment only", self.database.name)
            for entry in await self.vars.undecryptable() if self.bound else []:
                if entry.error is not None:
                    logger.warning("%s", entry.error.message)
        except KhotanError as exc:
            logger.warning("%s %s", exc.message, exc.hint)
        else:
            await self.learn_secrets()

    async def learn_secrets(self) -> None:
        """Have this process mask the secrets of plugs, wires and settings. What cannot be read is learnt when it is read."""
        settings = self.settings
        for secret in (settings.secret, settings.token, settings.cron_secret):
            known.add([secret.get_secret_value()])
        known.add(settings.previous_secrets)
        for plug in self.registry.plugs.values():
            with suppress(KhotanError):
                ctx = plug.context("", await plug.resolve())
                known.add(plug.auth.secrets(ctx) if isinstance(plug.auth, PlugAuth) else ())
        await self.webhooks.all_secrets()

    async def bind(self) -> None:
        """Let plugs read their variables from the database.

        A database without khotan's tables holds no variables: plugs then use the environment, and are bound as soon as
        it is migrated. One that cannot be reached may hold some: plugs are bound, and calls fail until it answers.
        """
        if self.bound:
            return
        try:
            await self.database.check_migrated()
        except DatabaseNotMigrated:
            return
        except KhotanError:
            self._bind()
            raise
        self._bind()

    def _bind(self) -> None:
        for plug in self.registry.plugs.values():
            plug.bind(self.vars, self.rates)
        self.bound = True

    async def enabled(self, plug: str) -> bool:
        return not self.bound or await self.vars.enabled(plug)

    def changed(self, plug: Plug) -> None:
        """Let a plug read its variables afresh."""
        plug.shared.forget()

    async def start_engine(self) -> bool:
        """Run flows in this process from now on. False where there are none, or another process does on SQLite.

        Raises StoreError; DatabaseNotMigrated.
        """
        return self.has_work and await self.engine.start()

    async def ensure_engine(self) -> None:
        """Run flows here unless somebody else does. Raises StoreError; DatabaseNotMigrated."""
        if self.has_work and not await asyncio.to_thread(self.engine.others):
            await self.start_engine()

    async def has_worker(self) -> bool:
        """Whether a process is there that runs flows, this one or another."""
        return self.engine.running or await asyncio.to_thread(self.engine.others)

    async def workers(self) -> list[Any]:
        """Rows of the workers that live: id, code, started_at. Empty where the database is not migrated."""
        try:
            return await self.engine.living()
        except DatabaseNotMigrated:
            return []

    async def code_now(self) -> str:
        """Fingerprint of the package's files as they are on disk now; empty for an app that was not discovered."""
        if not self.registry.package:
            return ""
        read_at, code = self._code_now
        if not code or time.monotonic() - read_at > _CODE_SECONDS:
            code = await asyncio.to_thread(fingerprint_of, self.registry.package)
            self._code_now = (time.monotonic(), code)
        return code

    async def outdated(self, code: str | None) -> bool:
        """Whether a fingerprint is another than that of the files on disk. False where either is not known."""
        now = await self.code_now() if code else ""
        return bool(code and now and code != now)

    async def outdated_workers(self) -> int:
        """How many living workers run other code than the files on disk."""
        now = await self.code_now()
        return sum(bool(now and row.code and row.code != now) for row in await self.workers())

    async def disabled_flows(self) -> set[str]:
        """Names of the disabled flows; none where the database is not migrated."""
        try:
            return await self.host.switches.disabled()
        except DatabaseNotMigrated:
            return set()

    async def serve_engine(self) -> None:
        """The same for a served app, which goes on where it cannot, and says why in the log."""
        if self.settings.engine == "off" or not self.bound:
            return
        try:
            if self.has_work and not await self.start_engine():
                logger.info("Another process runs the flows of %s", self.database.name)
        except KhotanError as exc:
            logger.warning("Flows do not run here: %s %s", exc.message, exc.hint)

    async def stop(self) -> None:
        await self.engine.stop()
        self.host.run_queue.close()
        for plug in self.registry.plugs.values():
            await plug.aclose()
        await self.database.dispose()
