"""Orders with another limit every hour: what each hour allowed, and how each was kept: this program's own sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

HOUR_S, LOCAL_S, LISTED = 3600, 18_000, 744
Met = Callable[[int, int], bool]
"""(W, limit W) → does it meet the bar?"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Twenty-four limits in W from 0 o'clock UTC+5, and the floor below which none counts."""

    hours: tuple[int, ...]
    floor: int

    def allowed(self, at_s: int) -> int:
        """Limit at a moment."""
        return max(self.floor, self.hours[(at_s + LOCAL_S) % 86_400 // HOUR_S])

    def raised(self, starts: Sequence[int]) -> bool:
        """Was the floor above what the schedule said, in any of these moments?"""
        return any(self.hours[(at + LOCAL_S) % 86_400 // HOUR_S] < self.floor for at in starts)

    def judged(self, starts: Sequence[int], *, begin_ms: int, after_s: int, ramp: int) -> list[int]:
        """Windows of power without those in which load comes down to a stricter hour."""
        kept = []
        for at in starts:
            hour = at - at % HOUR_S
            step = self.allowed(hour - 1) - self.allowed(hour)
            late = after_s + (step * 60 // ramp if ramp else 0)
            if step <= 0 or hour * 1000 <= begin_ms or at >= hour + late:
                kept.append(at)
        return kept

    def listed(self, windows: Sequence[tuple[int, int | None]], met: Met) -> list[list[int]]:
        """[begin s, limit W, windows, known, met] of each hour with a window."""
        found: dict[int, list[int]] = {}
        for at, watt in windows:
            hour = at - at % HOUR_S
            row = found.setdefault(hour, [hour, self.allowed(hour), 0, 0, 0])
            row[2] += 1
            row[3] += watt is not None
            row[4] += watt is not None and met(watt, row[1])
        return [found[hour] for hour in sorted(found)]


def plan_of(order: dict[str, Any], floor: object) -> Plan | None:
    """The plan of an order that is a schedule; ``None`` for any other, or where the report states no floor.

    Raises:
        ValueError: a floor that is no power, or hours that are no limits.
    """
    if order.get("action") != "schedule" or floor is None:
        return None
    hours = order.get("hours")
    if type(floor) is not int or not 0 <= floor <= 10**10:
        raise ValueError(f"floor_w is {str(floor)[:20]}, expected a power in W")
    if not isinstance(hours, list) or len(hours) != 24 or any(type(w) is not int or w < 0 for w in hours):
        raise ValueError("hours of a schedule are 24 powers in W")
    return Plan(tuple(hours), floor)


def worst(rows: Sequence[Sequence[int]]) -> str:
    """Verdict over all hours: that of the worst."""
    found = "obeyed"
    for _, _, windows, known, met in rows:
        if (known - met) * 20 > windows:
            return "short"
        if (windows - known) * 20 > windows:
            found = "unknown"
    return found
