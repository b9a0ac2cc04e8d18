"""A change of a ratio against its own past, over windows of several lengths. Pure.

A ratio that should stand still (residual over main, feeder over machines) has a level of its own at every site: errors
of meters and of machines' own figures are constant and cancel in a comparison with the past. The mean over a window is
held against median and MAD of such means over the days before. A change that stays becomes the usual level after half
of the history: it was told by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from central.vee.limits import ShiftLimits, Window

DAY_S = 86_400
MAD_TO_SIGMA = 1.4826
STEPS = 4
"""Windows of the history overlap by all but one in so many."""
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shift:
    """A window that lies too far from the past: slots [``first``, ``last``] of the series, values as shares."""

    first: int
    last: int
    mean: float
    usual: float
    limit: float
    """Furthest that the mean may lie from the usual."""
    window: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found, and whether there was past enough to look."""

    shifts: tuple[Shift, ...]
    judged: bool


def means(values: Numbers, width: int, known: float) -> Numbers:
    """Mean over the ``width`` values that end at each place; NaN where too few are known."""
    good = ~np.isnan(values)
    total = np.concatenate(([0.0], np.cumsum(np.where(good, values, 0.0))))
    count = np.concatenate(([0], np.cumsum(good)))
    out = np.full(len(values), np.nan)
    if len(values) >= width:
        n = count[width:] - count[:-width]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (total[width:] - total[:-width]) / n
        out[width - 1 :] = np.where(n >= known * width, mean, np.nan)
    return out


def shifts(
    values: Sequence[float] | Numbers,
    begin: int,
    slot_s: int,
    windows: Sequence[Window],
    limits: ShiftLimits,
    least: float,
) -> Judged:
    """Every window that ends in [``begin``, end of the series) and lies too far from the days before it.

    Args:
        values: share per slot, NaN where it is not known.
        begin: first judged place; each day from there on has a past of its own.
        least: smallest change that counts, as a share.
    """
    series, day = np.asarray(values, dtype=np.float64), DAY_S // slot_s
    found: list[Shift] = []
    judged = False
    for window in windows:
        running = means(series, window.slots, limits.known / 1000)
        for first in range(begin, len(series), day):
            past = _past(running, first, window.slots, day, limits)
            if past is None:
                continue
            usual = float(np.median(past))
            sigma = max(MAD_TO_SIGMA * float(np.median(np.abs(past - usual))), window.floor / 1000)
            limit = max(window.sigmas * sigma, least)
            today = running[first : first + day]
            judged = judged or bool(np.any(~np.isnan(today)))
            for at in np.flatnonzero(np.abs(np.nan_to_num(today, nan=usual) - usual) > limit):
                last = first + int(at)
                found.append(Shift(last - window.slots + 1, last, float(today[at]), usual, limit, window.slots))
    return Judged(tuple(found), judged)


def _past(running: Numbers, first: int, width: int, day: int, limits: ShiftLimits) -> Numbers | None:
    """Means of windows that end before any judged one begins; ``None`` where there are too few days of them."""
    end = first - width + 1
    past = running[max(0, end - limits.history_days * day) : max(0, end)]
    good = past[~np.isnan(past)]
    if len(good) < limits.history_min_days * day * limits.known / 1000 - width:
        return None
    taken = past[:: -max(1, width // STEPS)]
    taken = taken[~np.isnan(taken)]
    return taken if len(taken) else None


def merged(found: Sequence[Shift]) -> Iterator[list[Shift]]:
    """Windows that overlap or touch, whatever their lengths, as lists in the order of their ends."""
    now: list[Shift] = []
    reach = -2
    for shift in sorted(found, key=lambda s: (s.last, s.first)):
        if now and shift.first > reach + 1:
            yield now
            now = []
        now.append(shift)
        reach = max(reach, shift.last)
    if now:
        yield now
