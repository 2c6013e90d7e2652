"""Selects which waiting runs start next, so that no slow or broken handler occupies every slot."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence

from khotan_cli.runtime.store.handler_queue import Waiting
from khotan_cli.runtime.store.runs import RunData

MAX_SHARE = 0.75
"""Maximum share of the slots for one handler, if there are several handlers."""
SUSPECT_CRASHES = 3
"""Number of starts without an end after which a run is suspected of crashing the process."""


def crashes(run: RunData) -> int:
    """Count the earlier starts of a running run that ended in neither success nor failure."""
    return int(run.epoch - 1 - run.failures)


def select_runs(
    waiting: Sequence[Waiting], running: Iterable[RunData], handlers: Collection[str], concurrency: int
) -> list[str]:
    """Return the ids of the runs to start.

    waiting: runs that may start, oldest events first. handlers: enabled handlers, busy or not. concurrency: number of slots.

    The handler with the fewest running runs comes first, then the oldest event. A handler gets at most MAX_SHARE of the
    slots, and the last slot is reserved for a handler that runs nothing. Only one crash suspect runs at a time, so that a run
    that kills the process does not keep killing the same others.
    """
    running = list(running)
    busy, suspect_runs = Counter(run.flow for run in running), any(crashes(run) >= SUSPECT_CRASHES for run in running)
    limit = concurrency if len(handlers) < 2 else max(1, min(concurrency - 1, math.ceil(concurrency * MAX_SHARE)))
    queues: dict[str, deque[Waiting]] = {}
    for run in waiting:
        if run.lost >= SUSPECT_CRASHES:
            if suspect_runs:
                continue
            suspect_runs = True
        queues.setdefault(run.flow, deque()).append(run)
    selected = list[str]()
    for free in range(concurrency - len(running), 0, -1):
        reserved = free == 1 and any(not busy[name] for name in handlers)
        candidates = [name for name, queue in queues.items() if queue and busy[name] < (1 if reserved else limit)]
        if not candidates:
            break
        name = min(candidates, key=lambda name: (busy[name], queues[name][0].event_id))
        selected.append(queues[name].popleft().id)
        busy[name] += 1
    return selected
