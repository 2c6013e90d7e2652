"""What a pass over a source came to, page by page."""

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
    """What a sync did. `complete`: every page came, with nothing invalid, under one set of params."""

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
        """A page is done, by this execution or an earlier one."""
        self.pages += 1
        for name, count in done.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.unchanged += done.result["unchanged"]
        # Of a record that the database refused the key is known: it came, and its row is not missing.
        unknown = done.counts.get("failed", 0) - done.result.get("keyed", 0)
        self.deferred += done.result.get("deferred", 0)
        for why in (
            f"{unknown} records could not be read" if unknown else "",
            "max_pages ended it" if done.result["cut"] else "",
            done.result.get("doubt", ""),
        ):
            if why:
                self.void(why)

    def add_deferred(self, done: Finished) -> None:
        """The records that were put off have been written, or refused."""
        for name, count in done.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.unchanged += done.result["unchanged"]
        if done.counts.get("failed"):
            self.complete = False

    def void(self, why: str) -> None:
        """The pass cannot be taken for complete any more."""
        self.complete, self.doubt = False, self.doubt or why

    @property
    def came(self) -> int:
        """Records that are in the table now."""
        return self.counts.get("created", 0) + self.counts.get("updated", 0) + self.unchanged

    @property
    def result(self) -> SyncResult:
        names = ("extracted", "created", "updated", "skipped", "deleted", "failed")
        counts = {name: self.counts.get(name, 0) for name in names}
        return SyncResult(**counts, unchanged=self.unchanged, pages=self.pages, complete=self.complete)


def fingerprint(params: Mapping[str, Any]) -> str:
    """A digest of a call's parameters: they may hold what is not to be stored."""
    text = orjson.dumps(
        to_jsonable_python(dict(params), fallback=repr), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    )
    return hashlib.blake2b(text, digest_size=8).hexdigest()
