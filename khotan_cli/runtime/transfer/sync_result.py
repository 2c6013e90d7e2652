"""The result of a sync, and its running totals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from khotan_cli.runtime.runs.steps import Finished


@dataclass(frozen=True)
class SyncResult:
    """The result of a sync. `complete`: every page was read with the same params, and no record was invalid."""

    extracted: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    deleted: int = 0
    failed: int = 0
    pages: int = 0
    complete: bool = True


@dataclass
class RunningTotals:
    pages: int = 0
    complete: bool = True
    doubt: str = ""
    counts: dict[str, int] = field(default_factory=dict[str, int])
    unchanged: int = 0
    deferred: int = 0

    def add_page(self, done: Finished) -> None:
        """Add a page that this or an earlier execution finished."""
        self.pages += 1
        for name, count in done.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.unchanged += done.result["unchanged"]
        # The keys of records that the database rejected are known: their rows do not count as missing.
        unknown = done.counts.get("failed", 0) - done.result.get("keyed", 0)
        self.deferred += done.result.get("deferred", 0)
        for reason in (
            f"{unknown} records could not be read" if unknown else "",
            "max_pages stopped it" if done.result["cut"] else "",
            done.result.get("doubt", ""),
        ):
            if reason:
                self.void(reason)

    def add_deferred(self, done: Finished) -> None:
        """Add the deferred records, which have now been written or rejected."""
        for name, count in done.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.unchanged += done.result["unchanged"]
        if done.counts.get("failed"):
            self.complete = False

    def void(self, reason: str) -> None:
        """Mark the pass as incomplete. The first reason is kept."""
        self.complete, self.doubt = False, self.doubt or reason

    @property
    def came(self) -> int:
        """Number of records of the pass that are now in the table."""
        return self.counts.get("created", 0) + self.counts.get("updated", 0) + self.unchanged

    @property
    def result(self) -> SyncResult:
        names = ("extracted", "created", "updated", "skipped", "deleted", "failed")
        counts = {name: self.counts.get(name, 0) for name in names}
        return SyncResult(**counts, unchanged=self.unchanged, pages=self.pages, complete=self.complete)


def fingerprint(params: Mapping[str, Any]) -> str:
    """Return a digest of a call's parameters, which may contain values that must not be stored."""
    text = orjson.dumps(
        to_jsonable_python(dict(params), fallback=repr), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    )
    return hashlib.blake2b(text, digest_size=8).hexdigest()
