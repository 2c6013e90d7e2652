"""`FlowContext`: what a flow's function is given."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import FlowError, UnknownName
from khotan_cli.runtime.bulk.upsert import Unset
from khotan_cli.runtime.database.ambient_session import current_session, session_scope
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.http.json_path import Path
from khotan_cli.runtime.plugs.endpoint import BoundEndpoint
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.resources.mappings import Mappings
from khotan_cli.runtime.runs.cursors import Cursor, RunCache
from khotan_cli.runtime.runs.definition import Flow, Step
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.step_results import decode_result, is_permanent, with_step_timeout
from khotan_cli.runtime.runs.steps import Outcome, StepRecorder, StepScope, Work, as_json, scope_now
from khotan_cli.runtime.runs.user_code import user_code_guard
from khotan_cli.runtime.store.runs import RunCancelled, RunLost
from khotan_cli.runtime.transfer.deletion import DeleteOptions
from khotan_cli.runtime.transfer.push import Push, PushResult
from khotan_cli.runtime.transfer.push_options import Body, ByRecord, OnError, Outcomes, PushOptions
from khotan_cli.runtime.transfer.sync import Dedupe, OnInvalid, Sync, Transform
from khotan_cli.runtime.transfer.sync_result import SyncResult

R = TypeVar("R")


class FlowContext:
    """One execution of a run.

    `flow`, `variant`, `body` (what the trigger gave, JSON or None), `source` ("manual", "scheduled", "webhook") and `run_id`
    say what runs and why; `event` is the webhook event that a handler runs for. `plug` is the flow's plug, `to` a relay's
    second one, `plugs` all of the app by name. `dry` is true while nothing is sent or stored for good.
    """

    def __init__(
        self,
        env: Environment,
        flow: Flow,
        recorder: StepRecorder,
        *,
        variant: str,
        body: Any = None,
        source: str = "manual",
    ) -> None:
        self._env, self._flow, self.recorder = env, flow, recorder
        self.variant, self.body, self.source = variant, body, source
        self.flow, self.run_id, self.dry = flow.name, recorder.run_id, recorder.dry
        self.plugs = env.plugs
        self.event: Any = None

    @property
    def plug(self) -> Plug:
        """The flow's plug. Raises FlowError for an ingest without one."""
        return self._flow.plug

    @property
    def to(self) -> Plug:
        """The plug that a relay sends to. Raises FlowError in a flow that is none."""
        if self._flow.to is None:
            raise FlowError(f"Flow {self.flow!r} is no relay: it has no second plug", hint="@relay(source, to=…)")
        return self._flow.to

    # -- variables ---------------------------------------------------------------------------------------------------

    async def vars(self, plug: Plug | str | None = None) -> Mapping[str, str]:
        """The values of a plug's variables, read afresh from the database; default: the flow's plug."""
        found = self._plug(plug)
        found.shared.forget()
        values = (await found.resolve()).values
        self.recorder.secrets.add(found, values)
        return values

    async def set_vars(self, values: Mapping[str, str], plug: Plug | str | None = None) -> None:
        """Store values of a plug's variables, encrypted. Raises UnknownName for one that is not declared."""
        found = self._plug(plug)
        for name in values:
            if name not in found.declared_vars():
                raise UnknownName("var", name, found.declared_vars(), where=f"plug {found.name!r}")
        if self.dry:
            self.recorder.wrote(f"variables of {found.name}", {"set": len(values)}, sorted(values))
            return
        self.recorder.forbid_open_session("No variable can be stored")
        await self._env.vars.save(found.name, values)
        found.shared.forget()
        self.recorder.secrets.add(found, values)

    def _plug(self, plug: Plug | str | None) -> Plug:
        if plug is None:
            return self.plug
        if isinstance(plug, Plug):
            return plug
        if plug not in self.plugs:
            raise UnknownName("plug", plug, self.plugs)
        return self.plugs[plug]

    # -- records -----------------------------------------------------------------------------------------------------

    async def sync(
        self,
        endpoint: BoundEndpoint[Any],
        *,
        into: type[Any],
        key: str | Sequence[str],
        params: Mapping[str, Any] | None = None,
        transform: Transform | None = None,
        exclude_on_update: Sequence[str] = (),
        dedupe: Dedupe = "last",
        delete_missing: bool = False,
        delete_where: Any = None,
        allow_empty: bool = False,
        max_delete: float | None = None,
        prefetch: bool = True,
        on_invalid: OnInvalid = "fail",
        unset: Unset = "keep",
    ) -> SyncResult:
        """Bring every page of an endpoint into a table: validate, leave out what is unchanged, insert or update.

        Each page is one durable step: a resumed run goes on with the next page. into: a SQLModel table class. key: its
        column, or columns, that tell records apart (unique). params: of the endpoint. transform: a function of an item
        that returns a mapping or a model with the table's columns, or None to leave it out. exclude_on_update: columns set
        when a row is made and never again. dedupe: which of several items with one key wins. delete_missing: afterwards
        delete rows (of `delete_where`, an SQL condition, if given) whose key did not come; never after a pass that was cut
        short, that had invalid items, whose params changed while it was interrupted, whose total changed, or that brought
        nothing, unless allow_empty. Parameters that limit what comes need a delete_where that limits the rows alike.
        max_delete: the share of the rows, above 0 and up to 1, that one run may delete; by default half of them, and 10 rows
        in any case; a run that would delete more fails before it deletes. unset: columns whose field an item did not set
        "keep" their value, or get the model's "default". prefetch: fetch the next page while one is written. on_invalid:
        "fail" ends the run at the first item that is not as declared; "skip" keeps it for inspection, counts it as failed
        and goes on.

        Raises ConfigError where table, key and records do not fit; PlugError and its kinds for failed calls.
        """
        return await Sync(
            self._env,
            self._flow,
            self.recorder,
            endpoint,
            into=into,
            key=(key,) if isinstance(key, str) else tuple(key),
            params=params or {},
            transform=transform,
            exclude_on_update=exclude_on_update,
            dedupe=dedupe,
            deletion=DeleteOptions(delete_missing, delete_where, allow_empty, max_delete),
            prefetch=prefetch,
            on_invalid=on_invalid,
            unset=unset,
        ).run()

    async def push(
        self,
        source: Any,
        endpoint: BoundEndpoint[Any],
        *,
        key: str | Sequence[str],
        body: Body | None = None,
        update: BoundEndpoint[Any] | None = None,
        delete: BoundEndpoint[Any] | None = None,
        ref: Path | None = None,
        ids: ByRecord | None = None,
        headers: ByRecord | None = None,
        etag: bool = False,
        params: Mapping[str, Any] | None = None,
        batch: int = 1,
        batch_key: str | None = None,
        outcomes: Outcomes | None = None,
        concurrency: int = 4,
        page: int = 200,
        skip_unchanged: bool = True,
        on_error: OnError = "skip",
        max_delete: float | None = None,
        name: str = "",
    ) -> PushResult:
        """Send records to an endpoint: rows of a select, items of another endpoint's pages, or any iterable of mappings.

        key: the field, or fields, that name a record; a select is read in their order, `page` rows per durable step.
        body: a function of a record that returns what is sent (a mapping or a model), or None to leave it out; default: the
        record. update: an endpoint for records that the service has already; its path parameter gets the id, which `ref`
        finds in the answer to the first call (path; default: where the flow's resource says, else "id") and the mapping
        keeps: under the flow's resource, or else privately for this flow. An answer without that id fails the run.
        delete: an endpoint for records that were sent and are no longer in the source, after a complete reading of it;
        their mappings go too. max_delete: the share of the records sent, above 0 and up to 1, that one run may delete; by
        default half of them, and 10 in any case. ids, headers: functions of a record, or of a record and what is known of it
        (`SentRecord`), that give further parameters, and headers, of the call. etag: keep the ETag of each answer and send it
        with the next update as If-Match (RFC 9110 13.1.1): a record that was changed at the service meanwhile is rejected,
        with both versions, and not overwritten. batch: records per call (then the body is a list, or `{batch_key: list}`),
        and outcomes a function of answer and records that says for each record None (fine) or why not. skip_unchanged: leave
        out what the service is known to have already, be it that it was sent before or that it came from there. on_error:
        "skip" counts and keeps a record that the service refuses and goes on; "fail" ends the run. name: of what is kept
        privately of records sent; by default that of the table or endpoint they come from, so that it is needed only where a
        flow pushes two lists of different things to one endpoint.

        Each call's outcome is stored when it is known: after a crash what has been sent is not sent again, save the calls
        that were under way. A successful answer whose body is not as declared counts as sent, and is reported in the run's
        log. Raises ConfigError for parts that do not fit.
        """
        options = PushOptions(
            key=(key,) if isinstance(key, str) else tuple(key),
            body=body,
            update=update,
            delete=delete,
            ref=ref,
            ids=ids,
            headers=headers,
            etag=etag,
            params=params or {},
            batch=batch,
            batch_key=batch_key,
            outcomes=outcomes,
            concurrency=concurrency,
            page=page,
            skip_unchanged=skip_unchanged,
            on_error=on_error,
            max_delete=max_delete,
            name=name,
        )
        return await Push(self._env, self._flow, self.recorder, source, endpoint, options).run()

    def mapping(self, resource: str) -> Mappings:
        """The mappings of a resource. Raises UnknownName."""
        if resource not in self._env.resources:
            raise UnknownName("resource", resource, self._env.resources)
        return Mappings(self._env.resources[resource], self._env.mappings)

    def cache(self, name: str) -> RunCache:
        """A cache of the app. What a step sets in it is stored with the step. Raises UnknownName."""
        if name not in self._env.caches:
            raise UnknownName("cache", name, self._env.caches)
        cache = self._env.caches[name]
        owner = {"app": "", "flow": self.flow, "variant": f"{self.flow}/{self.variant}"}[cache.scope]
        return RunCache(cache, self._env.entries, owner, self.write)

    def cursor(self, name: str) -> Cursor:
        """A value that this flow keeps from run to run. What a step sets is stored with the step: together or not at all."""
        return Cursor(name, self.flow, self._env.entries, self.write)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session on the database, committed at the end of the block; in a dry run undone.

        What is done with mappings, caches and cursors inside the block belongs to it: all is committed, or nothing is; save
        what a step sets, which is stored with the step. The log outlives a rollback. On SQLite no step can begin inside.
        """
        self.recorder.forbid_open_session("No other session can be opened")
        async with self.recorder.session() as session:
            yield session

    async def ensure_table(self, *models: type[Any]) -> None:
        """Create the tables of these models where they are missing. A table that is there is left as it is."""
        from khotan_cli.runtime.bulk.table_schema import table_of

        tables = [table_of(model) for model in models]

        async def create(session: AsyncSession) -> Outcome:
            connection = await session.connection()
            for table in tables:
                await connection.run_sync(table.create, checkfirst=True)
            return Outcome()

        self.recorder.before(create)
        await self.write(f"ensure_table {', '.join(table.name for table in tables)}", create)

    # -- steps -------------------------------------------------------------------------------------------------------

    async def run_step(self, step: Step[Any, R], args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
        """Run a declared step, unless an earlier execution has: then its kept result."""
        name = self.recorder.name(step.name)
        done = self.recorder.finished(name)
        if done is not None:
            return decode_result(step, done.result)
        await self.recorder.ensure_owner()
        started, tries = utc_now(), 0
        while True:
            tries += 1
            scope = StepScope(name)
            token = scope_now.set(scope)
            try:
                with user_code_guard(f"Step {name!r}"):
                    async with asyncio.timeout(step.timeout):
                        value = await step.function(self, *args, **kwargs)
                break
            except (RunLost, RunCancelled):
                raise
            except Exception as exc:
                if tries >= step.retry.attempts or is_permanent(exc):
                    raise with_step_timeout(name, exc, step.timeout) from exc
                await self.recorder.log(
                    "warning", f"{name}: try {tries} failed with {type(exc).__name__}; trying again"
                )
            finally:
                scope_now.reset(token)
            bound = min(step.retry.max_backoff, step.retry.backoff * 2 ** (tries - 1))
            await asyncio.sleep(random.uniform(0, bound))
        result = as_json(name, value)
        await self.recorder.secrets.check_result(name, result)

        async def finish(session: AsyncSession) -> Outcome:
            for write in scope.writes:
                await write(session)
            return Outcome(result)

        await self.recorder.commit(name, finish, started_at=started, attempts=tries)
        return value

    async def write(self, name: str, work: Work) -> None:
        """Have a function of a session write, exactly once: in the transaction of the step that runs now, at its end; outside
        of one, as a step of its own, which a resumed run or a further try leaves out; in a session, as a part of that.

            async def save(session: AsyncSession) -> None: ...
            await ctx.write("save the order", save)
        """
        scope = scope_now.get()
        if scope is not None:
            scope.writes.append(work)
            return
        if (session := current_session(self._env.database)) is not None and session.usable:
            async with session_scope(self._env.database) as found:
                await work(found)
            return
        step = self.recorder.name(name)
        if self.recorder.finished(step) is None:
            await self.recorder.ensure_owner()
            await self.recorder.commit(step, work)

    # -- telling -----------------------------------------------------------------------------------------------------

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far the run is; shown live."""
        await self.recorder.progress({"done": done, "total": total, "message": message})

    async def log(self, message: str, level: str = "info") -> None:
        """Add a line to the run's log, the secrets of the app's plugs masked."""
        await self.recorder.log(level, str(message))

    async def sleep(self, seconds: float) -> None:
        """Wait; a run that is cancelled meanwhile stops waiting within a second."""
        remaining = seconds
        while remaining > 0:
            await self.recorder.ensure_owner()
            await asyncio.sleep(min(1.0, remaining))
            remaining -= 1.0
