"""`delete_missing`: delete the rows that a complete pass over a source did not bring, and nothing in doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from khotan_cli.errors import ConfigError, FlowError
from khotan_cli.runtime.bulk.key_set import KeySet, NothingMet, TooManyMissing
from khotan_cli.runtime.paging.base import Paginator
from khotan_cli.runtime.runs.steps import Finished, Outcome, StepRecorder
from khotan_cli.runtime.transfer.sync_result import RunningTotals

DEFAULT_MAX_SHARE = 0.5
"""The share of the rows that a run may delete where the flow does not say."""
ALWAYS_ALLOWED = 10
"""So few rows may always be deleted where the flow does not say: a small table would be stopped by daily work."""
_ALL_COME_STILL = frozenset(
    {
        "limit", "per_page", "page_size", "pagesize", "perpage", "size", "count", "first", "top", "$top", "rows", "take",
        "max_results", "maxresults", "maxrecords", "max_records", "batch_size", "chunk_size", "fields", "$select", "select",
        "expand", "$expand", "include", "includes", "embed", "sort", "sort_by", "sortby", "order", "order_by", "orderby",
        "$orderby", "direction", "format", "locale", "lang", "language", "pretty",
    }
)  # fmt: skip
"""Names of parameters, in lower case, that change how records come, not which."""


@dataclass(frozen=True)
class DeleteOptions:
    """What `ctx.sync` was given about deletion."""

    enabled: bool
    where: Any
    allow_empty: bool
    max_delete: float | None

    def check(self, params: Mapping[str, Any], paginator: Paginator) -> None:
        """Raises ConfigError for options that cannot hold together."""
        if not self.enabled:
            if self.where is not None or self.max_delete is not None:
                raise ConfigError(
                    "sync: delete_where and max_delete have no meaning without delete_missing=True",
                    hint="Add delete_missing=True, or leave them out.",
                )
            return
        if self.max_delete is not None and not 0 < self.max_delete <= 1:
            raise ConfigError(
                f"sync: max_delete={self.max_delete} is no share of the rows", hint="A number above 0 and up to 1."
            )
        own = {str(getattr(paginator, name, "")).lower() for name in ("size_param",)}
        limiting = [name for name in params if str(name).lower() not in _ALL_COME_STILL | own]
        if limiting and self.where is None:
            raise ConfigError(
                f"sync: the parameters {', '.join(map(repr, limiting))} limit what comes, and delete_missing would delete "
                "the rows that were not asked for",
                hint="Say which rows the parameters ask for: delete_where=(Row.shop == shop). If they ask for every row: "
                "delete_where=sqlalchemy.true().",
            )


class Deletion:
    """The step of one sync that deletes."""

    def __init__(
        self, name: str, table: str, recorder: StepRecorder, seen: KeySet, options: DeleteOptions, flow: str
    ) -> None:
        self.name, self._table, self._flow = f"{name} delete missing", table, flow
        self._sync, self._recorder, self._seen, self._options = name, recorder, seen, options

    async def run(self, totals: RunningTotals) -> int:
        """Delete what is missing, once; how many rows. Raises FlowError where they are more than may be deleted."""
        done = self._recorder.finished(self.name)
        if done is None:
            try:
                done = await self._unless(self._why_not(totals))
            except NothingMet:
                done = await self._unless("for no row of the table has a key that came")
            except TooManyMissing as exc:
                raise self._stopped(exc) from None
        deleted: int = done.result["deleted"]
        return deleted

    async def _unless(self, why: str) -> Finished:
        """The step that deletes, or with a reason does not and says so. Raises NothingMet, with nothing deleted."""
        if why:
            await self._recorder.log("warning", f"{self._sync}: nothing was deleted, {why}")

        async def work(session: AsyncSession) -> Outcome:
            if why:
                return Outcome({"deleted": 0, "why": why})
            gone = await self._seen.delete_missing(session, self._options.where, most=self._most, spared=self._spared)
            await self._seen.clear(session)
            self._recorder.wrote(self._table, {"deleted": gone})
            return Outcome({"deleted": gone}, {"deleted": gone})

        return await self._recorder.commit(self.name, work)

    @property
    def _most(self) -> float | None:
        if self._options.max_delete is not None:
            return self._options.max_delete
        return None if self._options.allow_empty else DEFAULT_MAX_SHARE

    @property
    def _spared(self) -> int:
        return ALWAYS_ALLOWED if self._options.max_delete is None else 0

    def _why_not(self, totals: RunningTotals) -> str:
        if not totals.complete:
            return f"for the pass was not complete{f': {totals.doubt}' if totals.doubt else ''}"
        if not totals.came and not self._options.allow_empty:
            what = "every record was left out" if totals.counts.get("extracted") else "the source returned nothing"
            return f"for {what} (allow_empty=True allows it)"
        return ""

    def _stopped(self, exc: TooManyMissing) -> FlowError:
        share = exc.missing / exc.rows
        enough = min(1.0, round(share + 0.05, 2))
        return FlowError(
            f"{self._sync}: {exc.missing} of {exc.rows} rows of {self._table} ({share:.0%}) did not come and would be deleted; "
            f"at most {self._most:.0%} may be",
            code="too_many_deletions",
            hint=f"Nothing was deleted. If the source is right, allow it: ctx.sync(…, max_delete={enough}).",
            next=[f"khotan flows trigger {self._flow} --dry-run"],
            details={"table": self._table, "missing": exc.missing, "rows": exc.rows, "maxDelete": self._most},
        )
