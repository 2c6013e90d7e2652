"""Schedules: five fields of cron, in a time zone."""

from __future__ import annotations

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
_HINT = "Five fields: minute hour day-of-month month day-of-week, like */15 * * * * or 0 9 * * mon-fri."


@dataclass(frozen=True)
class Schedule:
    """When a variant is due. Raises ConfigError for a text that is no schedule, or never comes, and an unknown time zone.

    cron: minute, hour, day of month, month, day of week; names (`mon`, `jan`), ranges, lists and steps; day and weekday both
    given: either (POSIX crontab). timezone: an IANA name. Where clocks change, a time that does not exist runs at the next
    one that does, and one that comes twice runs once (as Debian's cron).
    """

    cron: str
    timezone: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _fields: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            zone = ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(f"{self.timezone!r} is not a time zone", hint="Like Europe/Berlin, or UTC.") from None
        text = " ".join(self.cron.split())
        fields = _NAMES.get(text.lower(), text)
        if len(fields.split(" ")) != 5 or not re.fullmatch(r"[A-Za-z0-9*/,\-# ?]+", fields):
            raise ConfigError(f"{self.cron!r} is not a schedule: it has not five fields", hint=_HINT)
        try:
            next(CronSim(fields, datetime.now(zone)))
        except CronSimError as exc:
            raise ConfigError(f"{self.cron!r} is not a schedule: {_reason(exc)}", hint=_HINT) from None
        except StopIteration:
            raise ConfigError(f"The schedule {self.cron!r} never comes", hint="Check day and month.") from None
        object.__setattr__(self, "_zone", zone)
        object.__setattr__(self, "_fields", fields)

    def after(self, moment: datetime) -> datetime:
        """The first due moment after that one, in UTC."""
        return next(self.upcoming(moment))

    def upcoming(self, moment: datetime) -> Iterator[datetime]:
        """The due moments after that one, in UTC."""
        for due in CronSim(self._fields, moment.astimezone(self._zone)):
            yield due.astimezone(UTC)

    def latest(self, moment: datetime) -> datetime:
        """The last due moment at or before that one, in UTC."""
        # The simulation leaves its start out; a due moment is a whole minute.
        start = moment.astimezone(self._zone) + timedelta(microseconds=1)
        return next(CronSim(self._fields, start, reverse=True)).astimezone(UTC)


def _reason(exc: CronSimError) -> str:
    text = str(exc)
    return text[:1].lower() + text[1:] if text else "a field is out of range"
