"""The environment of runs: the app's plugs, declarations and stores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from khotan_cli.runtime.database.database import Database
from khotan_cli.runtime.plugs.plug import Plug
from khotan_cli.runtime.resources.caches import Cache
from khotan_cli.runtime.resources.mappings import Resource
from khotan_cli.runtime.runs.definition import Flow
from khotan_cli.runtime.runs.hooks import Hooks
from khotan_cli.runtime.store.caches import CacheStore
from khotan_cli.runtime.store.enabled_flows import FlowStore
from khotan_cli.runtime.store.mappings import MappingStore
from khotan_cli.runtime.store.run_queue import RunQueue
from khotan_cli.runtime.store.runs import RunStore
from khotan_cli.runtime.store.schedules import ScheduleStore
from khotan_cli.runtime.store.variables import DatabaseVarStore
from khotan_cli.runtime.store.workers import WorkerStore


@dataclass(frozen=True)
class Environment:
    """Everything a run needs apart from its own row."""

    database: Database
    vars: DatabaseVarStore
    plugs: Mapping[str, Plug]
    flows: Mapping[str, Flow]
    resources: Mapping[str, Resource]
    caches: Mapping[str, Cache]
    hooks: Hooks = field(default_factory=Hooks)
    code: str = ""
    """Fingerprint of the code of this process; empty if unknown."""
    more_secrets: list[Callable[[], Awaitable[Mapping[str, str]]]] = field(
        default_factory=list[Callable[[], Awaitable[Mapping[str, str]]]], repr=False
    )
    """Functions that return further secrets to mask in the output of runs: secret → description."""

    @property
    def runs(self) -> RunStore:
        return RunStore(self.database)

    @property
    def switches(self) -> FlowStore:
        return FlowStore(self.database)

    @property
    def schedules(self) -> ScheduleStore:
        return ScheduleStore(self.database)

    @property
    def mappings(self) -> MappingStore:
        return MappingStore(self.database)

    @property
    def entries(self) -> CacheStore:
        return CacheStore(self.database)

    @property
    def workers(self) -> WorkerStore:
        return WorkerStore(self.database)

    run_queue: RunQueue = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "run_queue", RunQueue(self.database))
