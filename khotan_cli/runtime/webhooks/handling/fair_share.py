"""Which of the runs that wait get the places that are free: no handler, however slow or broken, holds all of them."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence

from khotan_cli.runtime.store.handler_queue import Waiting
from khotan_cli.runtime.store.runs import RunData

MAX_SHARE = 0.75
"""Of the places, for one handler, where there are others."""
SUSPECT_CRASHES = 3
"""Starts of a run without an end after which it may be what brings the process down."""


def crashes(run: RunData) -> int:
    """Earlier starts of a run that runs which came to no end, not even a failure."""
    return int(run.epoch - 1 - run.failures)


def select_runs(
    waiting: Sequence[Waiting], running: Iterable[RunData], handlers: Collection[str], concurrency: int
) -> list[str]:
    """Ids of the runs to start. `waiting`: the oldest events first. `handlers`: those that may run, busy or not.

    Who runs least comes first, then the oldest event. A handler has at most MAX_SHARE of the places, and the last one is for one
    that runs nothing yet. Of suspects one runs at a time: what is started beside the one that kills is not killed for ever.
    """
    running = list(running)
    held, suspected = Counter(run.flow for run in running), any(crashes(run) >= SUSPECT_CRASHES for run in running)
    most = concurrency if len(handlers) < 2 else max(1, min(concurrency - 1, math.ceil(concurrency * MAX_SHARE)))
    queues: dict[str, deque[Waiting]] = {}
    for run in waiting:
        if run.lost >= SUSPECT_CRASHES:
            if suspected:
                continue
            suspected = True
        queues.setdefault(run.flow, deque()).append(run)
    found = list[str]()
    for free in range(concurrency - len(running), 0, -1):
        last = free == 1 and any(not held[name] for name in handlers)
        able = [name for name, queue in queues.items() if queue and held[name] < (1 if last else most)]
        if not able:
            break
        name = min(able, key=lambda name: (held[name], queues[name][0].event_id))
        found.append(queues[name].popleft().id)
        held[name] += 1
    return found
