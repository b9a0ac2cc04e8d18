"""The meter's own clock against ours: seen, told, never set. Pure."""

from __future__ import annotations

from enum import StrEnum

WARN_MS = 5_000
FAIL_MS = 60_000
HOUR_MS = 3_600_000


class ClockState(StrEnum):
    """What an offset means."""

    GOOD = "good"
    WARN = "warn"
    """More than 5 s away."""
    FAIL = "fail"
    """More than 60 s away."""
    ZONE = "zone"
    """A whole number of hours away: another time zone, as of a meter that still runs on UTC+6."""
    UNKNOWN = "unknown"


def judge(offset_ms: int | None) -> ClockState:
    """Verdict on a meter's clock minus UTC, in ms."""
    if offset_ms is None:
        return ClockState.UNKNOWN
    away = abs(offset_ms)
    if away <= WARN_MS:
        return ClockState.GOOD
    hours, rest = divmod(away + FAIL_MS, HOUR_MS)
    if 1 <= hours <= 14 and rest <= 2 * FAIL_MS:
        return ClockState.ZONE
    return ClockState.FAIL if away > FAIL_MS else ClockState.WARN
