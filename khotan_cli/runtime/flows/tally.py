"""What a pass over a source came to, page by page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from khotan_cli.runtime.flows.recorder import Finished


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
class Tally:
    pages: int = 0
    complete: bool = True
    counts: dict[str, int] = field(default_factory=dict[str, int])
    unchanged: int = 0

    def take(self, done: Finished) -> None:
        """A page is done, by this execution or an earlier one."""
        self.pages += 1
        for name, count in done.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.unchanged += done.result["unchanged"]
        self.complete = self.complete and not done.counts.get("failed") and not done.result["cut"]

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
