"""Schedules: five cron fields, in a time zone."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from khotan_cli.errors import ConfigError

_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LOOKS_BACK = tuple(timedelta(minutes=10 * 8**power) for power in range(9))
"""Ten minutes to more than 300 years: a 29 February may be a Sunday only once in 40."""
_HINT = "Use five fields: minute hour day-of-month month day-of-week, such as */15 * * * * or 0 9 * * mon-fri."


@dataclass(frozen=True)
class Schedule:
    """When a variant is due. Raises ConfigError for an invalid schedule, a schedule that never occurs or an unknown time zone.

    cron: minute, hour, day of month, month, day of week; names (`mon`, `jan`), ranges, lists and steps. If both days are
    given, either matches (POSIX crontab). timezone: an IANA name. When clocks change, a time that does not exist runs at the
    next existing time, and a time that occurs twice runs once. If minute or hour begin with `*`, every matching time runs, and
    a time that does not exist does not (as in Debian's cron).
    """

    cron: str
    timezone: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _fields: str = field(init=False, repr=False, compare=False)
    _fixed: bool = field(init=False, repr=False, compare=False)
    _known: tuple[datetime, datetime] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        try:
            zone = ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"Unknown time zone {self.timezone!r}", hint="Use an IANA name such as Europe/Berlin, or UTC."
            ) from None
        text = " ".join(self.cron.split())
        fields = _NAMES.get(text.lower(), text)
        if len(fields.split(" ")) != 5 or not re.fullmatch(r"[A-Za-z0-9*/,\-# ?]+", fields):
            raise ConfigError(f"Invalid schedule {self.cron!r}: expected five fields", hint=_HINT)
        try:
            next(CronSim(fields, datetime.now()))
        except CronSimError as exc:
            raise ConfigError(f"Invalid schedule {self.cron!r}: {_reason(exc)}", hint=_HINT) from None
        except StopIteration:
            raise ConfigError(f"The schedule {self.cron!r} never occurs", hint="Check day and month.") from None
        minute, hour = fields.split(" ")[:2]
        object.__setattr__(self, "_zone", zone)
        object.__setattr__(self, "_fields", fields)
        object.__setattr__(self, "_fixed", not minute.startswith("*") and not hour.startswith("*"))

    def after(self, moment: datetime) -> datetime:
        """Return the first due time after the moment, in UTC."""
        known = self._known
        return known[1] if known and known[0] <= moment < known[1] else next(self.upcoming(moment))

    def upcoming(self, moment: datetime) -> Iterator[datetime]:
        """Yield the due times after the moment in ascending order, in UTC."""
        last = moment.astimezone(UTC)
        twice: list[datetime] = []
        # CronSim is used without time zones: with one, its results at a clock change depend on the start.
        for wall in CronSim(self._fields, self._wall_before(moment)):
            first, *second = self._moments(wall) or [last]
            while twice and twice[0] < first:
                if (due := heapq.heappop(twice)) > last:
                    last = due
                    yield due
            if first > last:
                last = first
                yield first
            for due in second:
                heapq.heappush(twice, due)

    def _wall_before(self, moment: datetime) -> datetime:
        """Return a wall-clock time that is not later than any due time after the moment."""
        here, soon = moment.astimezone(self._zone), (moment + timedelta(days=1)).astimezone(self._zone)
        now, then = here.utcoffset(), soon.utcoffset()
        assert now is not None and then is not None
        return here.replace(tzinfo=None) - max(now - then, timedelta(0))

    def _moments(self, wall: datetime) -> list[datetime]:
        """Return the due times in UTC at which the zone's clocks show that wall-clock time: none, one or two."""
        first = wall.replace(tzinfo=self._zone).astimezone(UTC)
        if first.astimezone(self._zone).replace(tzinfo=None) == wall:
            second = wall.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
            return [first] if self._fixed or second == first else [first, second]
        return self._moments(wall + timedelta(minutes=1)) if self._fixed else []

    def latest(self, moment: datetime) -> datetime:
        """Return the last due time at or before the moment, in UTC. Cached until the next due time."""
        known = self._known
        if known is None or not known[0] <= moment < known[1]:
            last = self._last(moment)
            known = last, next(self.upcoming(last))
            object.__setattr__(self, "_known", known)
        return known[0]

    def _last(self, moment: datetime) -> datetime:
        """Find a due time by looking back ever further, then bisect to the last one before the moment."""
        some = (next(self.upcoming(moment - back), None) for back in _LOOKS_BACK)
        low, high = next(due for due in some if due is not None and due <= moment), moment
        while (due := next(self.upcoming(low))) <= moment:
            middle = due + (high - due) / 2
            later = next(self.upcoming(middle))
            low, high = (later, high) if later <= moment else (due, middle)
        return low


def _reason(exc: CronSimError) -> str:
    text = str(exc)
    return text[:1].lower() + text[1:] if text else "a field is out of range"
