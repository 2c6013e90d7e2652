"""`FlowContext`, the argument of a flow's function."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import FlowError, UnknownName
from khotan_cli.runtime.bulk.upsert import Unset
from khotan_cli.runtime.content.json_path import Path
from khotan_cli.runtime.database.ambient_session import current_session, session_scope
from khotan_cli.runtime.database.types import utc_now
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

    `flow`, `variant`, `body` (JSON from the trigger, or None), `source` ("manual", "scheduled", "webhook") and `run_id`
    describe the run. `event` is the webhook event of a handler's run. `plug` is the flow's plug, `to` a relay's second plug,
    `plugs` all plugs of the app by name. `dry` is true in a dry run, in which nothing is sent or stored.
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
        """The plug that a relay sends to. Raises FlowError if the flow is not a relay."""
        if self._flow.to is None:
            raise FlowError(f"Flow {self.flow!r} is not a relay: it has no second plug", hint="Use @relay(…, to=…).")
        return self._flow.to

    # -- variables ---------------------------------------------------------------------------------------------------

    async def vars(self, plug: Plug | str | None = None) -> Mapping[str, str]:
        """Read the current values of a plug's variables from the database. Default: the flow's plug."""
        target = self._plug(plug)
        target.shared.forget()
        values = (await target.resolve()).values
        self.recorder.secrets.add(target, values)
        return values

    async def set_vars(self, values: Mapping[str, str], plug: Plug | str | None = None) -> None:
        """Store values of a plug's variables, encrypted. Raises UnknownName for an undeclared variable."""
        target = self._plug(plug)
        for name in values:
            if name not in target.declared_vars():
                raise UnknownName("var", name, target.declared_vars(), where=f"plug {target.name!r}")
        if self.dry:
            self.recorder.wrote(f"variables of {target.name}", {"set": len(values)}, sorted(values))
            return
        self.recorder.forbid_open_session("No variable can be stored")
        await self._env.vars.save(target.name, values)
        target.shared.forget()
        self.recorder.secrets.add(target, values)

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
        """Write every page of an endpoint into a table: validate, skip unchanged rows, insert or update the others.

        Each page is one durable step: a resumed run continues with the next page. into: a SQLModel table class. key: its
        unique column or columns that identify a record. params: parameters of the endpoint. transform: a function of an item
        that returns a mapping or a model with the table's columns, or None to skip the item. exclude_on_update: columns set
        only when a row is created. dedupe: which of several items with the same key wins. delete_missing: afterwards, delete
        the rows (matching the SQL condition `delete_where`, if given) whose key the source did not return; never after a pass
        that was cut short, had invalid items, whose params changed during an interruption, whose total changed, or that
        returned nothing, unless allow_empty. Parameters that filter the records need a delete_where with the same condition.
        max_delete: maximum share of the rows that one run may delete, above 0 and up to 1; default: half of the rows, and
        always up to 10 rows. A run that would delete more fails before it deletes. unset: columns whose field an item did not
        set "keep" their value, or get the model's "default". prefetch: fetch the next page while one is written. on_invalid:
        "fail" ends the run at the first invalid item; "skip" stores it for inspection, counts it as failed and continues.

        Raises ConfigError if table, key and records do not match; PlugError and its subclasses for failed calls.
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

        key: the field or fields that identify a record; a select is read in their order, `page` rows per durable step.
        body: a function of a record that returns the body (a mapping or a model), or None to skip the record; default: the
        record. update: an endpoint for records that the service already has; its path parameter gets the id. ref: path of the
        id in the response to the first call; default: the path that the flow's resource declares, else "id". The id is stored
        in the mappings of the flow's resource, or privately for the flow; a response without it fails the run. delete: an
        endpoint for records that were sent and are no longer in the source, called after the source was read completely; their
        mappings are deleted too. max_delete: maximum share of the sent records that one run may delete, above 0 and up to 1;
        default: half of them, and always up to 10. ids, headers: functions of a record, or of a record and its `SentRecord`,
        that return further parameters and headers of the call. etag: store the ETag of each response and send it with the next
        update as If-Match (RFC 9110 13.1.1); a record that was changed at the service meanwhile is rejected with both versions,
        not overwritten. batch: records per call; the body is then a list, or `{batch_key: list}`. outcomes: a function of
        response and records that returns for each record None (accepted) or a reason. skip_unchanged: skip records that the
        service already has, because they were sent or read before. on_error: "skip" counts and stores a rejected record and
        continues; "fail" ends the run. name: name of the private state; default: the table or endpoint of the source. You need
        it only if a flow pushes two different lists to one endpoint.

        The outcome of each call is stored as soon as it is known: after a crash, records are not sent again, except for calls
        in progress. A successful response with an invalid body counts as sent and is reported in the run's log. Raises
        ConfigError for options that do not match.
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
        """Return the mappings of a resource. Raises UnknownName."""
        if resource not in self._env.resources:
            raise UnknownName("resource", resource, self._env.resources)
        return Mappings(self._env.resources[resource], self._env.mappings)

    def cache(self, name: str) -> RunCache:
        """Return a cache of the app. Changes in a step are stored with the step. Raises UnknownName."""
        if name not in self._env.caches:
            raise UnknownName("cache", name, self._env.caches)
        cache = self._env.caches[name]
        owner = {"app": "", "flow": self.flow, "variant": f"{self.flow}/{self.variant}"}[cache.scope]
        return RunCache(cache, self._env.entries, owner, self.write)

    def cursor(self, name: str) -> Cursor:
        """Return a value that this flow keeps between runs. A change in a step is stored in the step's transaction."""
        return Cursor(name, self.flow, self._env.entries, self.write)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a database session that is committed at the end of the block, or rolled back in a dry run. Changes to
        mappings, caches and cursors inside the block belong to the same transaction, except changes in a step, which are
        stored with the step. Log lines are kept after a rollback. On SQLite no step can begin inside the block.
        """
        self.recorder.forbid_open_session("No other session can be opened")
        async with self.recorder.session() as session:
            yield session

    async def ensure_table(self, *models: type[Any]) -> None:
        """Create the missing tables of these models. Existing tables are not changed."""
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
        """Run a declared step, or return its stored result if an earlier execution finished it."""
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
                    "warning", f"{name}: attempt {tries} failed with {type(exc).__name__}; retrying"
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
        """Run a function that writes to a session, exactly once. In a step, it runs at the end of the step, in its
        transaction. In an open session, it runs in that session. Otherwise it is a step of its own, which a resumed run
        skips.

            async def save(session: AsyncSession) -> None: ...
            await ctx.write("save the order", save)
        """
        scope = scope_now.get()
        if scope is not None:
            scope.writes.append(work)
            return
        if (session := current_session(self._env.database)) is not None and session.usable:
            async with session_scope(self._env.database) as scoped:
                await work(scoped)
            return
        step = self.recorder.name(name)
        if self.recorder.finished(step) is None:
            await self.recorder.ensure_owner()
            await self.recorder.commit(step, work)

    # -- reporting ---------------------------------------------------------------------------------------------------

    async def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Report the progress of the run, which is shown live."""
        await self.recorder.progress({"done": done, "total": total, "message": message})

    async def log(self, message: str, level: str = "info") -> None:
        """Add a line to the run's log. Secrets of the app's plugs are masked."""
        await self.recorder.log(level, str(message))

    async def sleep(self, seconds: float) -> None:
        """Sleep. If the run is cancelled meanwhile, it stops within a second."""
        remaining = seconds
        while remaining > 0:
            await self.recorder.ensure_owner()
            await asyncio.sleep(min(1.0, remaining))
            remaining -= 1.0
