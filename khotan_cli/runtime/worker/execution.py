"""Executes one run: begins it, calls the flow's function, and ends it with a status."""

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
_MAX_COUNT = 2**63 - 1

logger = logging.getLogger("khotan.flows")


async def execute(env: Environment, run_id: str) -> str:
    """Start or resume a stored run, and return its status. Raises KhotanError only if the end cannot be stored."""
    with patience(OUTAGE_SECONDS):
        while True:
            try:
                return await _execute(env, run_id)
            except StepsLost:
                logger.warning("Run %s resumes from the stored steps: the database server crashed", run_id)


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
                plug.shared.forget()  # a wrong variable may have stopped the run
        if row.epoch == 1:
            await notify_hooks(env, flow, row, started=True)
        ctx = FlowContext(env, flow, recorder, variant=variant, body=row.body, source=row.source)
        status, message = "completed", await run_function(flow, ctx)
    except StepsLost:
        raise
    except RunLost:
        logger.info("Run %s now belongs to another process", run_id)
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
    """Call the flow's function with its timeout, and store the counts that it returns. Returns its message."""
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
            hint="Raise timeout=…, or do less in one run. Finished steps are kept: you can retry from a step.",
        ) from None
    if result is None:
        return None
    if not isinstance(result, RunResult):
        raise FlowError(
            f"Flow {flow.name!r} returned {type(result).__name__}, not a RunResult or None",
            hint="Return RunResult(message=…), or nothing. The results of its steps are kept.",
        )
    _check_result(flow, result)
    if result.counts and ctx.recorder.finished(RESULT_STEP) is None:

        async def count(_: Any) -> Outcome:
            return Outcome(None, result.counts)

        await ctx.recorder.commit(RESULT_STEP, count)
    return (await ctx.recorder.secrets.masker()).text(result.message) if result.message else None


def _check_result(flow: Flow, result: RunResult) -> None:
    """Raises FlowError if the result cannot be stored."""
    value: Any = result.message
    if value is not None and not isinstance(value, str):
        raise FlowError(
            f"Flow {flow.name!r} returned a message of type {type(value).__name__}, not a str",
            hint='Return RunResult(message="…"). The results of its steps are kept.',
        )
    for name in COUNTERS:
        value = getattr(result, name)
        if type(value) is not int or not 0 <= value <= _MAX_COUNT:
            raise FlowError(
                f"Flow {flow.name!r} returned an invalid count: {name}={value!r:.40}",
                hint="Use whole numbers, 0 or more. The results of its steps are kept.",
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
    """Call the hooks of the app, the flow (if it still exists) and its variant.

    End hooks run once, in the process whose guarded update ended the run.
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
