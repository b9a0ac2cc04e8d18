"""Windows of an order's duty: mean power against what was allowed, one by one and hour by hour. Pure, whole numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

HOUR_MS, HOUR_S = 3_600_000, 3_600


@dataclass(frozen=True, slots=True)
class Window:
    """Mean power of a whole window, W, and what was allowed in it; ``None`` where it is not known, or none was."""

    at_ms: int
    watt: int | None
    target: int | None

    def asked(self, before: int | None) -> int:
        """The ordered reduction of ``before``, W."""
        return max(0, before - self.target) if before is not None and self.target is not None else 0

    def gave(self, before: int | None) -> int:
        """What was delivered of it, W."""
        return 0 if before is None or self.watt is None else min(max(before - self.watt, 0), self.asked(before))

    def over(self, tolerance: int) -> int:
        """Power above what was allowed, W."""
        return 0 if self.watt is None or self.target is None else max(0, self.watt - self.target - tolerance)

    def below(self) -> int:
        """Power below what was allowed, W."""
        return 0 if self.watt is None or self.target is None else max(0, self.target - self.watt)

    def met(self, before: int | None, tolerance: int) -> bool:
        """Does it meet the bar: the target with its tolerance, or 2 % above it and 95 % of the ordered reduction?"""
        if self.watt is None or self.target is None:
            return False
        if self.watt <= self.target + tolerance:
            return True
        if self.watt * 100 > self.target * 102:
            return False
        ordered = 0 if before is None else before - self.target
        return ordered <= 0 or (ordered + self.target - self.watt) * 20 >= 19 * ordered


def by_hour(windows: Iterable[Window]) -> list[list[Window]]:
    """The same by the clock hours in which they begin."""
    return [list(found) for _, found in groupby(windows, lambda one: one.at_ms // HOUR_MS)]


def told(hour: Sequence[Window], before: int | None, tolerance: int) -> list[int]:
    """Of an hour: its begin (s), what was allowed (W), how many windows it has, how many are known, and met."""
    known = sum(one.watt is not None for one in hour)
    met = sum(one.met(before, tolerance) for one in hour)
    return [hour[0].at_ms // HOUR_MS * HOUR_S, hour[0].target or 0, len(hour), known, met]


def verdict(windows: Sequence[Window], before: int | None, tolerance: int) -> str:
    """``short`` where over 5 % are known and not met, else ``unknown`` where over 5 % are unknown, else ``obeyed``."""
    known = [one for one in windows if one.watt is not None]
    bad = sum(not one.met(before, tolerance) for one in known)
    if 20 * bad > len(windows):
        return "short"
    return "unknown" if 20 * (len(windows) - len(known)) > len(windows) else "obeyed"
