"""The life of one execution: begin, call the flow's function, end with a status; whatever the function does."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from khotan_cli.errors import FlowError, PlugError
from khotan_cli.runtime.database.database import patience
from khotan_cli.runtime.flows.context import FlowContext
from khotan_cli.runtime.runs.definition import COUNTERS, Flow, RunResult
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.errors import failure_of
from khotan_cli.runtime.runs.hooks import RunInfo
from khotan_cli.runtime.runs.steps import OUTAGE_SECONDS, Outcome, StepRecorder, retry_while_database_down
from khotan_cli.runtime.runs.user_code import user_code_guard
from khotan_cli.runtime.store.runs import RunCancelled, RunData, RunLost, StepsLost
from khotan_cli.runtime.worker.unknown_flow import lacking, unknown_flow

RESULT_STEP = "result"
_LARGEST_COUNT = 2**63 - 1

logger = logging.getLogger("khotan.flows")


async def execute(env: Environment, run_id: str) -> str:
    """Run, or resume, a stored run; returns its status. Raises nothing but what interrupts the process."""
    with patience(OUTAGE_SECONDS):
        while True:
            try:
                return await _execute(env, run_id)
            except StepsLost:
                logger.warning("Run %s starts again from what is in the database: the server crashed", run_id)


async def _execute(env: Environment, run_id: str) -> str:
    row = await retry_while_database_down(lambda: env.runs.begin(run_id, env.code))
    if row is None:
        return "cancelled"
    flow = env.flows.get(row.flow)
    recorder = StepRecorder(env, flow, run_id, row.epoch)
    status, message, error = "failed", None, None
    try:
        if row.cancel_requested:
            raise RunCancelled
        flow, variant = _declared(env, row)
        await _check_plugs(env, flow)
        await recorder.load()
        if row.epoch > 1:
            for plug in flow.plugs:
                plug.shared.forget()  # a variable may be what stopped the run
        if row.epoch == 1:
            await notify_hooks(env, flow, row, started=True)
        ctx = FlowContext(env, flow, recorder, variant=variant, body=row.body, source=row.source)
        status, message = "completed", await run_function(flow, ctx)
    except StepsLost:
        raise
    except RunLost:
        logger.info("Run %s is another process's now", run_id)
        return "lost"
    except RunCancelled:
        status = "cancelled"
    except Exception as exc:
        status, error = "failed", await failure_of(exc, env, flow)
        logger.warning("Run %s of flow %s failed: %s", run_id, row.flow, error["message"])
    ended = await retry_while_database_down(
        lambda: env.runs.finish(run_id, row.epoch, status, message=message, error=error)
    )
    if ended is not None:
        await notify_hooks(env, flow, ended, started=False)
    return status if ended is None else str(ended.status)


async def run_function(flow: Flow, ctx: FlowContext) -> str | None:
    """Call the flow's function under its timeout, and count what it returns; its message."""
    clock = asyncio.timeout(flow.timeout)
    try:
        with user_code_guard(f"Flow {flow.name!r}", whole=True):
            async with clock:
                result = await flow.function(ctx)
    except TimeoutError:
        if not clock.expired():
            raise
        raise FlowError(
            f"Flow {flow.name!r} took longer than {flow.timeout:g} s",
            code="flow_timeout",
            hint="Raise timeout=…, or do less in one run. What is done stays done: retry goes on from a step.",
        ) from None
    if result is None:
        return None
    if not isinstance(result, RunResult):
        raise FlowError(
            f"Flow {flow.name!r} returned {type(result).__name__}, not a RunResult or nothing",
            hint="return RunResult(message=…), or leave the return out. What its steps did stays done.",
        )
    _check_result(flow, result)
    if result.counts and ctx.recorder.finished(RESULT_STEP) is None:

        async def count(_: Any) -> Outcome:
            return Outcome(None, result.counts)

        await ctx.recorder.commit(RESULT_STEP, count)
    return (await ctx.recorder.secrets.masker()).text(result.message) if result.message else None


def _check_result(flow: Flow, result: RunResult) -> None:
    """Raises FlowError for what the run's row has no room for."""
    given: Any = result.message
    if given is not None and not isinstance(given, str):
        raise FlowError(
            f"Flow {flow.name!r} returned a message of type {type(given).__name__}, not a text",
            hint='RunResult(message="…"). What its steps did stays done.',
        )
    for name in COUNTERS:
        given = getattr(result, name)
        if type(given) is not int or not 0 <= given <= _LARGEST_COUNT:
            raise FlowError(
                f"Flow {flow.name!r} returned {name}={given!r:.40}, which is no count",
                hint="A count is a whole number, 0 or more. What its steps did stays done.",
            )


def _declared(env: Environment, row: RunData) -> tuple[Flow, str]:
    if lacking(env, row):
        raise unknown_flow(row)
    flow = env.flows[row.flow]
    return flow, flow.variant(row.variant)


async def _check_plugs(env: Environment, flow: Flow) -> None:
    for plug in flow.plugs:
        if not await env.vars.enabled(plug.name):
            raise PlugError(
                f"Plug {plug.name!r} is disabled",
                plug=plug.name,
                code="plug_disabled",
                hint="Enable it, then retry the run.",
                next=[f"khotan plug {plug.name} --enable"],
            )


async def notify_hooks(env: Environment, flow: Flow | None, row: RunData, *, started: bool) -> None:
    """Call the hooks of the app, of the flow if there still is one, and of its variant.

    Of an end tells who has ended the run, by a guarded update: so it is told once.
    """
    info = run_info(row)
    variant = None if flow is None else flow.variants.get(row.variant or "")
    for hooks in (env.hooks, *([flow.hooks] if flow else []), *([variant.hooks] if variant else [])):
        await (hooks.started(info) if started else hooks.ended(info))


def run_info(row: RunData) -> RunInfo:
    return RunInfo(
        id=row.id,
        flow=row.flow,
        variant=row.variant,
        status=row.status,
        source=row.source,
        counts={name: getattr(row, name) for name in COUNTERS},
        message=row.message,
        error=row.error,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
