"""Working days of Kazakhstan, and the two that a site has to tell the authority of a new pool.

Public holidays and the days off moved by law come from the ``holidays`` library; days that a government decree moves,
and feasts whose date it only estimates, are set right by the operator's own list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from config.rules.passports import local_day

SWITCH_NOTICE_DAYS = 2
"""Qualification requirements for the licence, rows 4 and 9: notice of another pool within two working days."""
_SATURDAY = 5
_SEARCH_DAYS = 60


@dataclass(frozen=True, slots=True)
class WorkCalendar:
    """Which days are worked. ``first`` to ``last`` is what is known; outside it weekends alone are days off."""

    off: frozenset[date]
    working: frozenset[date]
    """Weekend days that are worked by decree."""
    first: date
    last: date

    def works(self, day: date) -> bool:
        """True where it is a working day."""
        if day in self.working:
            return True
        return day.weekday() < _SATURDAY and day not in self.off

    def covers(self, day: date) -> bool:
        """True where the holidays of that day are known."""
        return self.first <= day <= self.last

    def after(self, day: date, count: int) -> date:
        """The last of ``count`` working days that follow a day; the day itself does not count.

        Raises:
            ValueError: ``count`` below 1, or no such day within two months.
        """
        if count < 1:
            raise ValueError(f"count: seen {count}, expected at least 1 working day")
        found = day
        for _ in range(_SEARCH_DAYS):
            found += timedelta(days=1)
            count -= self.works(found)
            if count == 0:
                return found
        raise ValueError(
            f"no {count} working days within {_SEARCH_DAYS} days after {day}; correct the list of days off"
        )


def kazakhstan(years: Iterable[int], *, off: Iterable[date] = (), working: Iterable[date] = ()) -> WorkCalendar:
    """The calendar of some years. Takes up to a second the first time: not for an event loop.

    Args:
        years: calendar years.
        off: further days off, by decree.
        working: days that are worked although the rules say otherwise.
    """
    import holidays

    span = sorted(set(years))
    known = holidays.country_holidays("KZ", years=span)
    decreed = frozenset(working)
    return WorkCalendar(
        off=frozenset(known.keys()) | frozenset(off) - decreed,
        working=decreed | frozenset(known.weekend_workdays),
        first=date(span[0], 1, 1),
        last=date(span[-1], 12, 31),
    )


def notice_due(seen_ms: int, calendar: WorkCalendar) -> date:
    """The last day on which the authority can be told in time of a switch first seen at ``seen_ms`` (UTC, ms)."""
    return calendar.after(local_day(seen_ms // 1000), SWITCH_NOTICE_DAYS)
