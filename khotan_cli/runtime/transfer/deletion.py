"""`delete_missing`: deletes rows that a complete pass over the source did not return. Does nothing if in doubt."""

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
"""Default maximum share of the rows that one run may delete."""
ALWAYS_ALLOWED = 10
"""By default, this many rows may always be deleted: in a small table, normal changes exceed the share."""
_NOT_FILTERS = frozenset(
    {
        "limit", "per_page", "page_size", "pagesize", "perpage", "size", "count", "first", "top", "$top", "rows", "take",
        "max_results", "maxresults", "maxrecords", "max_records", "batch_size", "chunk_size", "fields", "$select", "select",
        "expand", "$expand", "include", "includes", "embed", "sort", "sort_by", "sortby", "order", "order_by", "orderby",
        "$orderby", "direction", "format", "locale", "lang", "language", "pretty",
    }
)  # fmt: skip
"""Lower-case names of parameters that do not filter the records."""


@dataclass(frozen=True)
class DeleteOptions:
    """The deletion options of `ctx.sync`."""

    enabled: bool
    where: Any
    allow_empty: bool
    max_delete: float | None

    def check(self, params: Mapping[str, Any], paginator: Paginator) -> None:
        """Raises ConfigError for options that contradict each other."""
        if not self.enabled:
            if self.where is not None or self.max_delete is not None:
                raise ConfigError(
                    "sync: delete_where and max_delete need delete_missing=True",
                    hint="Add delete_missing=True, or remove them.",
                )
            return
        if self.max_delete is not None and not 0 < self.max_delete <= 1:
            raise ConfigError(
                f"sync: invalid max_delete={self.max_delete}", hint="Use a share of the rows, above 0 and up to 1."
            )
        own = {str(getattr(paginator, name, "")).lower() for name in ("size_param",)}
        limiting = [name for name in params if str(name).lower() not in _NOT_FILTERS | own]
        if limiting and self.where is None:
            raise ConfigError(
                f"sync: the parameters {', '.join(map(repr, limiting))} may filter the records, and delete_missing would "
                "delete the rows that were filtered out",
                hint="Add delete_where with the same condition, such as delete_where=(Row.shop == shop). If the parameters "
                "select every row, add delete_where=sqlalchemy.true().",
            )


class Deletion:
    """The deletion step of one sync."""

    def __init__(
        self, name: str, table: str, recorder: StepRecorder, seen: KeySet, options: DeleteOptions, flow: str
    ) -> None:
        self.name, self._table, self._flow = f"{name} delete missing", table, flow
        self._sync, self._recorder, self._seen, self._options = name, recorder, seen, options

    async def run(self, totals: RunningTotals) -> int:
        """Delete the missing rows, once. Returns the number of rows. Raises FlowError if they exceed the limit."""
        done = self._recorder.finished(self.name)
        if done is None:
            try:
                done = await self._unless(self._why_not(totals))
            except NothingMet:
                done = await self._unless("because no row of the table has a key that the source returned")
            except TooManyMissing as exc:
                raise self._stopped(exc) from None
        deleted: int = done.result["deleted"]
        return deleted

    async def _unless(self, why: str) -> Finished:
        """Run the step. With a reason, delete nothing and log it. Raises NothingMet if nothing was deleted."""
        if why:
            await self._recorder.log("warning", f"{self._sync}: nothing was deleted {why}")

        async def work(session: AsyncSession) -> Outcome:
            if why:
                return Outcome({"deleted": 0, "why": why})
            deleted = await self._seen.delete_missing(
                session, self._options.where, most=self._max_share, spared=self._always_allowed
            )
            await self._seen.clear(session)
            self._recorder.wrote(self._table, {"deleted": deleted})
            return Outcome({"deleted": deleted}, {"deleted": deleted})

        return await self._recorder.commit(self.name, work)

    @property
    def _max_share(self) -> float | None:
        if self._options.max_delete is not None:
            return self._options.max_delete
        return None if self._options.allow_empty else DEFAULT_MAX_SHARE

    @property
    def _always_allowed(self) -> int:
        return ALWAYS_ALLOWED if self._options.max_delete is None else 0

    def _why_not(self, totals: RunningTotals) -> str:
        if not totals.complete:
            return f"because the pass was not complete{f': {totals.doubt}' if totals.doubt else ''}"
        if not totals.came and not self._options.allow_empty:
            what = "every record was skipped" if totals.counts.get("extracted") else "the source returned no records"
            return f"because {what} (allow_empty=True allows it)"
        return ""

    def _stopped(self, exc: TooManyMissing) -> FlowError:
        share = exc.missing / exc.rows
        enough = min(1.0, round(share + 0.05, 2))
        return FlowError(
            f"{self._sync}: {exc.missing} of {exc.rows} rows of {self._table} ({share:.0%}) are missing from the source and "
            f"would be deleted; the limit is {self._max_share:.0%}",
            code="too_many_deletions",
            hint=f"Nothing was deleted. If the source is right, raise the limit: ctx.sync(…, max_delete={enough}).",
            next=[f"khotan flows trigger {self._flow} --dry-run"],
            details={"table": self._table, "missing": exc.missing, "rows": exc.rows, "maxDelete": self._max_share},
        )
