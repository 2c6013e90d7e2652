"""Returns runs of unknown flows to the queue, for a worker that has the flow.

During a rolling deploy, workers with old and new code share one queue. A worker that does not have a run's flow does not
begin the run: it enqueues a successor of the queue entry, after a pause that doubles from 1 s to 60 s. While a worker with
other code is registered, the pause is at most 4 s for the first minutes. A run that has waited for a day fails with
`unknown_flow`, like the runs of missing handlers (`webhooks/handling/worker.py`).
"""

from __future__ import annotations

import logging
from datetime import timedelta

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.database.types import utc_now
from khotan_cli.runtime.runs.environment import Environment
from khotan_cli.runtime.runs.steps import retry_while_database_down
from khotan_cli.runtime.store.run_queue import successor_number
from khotan_cli.runtime.store.runs import ACTIVE, RunData

PATIENCE = timedelta(days=1)
"""How long a run waits for a worker that has its flow."""
_LONGEST_PAUSE = 60.0
_DEPLOY_PAUSE = 4.0
_DEPLOY_PAUSES = 60
"""Number of short pauses for a run: four minutes, in which old and new code run side by side."""

logger = logging.getLogger("khotan.flows")


def pause_after(number: int, *, deploying: bool = False) -> float:
    """Return the delay in seconds of a successor by its number, from 1: 1, 2, 4, … 60.

    deploying: a worker with other code is registered; then 1, 2, 4, 4, … for the first 60 successors.
    """
    longest = _DEPLOY_PAUSE if deploying and number <= _DEPLOY_PAUSES else _LONGEST_PAUSE
    return min(longest, 2.0 ** min(number - 1, 10))


def lacking(env: Environment, row: RunData) -> bool:
    """Whether this process does not have the run's flow or variant."""
    flow = env.flows.get(row.flow)
    return flow is None or bool(row.variant and row.variant not in flow.variants)


def overdue(row: RunData) -> bool:
    """Whether a run has waited for its flow for a day, since its creation or, if it had begun, its last update."""
    since = row.created_at if row.started_at is None else row.updated_at
    return bool(utc_now() - since >= PATIENCE)


def unknown_flow(row: RunData) -> ConfigError:
    """Return the error of a run whose flow did not appear within a day."""
    flow = f"flow {row.flow!r} with variant {row.variant!r}" if row.variant not in (None, "default") else None
    return ConfigError(
        f"This app has no {flow or f'flow {row.flow!r}'}; the run waited for it for a day",
        code="unknown_flow",
        hint="The flow was renamed or removed. Trigger the flow that replaces it.",
    )


async def handed_back(env: Environment, workflow_id: str, run_id: str) -> bool:
    """Return a run with an unknown flow to the queue. Returns whether that was done.

    False if this process has the flow, if the run has ended or is being cancelled, or if it is overdue: then execution ends
    it. Raises StoreError.
    """
    row = await retry_while_database_down(lambda: env.runs.get(run_id))
    if row is None or row.status not in ACTIVE or row.cancel_requested or not lacking(env, row) or overdue(row):
        return False
    workers = await retry_while_database_down(env.workers.all)
    deploying = any(worker.code != env.code for worker in workers)
    pause = pause_after(successor_number(workflow_id) + 1, deploying=deploying)

    async def back() -> None:
        async with env.database.writing() as session:
            await env.run_queue.enqueue_successor(session, workflow_id, pause)
            await env.runs.hand_back(session, run_id, row.epoch)

    await retry_while_database_down(back)
    logger.warning("Run %s waits %g s for a worker that has flow %s", run_id, pause, row.flow)
    return True
